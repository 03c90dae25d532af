"""`op`: a user's function of arrays becomes an op, with gradients by one of the words in `gradients`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from os import PathLike, fspath
from types import FunctionType, MethodType
from typing import Any, Final, TypeAlias, TypeVar, overload

from whiteboard.errors import DuplicateOpError, ParamError
from whiteboard.ops import registry
from whiteboard.ops.fingerprint.walk import Terms
from whiteboard.ops.gradients import WORDS
from whiteboard.ops.gradients import rule as rule_of
from whiteboard.ops.gradients.function import Function
from whiteboard.ops.registry import Entry, register
from whiteboard.ops.shapes import broadcast, counted, scalar, unknown
from whiteboard.ops.spec import REQUIRED, Batch, Exactness, Example, Gradient, Kind, OpSpec
from whiteboard.types import Params, Shape

F = TypeVar("F", bound=Callable[..., Any])
UserVjp: TypeAlias = Callable[..., Any]
UserShape: TypeAlias = Callable[..., Shape]

_OF_PROGRAM: Final = "its fingerprint is that of the program that it lowers to, which its sources tell"


@overload
def op(name: F, /) -> F: ...


@overload
def op(
    name: str | None = None,
    version: int = 1,
    *,
    kind: Kind = "general",
    batch: Batch = "loop",
    gradient: Gradient = "autograd",
    vjp: UserVjp | None = None,
    identity: str | None = None,
    trust: Sequence[str] = (),
    ignore: Sequence[str] = (),
    reads: Sequence[str] = (),
    keep_sources: bool | None = None,
    shape: UserShape | None = None,
    examples: Sequence[Example] = (),
    exactness: Exactness = "exact",
    subgradients: str = "",
    replace: bool = False,
) -> Callable[[F], F]: ...


def op(
    name: str | F | None = None,
    version: int = 1,
    *,
    kind: Kind = "general",
    batch: Batch = "loop",
    gradient: Gradient = "autograd",
    vjp: UserVjp | None = None,
    identity: str | None = None,
    trust: Sequence[str] = (),
    ignore: Sequence[str] = (),
    reads: Sequence[str] = (),
    keep_sources: bool | None = None,
    shape: UserShape | None = None,
    examples: Sequence[Example] = (),
    exactness: Exactness = "exact",
    subgradients: str = "",
    replace: bool = False,
) -> Any:
    """Register a function of arrays as an op; the function itself is returned as it is.

    Positional arguments without a default are the sources; ``*args`` takes any number of them. Arguments with a
    default, and keyword-only ones, are the op's parameters. It is run for jobs that have no package, and never on
    values that nobody asked for: a hit runs nothing, and what shape y has the first job tells.

    Parameters
    ----------
    name : str, optional
        By default the function's own.
    version : int
        Part of the op's identity: raise it for a change that the fingerprint cannot see, such as a library's.
    kind : {"general", "elementwise", "scalar"}
        ``elementwise``: y[j] depends on the sources' j-th elements alone. ``scalar``: y has shape ().
    batch : {"loop", "lead_axis"}
        ``loop``: the function gets one job, sources of their own shapes. ``lead_axis``: for speed it gets n jobs at
        once, sources (n, *shape) → y (n, *y_shape), and y[i] may depend on the sources' row i alone, to the bit.
    gradient : {"autograd", "returned", "jacobian", "pullback", "jax", "torch", "none"}
        Where its gradients come from; for value and gradient it is called once a job, with ``batch="lead_axis"`` once a
        bin. Gradients of several sources are a tuple, and None among them stands for zeros.

        - ``autograd``: it is written with ``autograd.numpy``, and HIPS autograd differentiates it.
        - ``returned``: it returns y, a scalar, and its gradients: ``(y, (g1, g2))``, or ``(y, g)`` of one source.
        - ``jacobian``: it returns y and its Jacobians, the i-th of shape (*y, *xᵢ). They are kept, so that no residual
          needs another call.
        - ``pullback``: it returns y and a function from an array of y's shape to the gradients, as `jax.vjp` does. That
          may be called several times before the function itself is called again.
        - ``jax``: it is a function of JAX's arrays, which may be jitted; `jax.vjp` differentiates it. It is known by
          the program that it lowers to, constants and all, so for a look at the store too it is traced.
        - ``torch``: it is a function of CPU tensors, or an ``nn.Module``; ``torch.autograd.grad`` differentiates it.
          Modules are known by source and state.
        - ``none``: it has none. A residual or a target is an error, and `grads` of its results are ().
    vjp : callable, optional
        ``vjp(cotangent, y, *sources, **params) → gradients``, in the place of `gradient`: one per source; one array
        will do for one source.
    identity : str, optional
        Stands for the code in the op's identity: ``"solver 2.3"``. The code is then not looked at, so it has to change
        with whatever changes the result.
    trust : sequence of str
        Libraries, or names of theirs, that are pure, beside those known to be: ``("networkx", "meshio.helpers")``. They
        count by name and by their distribution's version; compiled code of one's own, by its file.
    ignore : sequence of str
        Names that the code uses, and that have no part in the result: ``("time", "log")``.
    reads : sequence of str
        Files that the code reads, as it names them: their contents are part of the op's identity.
    keep_sources : bool, optional
        Whether the store keeps the sources beside the results, for `Board.table` and `Board.audit`: always, never, or,
        by default, where computing cost at least 1 ms a job, and much more than to write them.
    shape : callable, optional
        ``shape(*source_shapes, **params) → y's shape`` of one job: bins of a general op are then cut by the size of y
        from the first one on.
    examples : sequence of Example
        Jobs for `ops.check`, for a function that does not take sources of any shape.
    exactness : {"exact", "portable", "tolerance"}
        ``exact``: one job has one result on machines that round alike, and the class of these is part of its key.
        ``portable`` is a promise: value and gradients come from + − · /, square roots, comparisons and sums in a fixed
        order, and not from exp, sin, powers and the like, so that packages are shared by machines of all kinds. Where
        the code, as far as it is seen, may reach BLAS, the class stays in the key. One machine cannot test it; first
        hits are computed again, as those of every op. ``tolerance``: a job's bits may depend on its bin, as those of a
        matrix product over stacked rows do.
    subgradients : str
        What the VJP returns where the derivative does not exist.
    replace : bool
        Put it in the place of another op of the name: a notebook's cell after an edit.

    Raises
    ------
    DuplicateOpError
        If the name is taken by other code, or by a built-in op.
    ParamError
        For a signature that does not tell sources from parameters, and for a word that is not one.
    """
    if callable(name):
        return op()(name)
    _expect_functions(name, vjp=vjp, shape=shape)
    _kind(name, kind, gradient, vjp)
    trust, ignore, reads = _escape(identity, trust, ignore, reads)
    told = {
        "version": version,
        "kind": kind,
        "batch": batch,
        "gradient": gradient,
        "vjp": vjp,
        "identity": identity,
        "trust": trust,
        "ignore": ignore,
        "reads": reads,
        "keep_sources": keep_sources,
        "shape": shape,
        "examples": _tuple(examples),
        "exactness": exactness,
        "subgradients": subgradients,
    }

    def enter(function: F) -> F:
        called = _called(function) if name is None else name
        register(entry_of(function, name=called, **told), replace=replace, function=function)
        return function

    return enter


def entry_of(
    function: Callable[..., Any],
    *,
    name: str,
    kind: Kind,
    batch: Batch,
    gradient: Gradient,
    vjp: UserVjp | None,
    identity: str | None,
    trust: Sequence[str],
    ignore: Iterable[str],
    reads: Sequence[str],
    shape: UserShape | None,
    **fields: Any,
) -> Entry:
    """Return the op of a function, as `op` enters it; the rest of `op`'s words are fields of its record.

    Raises
    ------
    ParamError
    """
    told: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "batch": batch,
        "gradient": gradient,
        "vjp": vjp,
        "identity": identity,
    }
    told |= {"trust": trust, "ignore": ignore, "reads": reads, "shape": shape, **fields}
    written = _written(name, function, gradient)
    arity, params = _signature(name, written)
    kind = _kind(name, kind, gradient, vjp)
    wanted = Function(name, function, kind == "elementwise", batch == "lead_axis", vjp, tuple(reads))
    rule = rule_of("given" if vjp else gradient, wanted)
    program = None if identity else rule.program
    of_shapes = _told(shape) if shape else {"elementwise": broadcast, "scalar": scalar}.get(str(kind), unknown)
    spec = OpSpec(
        name=name,
        arity=arity,
        kind=kind,
        forward=rule.forward,
        vjp=rule.vjp,
        shape=counted(arity, of_shapes),
        batch=batch,
        user=True,
        gradient="vjp" if vjp else gradient,
        params=params,
        program=program,
        opaque=_OF_PROGRAM if program else "",
        settings=rule.settings,
        doc=(inspect.getdoc(function) or "").partition("\n")[0],
        made=(function, told),
        **fields,
    )
    return Entry(
        spec, (function, rule.code), Terms(_package(written), *_escape(identity, trust, ignore, reads)), identity
    )


def name_of(op_or_function: Any) -> str:
    """Return the name of an op: of a function that is none yet, one is made, as `op` does by default.

    Raises
    ------
    ParamError
        For what is neither a name nor a function that an op can be made of.
    """
    if isinstance(op_or_function, str):
        return op_or_function
    if not callable(op_or_function):
        msg = f"op: expected the name of an op, or a function, got {op_or_function!r}"
        raise ParamError(msg)
    found = registry.name_of(op_or_function)
    if found is None:
        with suppress(DuplicateOpError):  # then it is known beside the one of that name
            op()(op_or_function)
        found = registry.name_of(op_or_function)
        assert found is not None
    return found


def _tuple(given: Any) -> Any:
    """Return a sequence as a tuple, and what is none as it is: the record says what is wrong with it."""
    return tuple(given) if isinstance(given, Iterable) else given


def _expect_functions(name: object, **given: Any) -> None:
    for word, each in given.items():
        if each is not None and not callable(each):
            msg = f"op {name!r}: {word}: expected a function, got {each!r}"
            raise ParamError(msg)


def _escape(identity: Any, trust: Any, ignore: Any, reads: Any) -> tuple[Any, ...]:
    """Check what a user says of an op's identity, and return it as the fields of its terms."""
    if identity is not None and not (isinstance(identity, str) and identity):
        msg = f"identity: expected a text that changes with what the op computes, got {identity!r}"
        raise ParamError(msg)
    for word, given, what in (("trust", trust, "libraries"), ("ignore", ignore, "names"), ("reads", reads, "files")):
        if isinstance(given, str) or not isinstance(given, Iterable):
            msg = f"{word}: expected a tuple of {what}, got {given!r}"
            raise ParamError(msg)
        if wrong := [each for each in given if not isinstance(each, str | PathLike) or not str(each)]:
            msg = f"{word}: expected {what}, each a text, got {wrong[0]!r}"
            raise ParamError(msg)
    return tuple(map(str, trust)), frozenset(map(str, ignore)), tuple(map(fspath, reads))


def _kind(name: object, kind: Any, gradient: Any, vjp: UserVjp | None) -> Any:
    """Check the word for the gradients, and return the kind of the op: what returns its gradient has a scalar y."""
    if not (isinstance(gradient, str) and gradient in WORDS):
        msg = f"op {name!r}: gradient: expected one of {', '.join(map(repr, WORDS))}, got {gradient!r}"
        raise ParamError(msg)
    if vjp is not None and gradient != "autograd":
        msg = f"op {name!r}: give vjp= or gradient=, not both"
        raise ParamError(msg)
    if gradient in ("returned", "jacobian") and kind == "elementwise":
        msg = f"op {name!r}: gradient={gradient!r}: expected kind 'general' or 'scalar', got 'elementwise'"
        raise ParamError(msg)
    return "scalar" if (gradient, kind) == ("returned", "general") else kind


def _called(function: Any) -> str:
    """Return the name of a function, or of an object's class."""
    return str(getattr(function, "__name__", None) or type(function).__name__)


def _written(name: object, function: Any, gradient: str) -> Any:
    """Return what has the signature of a callable: of JAX's and torch's words it may be more than a plain function."""
    if isinstance(function, FunctionType):
        return function
    if gradient in ("jax", "torch"):
        found = inspect.unwrap(getattr(function, "forward", function))
        if isinstance(found, FunctionType | MethodType | partial):
            return found
        if isinstance(found := getattr(found, "__call__", None), MethodType):  # noqa: B004 - what is called
            return found
    home = type(function).__module__.partition(".")[0]
    hint = {"jax": "jax", "jaxlib": "jax", "torch": "torch"}.get("torch" if hasattr(function, "state_dict") else home)
    remedy = f": register it with wb.op(gradient={hint!r})" if hint and hint != gradient else ""
    msg = f"op {name!r}: expected a function written in Python, got {type(function).__name__}{remedy}"
    raise ParamError(msg)


def _package(function: Any) -> str:
    """Return the package of the user's that a function is of; torch's modules are not the user's."""
    while isinstance(function, partial):
        function = function.func
    package = str(getattr(function, "__globals__", {}).get("__name__", "")).partition(".")[0]
    return "" if package == "torch" else package


def _signature(name: object, function: Any) -> tuple[int | None, dict[str, Any]]:
    """Return how many sources the function takes (None for any number) and its parameters with their defaults."""
    if (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or inspect.isgeneratorfunction(function)
    ):
        msg = f"op {name!r}: expected a function that returns an array, got one that is asynchronous, or yields"
        raise ParamError(msg)
    sources, params, more = 0, {}, False
    for key, parameter in inspect.signature(function).parameters.items():
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        if parameter.kind is parameter.VAR_POSITIONAL:
            more = True
        elif parameter.kind is parameter.VAR_KEYWORD:
            msg = f"op {name!r}: **{key}: name the parameters, so that a job's can be checked"
            raise ParamError(msg)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            params[key] = default
        elif default is REQUIRED:
            sources += 1
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            msg = f"op {name!r}: {key!r}: a parameter is given by name, so it cannot be positional only"
            raise ParamError(msg)
        else:
            params[key] = default
    if not sources and not more:
        msg = f"op {name!r}: expected a function of at least one array"
        raise ParamError(msg)
    return (None if more else sources), params


# -- shape rules


def _told(shape: UserShape) -> Callable[[str, tuple[Shape, ...], Params], Shape]:
    def rule(_op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
        return tuple(shape(*shapes, **params))

    return rule
