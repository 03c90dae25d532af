"""Elementwise ops as a table: each is a function, and the partial derivative of y by each source.

Derivatives are functions of the sources and y, and the VJP is the cotangent times them. Where the derivative does not
exist, the table's `subgradients` say what stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from whiteboard.errors import ParamError
from whiteboard.ops.kernels.cotangents import pull
from whiteboard.ops.registry import builtin
from whiteboard.ops.shapes import ShapeRule, broadcast, wrong_param
from whiteboard.ops.spec import Exactness, Example
from whiteboard.types import Array, Params, Shape

Partial: TypeAlias = Callable[..., Array | float]
Domain: TypeAlias = tuple[float, float]

_UNARY: tuple[Shape, ...] = ((), (1,), (5,), (2, 3), (0,), (2, 0, 3))
_BINARY: tuple[tuple[Shape, Shape], ...] = (
    *((shape, shape) for shape in _UNARY),
    *(((), (3,)), ((3,), ()), ((3,), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((1,), (2, 0)), ((4, 1, 2), (3, 1))),
)
_TERNARY: tuple[tuple[Shape, Shape, Shape], ...] = (
    *((shape, shape, shape) for shape in _UNARY),
    *(((), (3,), (2, 3)), ((2, 1), (3,), ()), ((2, 1), (1, 3), (2, 3))),
)


def examples(arity: int, domain: Domain = (-2.0, 2.0), params: Params | None = None) -> tuple[Example, ...]:
    """Return jobs of scalars, vectors, matrices, empty axes and, for several sources, shapes that broadcast."""
    shapes: tuple[tuple[Shape, ...], ...] = {1: tuple((s,) for s in _UNARY), 2: _BINARY, 3: _TERNARY}[arity]
    return tuple(Example(each, params or {}, domain) for each in shapes)


def elementwise(
    name: str,
    function: Callable[..., Array],
    *partials: Partial,
    doc: str,
    domain: Domain = (-2.0, 2.0),
    subgradients: str = "",
    params: Params | None = None,
    tries: tuple[Params, ...] = ({},),
    shape: ShapeRule = broadcast,
    exactness: Exactness = "exact",
) -> None:
    """Enter an elementwise op.

    Parameters
    ----------
    name : str
    function : callable
        ``function(*xs, out=..., **params) → y``; a ufunc is one.
    *partials : callable
        ``partial(*xs, y, **params)``: ∂y/∂x of one source, as an array that broadcasts to y, or a number.
    doc : str
        What y is.
    domain : (float, float)
        Where the examples' values lie.
    subgradients, params, shape, exactness
        As in `OpSpec`.
    tries : tuple of mapping
        Parameters to try it with.
    """

    def vjp(
        saved: tuple[Array, ...], cotangent: Array, need: tuple[bool, ...], /, **params: Any
    ) -> tuple[Array | None, ...]:
        return tuple(
            pull(cotangent, partial(*saved, **params)) if wanted else None
            for partial, wanted in zip(partials, need, strict=True)
        )

    jobs = tuple(example for given in tries for example in examples(len(partials), domain, given))

    @builtin(
        name,
        arity=len(partials),
        kind="elementwise",
        exactness=exactness,
        vjp=vjp,
        shape=shape,
        examples=jobs,
        params=params,
        subgradients=subgradients,
        doc=doc,
    )
    def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, tuple[Array, ...]]:
        y = function(*xs, out=out, **params)
        return y, (*xs, y)


# -- arithmetic


def _power_by_base(a: Array, b: Array, y: Array) -> Array:
    # b·a^(b−1), but 0 where b is 0: there 0·a^(−1) would be NaN at a = 0.
    slope = np.power(a, np.where(b == 0, 1, b - 1))
    return np.where(b == 0, b, np.where(np.isinf(b) & (slope == 0), slope, b * slope))


def _power_by_exponent(a: Array, b: Array, y: Array) -> Array:
    # y·log a → 0 as a → 0 from above, for b > 0, and as a → ∞, for b < 0.
    return y * np.log(np.where(((a == 0) & (b >= 0)) | ((a == np.inf) & (b < 0)), 1, a))


def _larger(a: Array, b: Array | float, *, out: Array | None = None) -> Array:
    # + 0: which of 0 and −0 NumPy returns is the processor's choice.
    y = np.maximum(a, b, out=out)
    return np.add(y, 0, out=y)


def _smaller(a: Array, b: Array | float, *, out: Array | None = None) -> Array:
    y = np.minimum(a, b, out=out)
    return np.add(y, 0, out=y)


def _tied(a: Array, b: Array, wins: Array) -> Array:
    """Return 1 where the source wins, ½ where they tie, else 0, in the dtype of `a`."""
    share: Array = wins.astype(a.dtype) + (a == b) * a.dtype.type(0.5)
    return share


elementwise("add", np.add, lambda a, b, y: 1.0, lambda a, b, y: 1.0, doc="a + b", exactness="portable")
elementwise("subtract", np.subtract, lambda a, b, y: 1.0, lambda a, b, y: -1.0, doc="a − b", exactness="portable")
elementwise("mul", np.multiply, lambda a, b, y: b, lambda a, b, y: a, doc="a · b", exactness="portable")
elementwise(
    "divide",
    np.divide,
    lambda a, b, y: 1 / b,
    lambda a, b, y: -y / b,
    doc="a / b",
    domain=(0.5, 2.0),
    exactness="portable",
)
elementwise("negative", np.negative, lambda x, y: -1.0, doc="−x", exactness="portable")
elementwise(
    "power",
    np.power,
    _power_by_base,
    _power_by_exponent,
    doc="a to the power b",
    domain=(0.3, 2.0),
    subgradients="by a: 0 where b = 0; by b: 0 where a = 0 and b ≥ 0, NaN where a < 0",
)
elementwise("square", np.square, lambda x, y: 2 * x, doc="x²", exactness="portable")
elementwise(
    "sqrt",
    np.sqrt,
    lambda x, y: 0.5 / y,
    doc="√x",
    domain=(0.2, 2.0),
    subgradients="infinity at 0",
    exactness="portable",
)
elementwise(
    "maximum",
    _larger,
    lambda a, b, y: _tied(a, b, a > b),
    lambda a, b, y: _tied(a, b, b > a),
    doc="the larger of a and b",
    subgradients="½ each where a = b",
    exactness="portable",
)
elementwise(
    "minimum",
    _smaller,
    lambda a, b, y: _tied(a, b, a < b),
    lambda a, b, y: _tied(a, b, b < a),
    doc="the smaller of a and b",
    subgradients="½ each where a = b",
    exactness="portable",
)

# -- exponentials and logarithms

elementwise("exp", np.exp, lambda x, y: y, doc="eˣ")
# eˣ again, and not y + 1, which has no digits left where x is far below 0
elementwise("expm1", np.expm1, lambda x, y: np.exp(x), doc="eˣ − 1, exact near 0")
elementwise("log", np.log, lambda x, y: 1 / x, doc="the natural logarithm", domain=(0.2, 2.0))
elementwise("log1p", np.log1p, lambda x, y: 1 / (1 + x), doc="log(1 + x), exact near 0", domain=(-0.5, 2.0))

# -- activations and trigonometry


def _sigmoid(x: Array, *, out: Array | None = None) -> Array:
    # e^(−|x|) never overflows.
    tail = np.exp(-np.abs(x))
    y: Array = np.divide(np.where(x >= 0, 1, tail), 1 + tail, out=out)
    return y


def _bell(x: Array) -> Array:
    # eˣ / (1 + eˣ)², whose 1 − y would have no digits left where y is near 1.
    tail = np.exp(-np.abs(x))
    slope: Array = tail / np.square(1 + tail)
    return slope


def _softplus(x: Array, *, out: Array | None = None) -> Array:
    return np.add(np.maximum(x, 0), np.log1p(np.exp(-np.abs(x))), out=out)


def _relu(x: Array, *, out: Array | None = None) -> Array:
    return _larger(x, 0, out=out)


elementwise("tanh", np.tanh, lambda x, y: 4 * _bell(2 * x), doc="the hyperbolic tangent")
elementwise("sigmoid", _sigmoid, lambda x, y: _bell(x), doc="1 / (1 + e⁻ˣ)")
elementwise("softplus", _softplus, lambda x, y: _sigmoid(x), doc="log(1 + eˣ)")
elementwise(
    "relu",
    _relu,
    lambda x, y: (x > 0).astype(x.dtype),
    doc="the larger of x and 0",
    subgradients="0 at 0",
    exactness="portable",
)
elementwise("sin", np.sin, lambda x, y: np.cos(x), doc="the sine of x in radians")
elementwise("cos", np.cos, lambda x, y: -np.sin(x), doc="the cosine of x in radians")
elementwise("abs", np.absolute, lambda x, y: np.sign(x), doc="|x|", subgradients="0 at 0", exactness="portable")

# -- choices


def _where(c: Array, a: Array, b: Array, *, out: Array | None = None) -> Array:
    y = np.where(c != 0, a, b)
    if out is None:
        return y
    out[...] = y
    return out


elementwise(
    "where",
    _where,
    lambda c, a, b, y: 0.0,
    lambda c, a, b, y: (c != 0).astype(y.dtype),
    lambda c, a, b, y: (c == 0).astype(y.dtype),
    doc="a where c is not 0, else b",
    subgradients="0 by c, also where c = 0",
    exactness="portable",
)


def _clip(x: Array, *, lo: float | None, hi: float | None, out: Array | None = None) -> Array:
    # float(): a NumPy float64 bound would make float64 of float32.
    raised = np.maximum(x, -np.inf if lo is None else float(lo), out=out)
    return _smaller(raised, np.inf if hi is None else float(hi), out=out)


def _clip_partial(x: Array, y: Array, *, lo: float | None, hi: float | None) -> Array:
    inside: Array = x == y
    return inside.astype(x.dtype)


def _clip_shape(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    bounds = []
    for name in ("lo", "hi"):
        try:
            bounds.append(float(params[name]) if params[name] is not None else None)
        except (TypeError, ValueError) as error:
            raise wrong_param(op, name, "a number or None", params[name]) from error
    lo, hi = bounds
    if lo is not None and hi is not None and not lo <= hi:
        msg = f"op {op!r}: parameters 'lo' and 'hi': expected lo ≤ hi, got {lo} and {hi}"
        raise ParamError(msg)
    return broadcast(op, shapes, params)


elementwise(
    "clip",
    _clip,
    _clip_partial,
    doc="x, held between `lo` and `hi`",
    params={"lo": None, "hi": None},
    tries=({}, {"lo": -1.0}, {"hi": 0.5}, {"lo": -0.5, "hi": 1.0}),
    shape=_clip_shape,
    subgradients="1 at a bound",
    exactness="portable",
)
