"""Push the impulses of ops into any system.

It has ``nodes[i].theta`` and a method ``impulse(src_id, out_id, op_name, vector)``.
A `whiteboard.System` is such an object; so is a legacy system that counts epochs and edits `theta` in place. What a
foreign node holds is told by its value's digest alone, never by an epoch or a version of its own, so it cannot be
answered with what it held before, and shares its packages with everybody.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias

from numpy.typing import ArrayLike

from whiteboard import board as boards
from whiteboard.board import Board
from whiteboard.errors import ParamError, StaleImpulseError
from whiteboard.integration.foreign_answers import Answer, answers
from whiteboard.integration.foreign_calls import Call, Op, Source, calls
from whiteboard.integration.foreign_names import ForeignNames, Meaning
from whiteboard.integration.foreign_nodes import HasNodes, Read
from whiteboard.integration.foreign_single import at_once
from whiteboard.records.packages import Hit
from whiteboard.systems.jobs import Job, OpResult, Weight
from whiteboard.systems.sinks import check_sink
from whiteboard.systems.system import System
from whiteboard.types import Array, ResultSink

__all__ = [
    "Evaluation",
    "ForeignNames",
    "ForeignSystem",
    "Meaning",
    "default_cache",
    "evaluate_op_v2",
    "evaluate_ops_batched",
    "push_impulses_from_op_v2",
    "push_impulses_from_ops_batched",
]

Promote: TypeAlias = Literal["float64"]

Push: TypeAlias = Callable[[tuple[Source, ...], Any, str, tuple[Any, ...]], object]
"""``push(src_ids, out_id, op_name, vectors)``: takes all impulses of one job."""


class ForeignSystem(Protocol):
    """Nodes by id, and a method that takes impulses."""

    @property
    def nodes(self) -> Any: ...
    def impulse(self, src_id: Any, out_id: Any, op_name: str, vector: Any, /) -> object: ...


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What an op gives over nodes, without an impulse; ``y, grads, hit = evaluation``.

    Attributes
    ----------
    y : ndarray
    grads : tuple of ndarray
        ∂(Σy)/∂xᵢ, one a source, in its shape and dtype.
    hit : {"miss", "memory", "disk"}
    job_id : object
    out_id : int or None
    """

    y: Array
    grads: tuple[Array, ...]
    hit: Hit
    job_id: Any
    out_id: int | None
    _later: Callable[[Mapping[str, Any], Push | None], object]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.y, self.grads, self.hit))

    def push(
        self, residual: ArrayLike, *, scale: float = 1.0, weight: Weight | None = None, push: Push | None = None
    ) -> None:
        """Push ``−scale · Jᵢᵀ · residual`` onto each source, J at the values that it was evaluated at.

        It counts in `Board.stats` as a job of its own, which is answered from the cache. `weight` looks at the nodes as
        they are now. Parameters and errors are those of `push_impulses_from_op_v2`.

        Raises
        ------
        StaleImpulseError
            A node of a `System` has another version by now.
        """
        self._later({"residual": residual, "scale": scale, "weight": weight}, push)


def push_impulses_from_op_v2(
    sys: HasNodes,
    op_name: Op,
    src_ids: Sequence[Source],
    out_id: int | None,
    *,
    residual: ArrayLike | None = None,
    scale: float = 1.0,
    weight: Weight | None = None,
    cache: Board | None = None,
    result_sink: ResultSink | None = None,
    op_args: Sequence[Any] | None = (),
    op_kwargs: Mapping[str, Any] | None = None,
    read: Read = "theta",
    push: Push | None = None,
    promote: Promote | None = None,
    stack: bool = False,
    names: ForeignNames | None = None,
    identity: str | None = None,
    job_id: Any = 0,
) -> Array:
    """Apply an op to nodes, push ``−scale · Jᵢᵀ · residual`` onto each source, and return y.

    Parameters
    ----------
    sys : System or any object with ``nodes`` and ``impulse``
        ``nodes[i]`` is an object or a dict whose ``theta`` is float32 or float64 of any shape; its ``p`` is read for
        ``inv_length``.
    op_name : str or function
        A name of ours, one of `names`, or the function itself.
    src_ids : sequence of int or (int, str)
        A pair says which attribute of the node is read; ``impulse`` then gets the pair.
    residual : array_like, optional
        A scalar, or of y's shape; None pushes nothing, and is counted in ``stats()["without_residual"]``.
    weight : {None, "none", "inv_length"}, InvLength or callable
        As in `Job`; a callable gets the nodes as `sys` has them.
    cache : Board, optional
        What answers for a foreign system; one in memory for the process where it is None. A `System` answers from its
        own board.
    result_sink : ResultSink, optional
        Gets the `OpResult`, before anything is pushed.
    op_args, op_kwargs
        Parameters of the op, by position in its list of parameters and by name. Arrays of other libraries become
        NumPy's.
    read : str or callable
        The attribute that is read of each node, or ``read(node) → array``; the latter not of a `System`.
    push : callable, optional
        ``push(src_ids, out_id, op_name, vectors)`` is called once a job, instead of ``sys.impulse`` once a source. A
        vector of a source that is a number of Python's is a float.
    promote : {None, "float64"}
        Whether sources of any real dtype are taken as float64; y, gradients and impulses are float64 then. Not of a
        `System`.
    stack : bool
        The op takes one source, and it is the stack of all, (k, …).
    names : ForeignNames, optional
        What the system's own names for ops mean; ``impulse`` gets its own.
    identity : str, optional
        Of a function: stands for its code, as in `wb.op`.
    job_id : object
        Named in errors, and in the result.

    Raises
    ------
    UnknownOpError, UnknownNodeError, ShapeError, DtypeError, ParamError, NonFiniteError
        Nothing is pushed then.
    """
    spec = (_with(op_name, identity), src_ids, out_id, op_args, op_kwargs, residual)
    return push_impulses_from_ops_batched(
        sys,
        [spec],
        weight=weight,
        scale=scale,
        cache=cache,
        result_sink=result_sink,
        read=read,
        push=push,
        promote=promote,
        stack=stack,
        names=names,
        job_ids=(job_id,),
    )[0]


def push_impulses_from_ops_batched(
    sys: HasNodes,
    specs: Sequence[Sequence[Any]],
    *,
    weight: Weight | None = None,
    scale: float = 1.0,
    cache: Board | None = None,
    result_sink: ResultSink | None = None,
    read: Read = "theta",
    push: Push | None = None,
    promote: Promote | None = None,
    stack: bool = False,
    names: ForeignNames | None = None,
    job_ids: Sequence[Any] | None = None,
) -> list[Array]:
    """Do what `push_impulses_from_op_v2` does for many ops at once; return their y in order.

    Parameters
    ----------
    specs : sequence of (op_name, src_ids, out_id, op_args, op_kwargs[, residual])
        An op is a name, a function, or a pair of a function and its identity.
    job_ids : sequence, optional
        One a spec; their numbers where it is None.
    """
    is_plain = promote is None and push is None and names is None and weight is None and not stack
    if is_plain and len(specs) == 1 and not isinstance(sys, System):
        ids = (0,) if job_ids is None else job_ids
        y = at_once(sys, (cache or default_cache()).pipeline, specs[0], scale, read, result_sink, ids)
        if y is not None:
            return [y]
    made = calls(specs, scale=scale, weight=weight, read=read, stack=stack, names=names, job_ids=job_ids)
    door = _Door(sys, cache, promote)
    door.check(push, sends=any(call.job.residual is not None for call in made))
    return [answer.result.y for answer in door.answered(made, result_sink, push)]


def evaluate_op_v2(
    sys: HasNodes,
    op_name: Op,
    src_ids: Sequence[Source],
    out_id: int | None = None,
    *,
    cache: Board | None = None,
    result_sink: ResultSink | None = None,
    op_args: Sequence[Any] | None = (),
    op_kwargs: Mapping[str, Any] | None = None,
    read: Read = "theta",
    promote: Promote | None = None,
    stack: bool = False,
    names: ForeignNames | None = None,
    identity: str | None = None,
    job_id: Any = 0,
) -> Evaluation:
    """Apply an op to nodes and push nothing: a residual may come later, to `Evaluation.push`.

    Parameters and errors are those of `push_impulses_from_op_v2`; `sys` needs no ``impulse``.
    """
    return evaluate_ops_batched(
        sys,
        [(_with(op_name, identity), src_ids, out_id, op_args, op_kwargs)],
        cache=cache,
        result_sink=result_sink,
        read=read,
        promote=promote,
        stack=stack,
        names=names,
        job_ids=(job_id,),
    )[0]


def evaluate_ops_batched(
    sys: HasNodes,
    specs: Sequence[Sequence[Any]],
    *,
    cache: Board | None = None,
    result_sink: ResultSink | None = None,
    read: Read = "theta",
    promote: Promote | None = None,
    stack: bool = False,
    names: ForeignNames | None = None,
    job_ids: Sequence[Any] | None = None,
) -> list[Evaluation]:
    """Do what `evaluate_op_v2` does for many ops at once; specs are (op_name, src_ids, out_id, op_args, op_kwargs)."""
    made = calls(specs, scale=1.0, weight=None, read=read, stack=stack, names=names, job_ids=job_ids)
    if sending := [number for number, call in enumerate(made) if call.job.residual is not None]:
        msg = f"spec {sending[0]}: an evaluation takes no residual: give it to its method push"
        raise ParamError(msg)
    door = _Door(sys, cache, promote)
    door.check(None, sends=False)
    found = zip(made, door.answered(made, result_sink, None, keep=True), strict=True)
    return [_evaluation(door, call, answer) for call, answer in found]


@functools.cache
def default_cache() -> Board:
    """Return the board in memory that answers where no cache is given; one a process."""
    return boards.open(":memory:")


def _with(op: Op, identity: str | None) -> Op:
    return op if identity is None else (op, identity)  # type: ignore[return-value] # what it is, is looked at later


def _evaluation(door: _Door, call: Call, answer: Answer | _Own) -> Evaluation:
    result = answer.result
    later = functools.partial(door.later, call, answer)
    return Evaluation(result.y, result.grads, result.hit, result.job_id, result.out_id, later)


@dataclass(frozen=True, slots=True, eq=False)
class _Own:
    """The result of one call over nodes of a `System`, which takes the impulses itself."""

    result: OpResult
    job: Job


@dataclass(frozen=True, slots=True, eq=False)
class _Door:
    """The system that a call is about, what answers for it, and whether its values are promoted."""

    sys: HasNodes
    cache: Board | None
    promote: Any

    def check(self, push: Push | None, *, sends: bool) -> None:
        """Raise `ParamError` for what this system cannot be asked for."""
        if self.promote not in (None, "float64"):
            msg = f"promote: expected None or 'float64', got {self.promote!r}"
            raise ParamError(msg)
        if isinstance(self.sys, System) and (self.promote or push):
            word = "promote: its nodes have the dtypes that they" if self.promote else "push: it takes its impulses"
            msg = f"system {self.sys.name!r}: {word} {'were added with' if self.promote else 'itself'}"
            raise ParamError(msg)
        if sends and push is None and not callable(getattr(self.sys, "impulse", None)):
            msg = f"{type(self.sys).__name__} has no method impulse(src_id, out_id, op_name, vector): give push="
            raise ParamError(msg)

    def answered(
        self, made: Sequence[Call], sink: ResultSink | None, push: Push | None, *, keep: bool = False
    ) -> Sequence[Answer | _Own]:
        """Answer calls, publish the results, and push the impulses."""
        check_sink(sink, type(self.sys).__name__)
        if isinstance(self.sys, System):
            jobs = [call.over_nodes(f"system {self.sys.name!r}") for call in made]
            results = self.sys.process(jobs, sink)
            return [_Own(result, job) for result, job in zip(results, jobs, strict=True)]
        found = answers(self.sys, self._pipeline, made, promote=bool(self.promote), keep=keep)
        if sink is not None:
            for answer in found:
                sink.publish(answer.result)
        self._push(made, found, push)
        return found

    @property
    def _pipeline(self) -> Any:
        return (self.cache or default_cache()).pipeline

    def _push(self, made: Sequence[Call], found: Sequence[Answer], push: Push | None) -> None:
        for call, answer in zip(made, found, strict=True):
            if push is not None and answer.vectors:
                push(call.sources, call.job.out_id, call.op_name, answer.vectors)
            elif push is None:
                for source, vector in zip(call.sources, answer.vectors, strict=False):
                    self.sys.impulse(source, call.job.out_id, call.op_name, vector)  # type: ignore[attr-defined] # checked

    def later(self, call: Call, answer: Answer | _Own, fields: Mapping[str, Any], push: Push | None) -> None:
        """Send the impulses of a call that was answered before."""
        self.check(push, sends=True)
        if isinstance(answer, Answer):
            again = replace(call, job=replace(call.job, **fields))
            self._push([again], answers(self.sys, self._pipeline, [again], kept=answer.values), push)
            return
        assert isinstance(self.sys, System)
        with self.sys.nodes.lock:  # no commit between the look at the versions and the impulses
            if not self.sys.is_current(answer.result):
                now = self.sys.versions(answer.result.src_ids)
                msg = (
                    f"op {call.op_name!r}, job {answer.result.job_id!r}: evaluated at versions "
                    f"{answer.result.versions} of nodes {answer.result.src_ids}, which have {now}"
                )
                raise StaleImpulseError(msg)
            self.sys.process([replace(answer.job, **fields)])
