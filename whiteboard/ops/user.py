"""`op`: a user's function of arrays becomes an op, with a VJP of the user's or one by HIPS autograd."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np

from whiteboard.errors import ParamError, ShapeError
from whiteboard.ops.registry import register
from whiteboard.ops.shapes import broadcast, counted
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
    kind: Kind = "general",
    batch: Batch = "lead_axis",
    vjp: UserVjp | None = None,
    *,
    shape: UserShape | None = None,
    examples: Sequence[Example] = (),
    exactness: Exactness = "exact",
    subgradients: str = "",
    replace: bool = False,
) -> Callable[[F], F]: ...


def op(
    name: str | F | None = None,
    version: int = 1,
    kind: Kind = "general",
    batch: Batch = "lead_axis",
    vjp: UserVjp | None = None,
    *,
    shape: UserShape | None = None,
    examples: Sequence[Example] = (),
    exactness: Exactness = "exact",
    subgradients: str = "",
    replace: bool = False,
) -> Any:
    """Register a function of arrays as an op; the function itself is returned as it is.

    Positional arguments without a default are the sources; ``*args`` takes any number of them. Arguments with a
    default, and keyword-only ones, are the op's parameters.

    Parameters
    ----------
    name : str, optional
        By default the function's own.
    version : int
        Part of the op's identity: raise it for a change that the fingerprint cannot see, such as a library's.
    kind : {"general", "elementwise", "scalar"}
        ``elementwise``: y[j] depends on the sources' j-th elements alone. ``scalar``: y has shape ().
    batch : {"lead_axis", "loop"}
        ``lead_axis``: the function gets n jobs at once, sources (n, *shape) → y (n, *y_shape), and y[i] may depend
        on the sources' row i alone, to the bit. ``loop``: it gets one job, sources of their own shapes.
    vjp : callable, optional
        ``vjp(cotangent, y, *sources, **params) → gradients``, one per source; one array will do for one source.
        Without it the function is written with ``autograd.numpy``, and differentiated by HIPS autograd once per bin.
    shape : callable, optional
        ``shape(*source_shapes, **params) → y's shape`` of one job. Without it, the function of a general op is run
        on made-up values to see, once a process for each combination of shapes and parameters.
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
        For a signature that does not tell sources from parameters.
    """
    if isinstance(name, FunctionType):
        return op()(name)

    def enter(function: F) -> F:
        called = name if isinstance(name, str) else function.__name__
        arity, params = _signature(called, function)
        trial = _Trial(function, batch)
        rule = _told(shape) if shape else {"elementwise": broadcast, "scalar": _scalar}.get(kind, trial)
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
            subgradients=subgradients,
            params=params,
            doc=(inspect.getdoc(function) or "").partition("\n")[0],
            examples=tuple(examples),
        )
        package = function.__globals__.get("__name__", "").partition(".")[0]
        register(spec, (function, vjp), own=package, replace=replace, forget=trial.forget)
        return function

    return enter


def _signature(name: str, function: Any) -> tuple[int | None, dict[str, Any]]:
    """Return how many sources the function takes (None for any number) and its parameters with their defaults."""
    if not isinstance(function, FunctionType):
        msg = f"op {name!r}: expected a function written in Python, got {type(function).__name__}"
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


def _scalar(_op: str, _shapes: tuple[Shape, ...], _params: Params) -> Shape:
    return ()


def _told(shape: UserShape) -> Callable[[str, tuple[Shape, ...], Params], Shape]:
    def rule(_op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
        return tuple(shape(*shapes, **params))

    return rule


class _Trial:
    """The shape rule of a general op that brings none: the function is run on made-up sources, and y looked at.

    Parameters
    ----------
    function : callable
    batch : {"lead_axis", "loop"}
    """

    def __init__(self, function: Callable[..., Any], batch: Batch) -> None:
        self._function, self._lead = function, (2,) * (batch == "lead_axis")
        self._known: dict[Any, Shape] = {}

    def __call__(self, op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
        key = (shapes, repr(sorted(params.items())))  # a shape that is wrong for it would be found by the session
        if key not in self._known:
            self._known[key] = self._run(op, shapes, params)
        return self._known[key]

    def forget(self) -> None:
        """Run the function again when next asked: something that it names has changed."""
        self._known.clear()

    def _run(self, op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
        sources = [_made_up((*self._lead, *shape)) for shape in shapes]
        try:
            with np.errstate(all="ignore"):
                got = np.shape(self._function(*sources, **params))
        except Exception as error:
            msg = (
                f"op {op!r}: sources {shapes}: run on made-up values, to see the shape of y, the function raised "
                f"{type(error).__name__}: {error}. If the values are at fault, give wb.op a shape rule, shape="
            )
            raise ShapeError(msg) from error
        if got[: len(self._lead)] != self._lead:
            msg = (
                f"op {op!r}: y: expected shape (2, ...) for 2 jobs, got {got}: write the function for n jobs at once, "
                "or register it with batch='loop'"
            )
            raise ShapeError(msg)
        return tuple(got[len(self._lead) :])


def _made_up(shape: Shape) -> Array:
    """Return values in (0.5, 1.5), square matrices symmetric and positive definite, so that they can be inverted."""
    values = np.random.default_rng(0).uniform(0.5, 1.5, shape)
    if len(shape) > 1 and shape[-1] == shape[-2]:
        values = (values + values.swapaxes(-1, -2)) / 2 + 2 * shape[-1] * np.eye(shape[-1])
    values.flags.writeable = False
    return values
