"""`op`: a user's function of arrays becomes an op, with a VJP of the user's or one by HIPS autograd."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from os import PathLike, fspath
from types import FunctionType
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np

from whiteboard.errors import DuplicateOpError, ParamError
from whiteboard.ops import registry
from whiteboard.ops.fingerprint.libraries import library_of
from whiteboard.ops.fingerprint.walk import Terms
from whiteboard.ops.registry import register
from whiteboard.ops.shapes import broadcast, counted, scalar, unknown
from whiteboard.ops.spec import REQUIRED, Batch, Exactness, Example, Forward, Kind, OpSpec, Vjp
from whiteboard.types import Array, Params, Shape

F = TypeVar("F", bound=Callable[..., Any])
UserVjp: TypeAlias = Callable[..., Any]
UserShape: TypeAlias = Callable[..., Shape]


@overload
def op(name: F, /) -> F: ...


@overload
def op(
    name: str | None = None,
    version: int = 1,
    *,
    kind: Kind = "general",
    batch: Batch = "loop",
    vjp: UserVjp | None = None,
    identity: str | None = None,
    trust: Sequence[str] = (),
    ignore: Sequence[str] = (),
    reads: Sequence[str] = (),
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
    vjp: UserVjp | None = None,
    identity: str | None = None,
    trust: Sequence[str] = (),
    ignore: Sequence[str] = (),
    reads: Sequence[str] = (),
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
    vjp : callable, optional
        ``vjp(cotangent, y, *sources, **params) → gradients``, one per source; one array will do for one source.
        Without it the function is written with ``autograd.numpy``, and differentiated by HIPS autograd: once a job,
        or with ``batch="lead_axis"`` once a bin.
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
    shape : callable, optional
        ``shape(*source_shapes, **params) → y's shape`` of one job: bins of a general op are then cut by the size of y
        from the first one on.
    examples : sequence of Example
        Jobs for `ops.check`, for a function that does not take sources of any shape.
    exactness : {"exact", "tolerance"}
        ``tolerance``: a job's bits may depend on its bin, as those of a matrix product over stacked rows do.
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
    escape = _escape(identity, trust, ignore, reads)

    def enter(function: F) -> F:
        called = function.__name__ if name is None else name
        arity, params = _signature(called, function)
        rule = _told(shape) if shape else {"elementwise": broadcast, "scalar": scalar}.get(str(kind), unknown)
        forward, pull = _traced(called, function, kind) if vjp is None else _given(function, vjp, kind)
        spec = OpSpec(
            name=called,
            arity=arity,
            kind=kind,
            forward=forward,
            vjp=pull,
            shape=counted(arity, rule),
            version=version,
            batch=batch,
            exactness=exactness,
            user=True,
            subgradients=subgradients,
            params=params,
            doc=(inspect.getdoc(function) or "").partition("\n")[0],
            examples=_tuple(examples),
        )
        package = function.__globals__.get("__name__", "").partition(".")[0]
        gradient = vjp or tuple(library_of("autograd", None) or ())  # autograd counts by its version
        register(
            spec,
            (function, gradient),
            Terms(package, *escape),
            identity=identity,
            replace=replace,
            function=function,
        )
        return function

    return enter


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


def _signature(name: object, function: Any) -> tuple[int | None, dict[str, Any]]:
    """Return how many sources the function takes (None for any number) and its parameters with their defaults."""
    if not isinstance(function, FunctionType):
        msg = f"op {name!r}: expected a function written in Python, got {type(function).__name__}"
        raise ParamError(msg)
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


# -- calling the user's function


def _full(xs: tuple[Array, ...], kind: Kind) -> tuple[Array, ...]:
    """Return the sources of an elementwise op in one shape: so its gradients have y's shape, as a session expects."""
    if kind != "elementwise" or len({x.shape for x in xs}) == 1:
        return xs
    return tuple(np.ascontiguousarray(x) for x in np.broadcast_arrays(*xs))


def _array(y: Any, dtype: np.dtype[Any]) -> Any:
    """Return a Python number as an array; whatever else is wrong with y is for the session to say."""
    return np.asarray(y, dtype) if isinstance(y, int | float) else y


def _given(function: Callable[..., Any], vjp: UserVjp, kind: Kind) -> tuple[Forward, Vjp]:
    """Return forward and VJP of an op whose gradients the user wrote."""

    def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]:
        xs = _full(xs, kind)
        y = _array(function(*xs, **params), xs[0].dtype)
        return y, (y, xs)

    def pull(saved: Any, cotangent: Array, need: tuple[bool, ...], /, **params: Any) -> tuple[Array | None, ...]:
        y, xs = saved
        given = vjp(cotangent, y, *xs, **params)
        grads = given if isinstance(given, tuple | list) else (given,)
        return tuple(_array(grad, y.dtype) for grad in grads)

    return forward, pull


def _traced(name: str, function: Callable[..., Any], kind: Kind) -> tuple[Forward, Vjp]:
    """Return forward and VJP of an op that autograd differentiates: one trace a bin."""

    def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]:
        from autograd import make_vjp

        xs = _full(xs, kind)
        try:
            back, y = make_vjp(function, tuple(range(len(xs))))(*xs, **params)
        except TypeError as error:
            if "ArrayBox" not in str(error):
                raise
            msg = f"op {name!r}: autograd needs it written with autograd.numpy, or give wb.op a vjp= ({error})"
            raise ParamError(msg) from error
        return _array(y, xs[0].dtype), (back, xs[0].dtype)

    def pull(saved: Any, cotangent: Array, need: tuple[bool, ...], /, **params: Any) -> tuple[Array | None, ...]:
        back, dtype = saved
        # Autograd makes float64 of some float32 gradients.
        return tuple(np.asarray(grad, dtype) for grad in back(cotangent))

    return forward, pull


# -- shape rules


def _told(shape: UserShape) -> Callable[[str, tuple[Shape, ...], Params], Shape]:
    def rule(_op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
        return tuple(shape(*shapes, **params))

    return rule
