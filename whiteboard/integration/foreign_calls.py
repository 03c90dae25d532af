"""Foreign calls: what a caller gives as specs, as jobs over foreign nodes, once every part is what it can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from whiteboard import ops
from whiteboard.errors import ParamError, ShapeError
from whiteboard.integration.foreign_names import ForeignNames, Meaning
from whiteboard.integration.foreign_nodes import Read
from whiteboard.ops import registry
from whiteboard.systems.jobs import Job, Weight
from whiteboard.types import OpLike, shown

Op: TypeAlias = OpLike | tuple[Callable[..., Any], str]
"""The name of an op, a function, or a function with the identity that stands for its code."""

Source: TypeAlias = int | tuple[int, str]
"""A node's id, or its id and the attribute that is read of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One job: as ours, whose `attr` nobody asks, and what the foreign system calls its op and its sources."""

    job: Job
    op_name: str
    sources: tuple[Source, ...]
    reads: tuple[Read, ...]

    def over_nodes(self, where: str) -> Job:
        """Return the job over the nodes of a `System`.

        Raises
        ------
        ParamError
            It reads them by a function, and its impulses would not know where to go.
        """
        names = [read for read in self.reads if isinstance(read, str)]
        if len(names) < len(self.reads):
            msg = f"{where}: read: the nodes of a System are read by the name of an attribute, not by a function"
            raise ParamError(msg)
        return replace(self.job, attr=tuple(names) or "theta")


def calls(
    specs: Sequence[Sequence[Any]],
    *,
    scale: float,
    weight: Weight | None,
    read: Read,
    stack: bool,
    names: ForeignNames | None,
    job_ids: Sequence[Any] | None,
) -> list[Call]:
    """Return the calls that specs stand for; see `bridge_v2.push_impulses_from_ops_batched`.

    Raises
    ------
    ParamError, ShapeError, UnknownOpError
        The message names the spec, or op and job.
    """
    if job_ids is not None and len(job_ids) != len(specs):
        msg = f"job_ids: expected {len(specs)}, one a spec, got {len(job_ids)}"
        raise ShapeError(msg)
    how: Any = read
    if not (isinstance(how, str) or callable(how)):
        msg = f"read: expected an attribute's name or a function of the node, got {read!r}"
        raise ParamError(msg)
    common = {"scale": scale, "weight": weight}
    ids = range(len(specs)) if job_ids is None else job_ids
    return [
        _call(number, spec, job_id, read, stack, names, common)
        for number, (spec, job_id) in enumerate(zip(specs, ids, strict=True))
    ]


class _Where(NamedTuple):
    """A call, as errors name it; the text is made only for them."""

    label: str
    job_id: Any

    def __str__(self) -> str:
        return f"op {self.label!r}, job {shown(self.job_id)!r}"


@lru_cache(maxsize=256)
def _ours(name: str) -> Meaning:
    return Meaning(name)


def _call(
    number: int,
    spec: Sequence[Any],
    job_id: Any,
    read: Read,
    stack: bool,
    names: ForeignNames | None,
    common: Mapping[str, Any],
) -> Call:
    if not 5 <= len(spec) <= 6:
        msg = (
            f"spec {number}: expected (op_name, src_ids, out_id, op_args, op_kwargs[, residual]), got {len(spec)} items"
        )
        raise ParamError(msg)
    op, src_ids, out_id, op_args, op_kwargs, residual = (*spec, None)[:6]
    if isinstance(op, str):
        meaning = _ours(op) if names is None else names.meaning(op)
        name = ops.name_of(meaning.op)
        label = op
    else:
        meaning = Meaning(_named(op))
        label = name = ops.name_of(meaning.op)
    where = _Where(label, job_id)
    sources = _sources(src_ids, where)
    pairs = [each if isinstance(each, tuple) else (each, read) for each in sources]
    job = Job(
        name,
        [node_id for node_id, _ in pairs],
        out_id,
        residual=residual,
        params=_params(meaning, op_args, op_kwargs, where),
        stack=stack or meaning.stack,
        job_id=job_id,
        **common,
    )
    return Call(job, label, sources, tuple([each for _, each in pairs]))


def _named(op: Op) -> OpLike:
    """Return an op that is given with its identity by the name that it is registered under."""
    if not isinstance(op, tuple):
        return op
    if list(map(callable, op)) != [True, False]:
        msg = f"op: expected a name, a function, or (function, identity), got {op!r:.80}"
        raise ParamError(msg)
    function: Any
    function, identity = op
    module, word = getattr(function, "__module__", None), getattr(function, "__qualname__", type(function).__name__)
    name = f"{module}.{word} {identity}"
    if registry.name_of(function) != name:
        ops.op(name, identity=identity)(function)
    return name


def _sources(given: Any, where: _Where) -> tuple[Source, ...]:
    if not isinstance(given, tuple | list) and (isinstance(given, str) or not isinstance(given, Sequence | np.ndarray)):
        msg = f"{where}: src_ids: expected a sequence of ids, or of (id, attribute), got {given!r:.80}"
        raise ParamError(msg)
    sources = tuple([tuple(each) if isinstance(each, list) else each for each in given])
    for each in sources:
        if isinstance(each, str) or (isinstance(each, tuple) and (len(each) != 2 or not isinstance(each[1], str))):
            msg = f"{where}: src_ids: expected an id, or (id, attribute), got {each!r:.80}"
            raise ParamError(msg)
    return sources


def _params(meaning: Meaning, op_args: Any, op_kwargs: Any, where: _Where) -> dict[str, Any]:
    if op_kwargs is None and (op_args is None or op_args == ()) and not meaning.params:
        return {}
    args, kwargs = () if op_args is None else op_args, {} if op_kwargs is None else op_kwargs
    if isinstance(args, str) or not isinstance(args, Sequence) or not isinstance(kwargs, Mapping):
        wrong = (
            ("op_kwargs", "a mapping of names", kwargs) if isinstance(args, Sequence) else ("op_args", "a tuple", args)
        )
        msg = f"{where}: {wrong[0]}: expected {wrong[1]}, or None, got {wrong[2]!r:.80}"
        raise ParamError(msg)
    names = [name for name in ops.get(meaning.op).params if name not in meaning.params] if args else []
    if len(args) > len(names):
        msg = f"{where}: expected at most {len(names)} op_args, got {len(args)}"
        raise ParamError(msg)
    given = dict(zip(names, args, strict=False))
    if twice := sorted(given.keys() & kwargs.keys()):
        msg = f"{where}: parameter {twice[0]!r} is in op_args and in op_kwargs"
        raise ParamError(msg)
    if twice := sorted(meaning.params.keys() & kwargs.keys()):
        msg = f"{where}: parameter {twice[0]!r} is set by the table of names"
        raise ParamError(msg)
    return {name: _numpy(value) for name, value in {**meaning.params, **given, **kwargs}.items()}


def _numpy(value: Any) -> Any:
    """Return a parameter with the arrays of other libraries in it as NumPy's."""
    kind = type(value)
    if kind in (list, tuple):
        return kind(_numpy(each) for each in value)
    if kind is dict:
        return {name: _numpy(each) for name, each in value.items()}
    if hasattr(kind, "__array__") and kind.__module__.partition(".")[0] != "numpy":
        return np.asarray(value) if not isinstance(value, np.ndarray) else value
    return value
