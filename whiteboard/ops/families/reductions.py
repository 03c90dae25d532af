"""Reductions and scans along axes of one job: sum, mean, var, max, logsumexp, softmax, norm, cumsum, prod.

``axis`` (None for all, an integer or a sequence) counts the axes of one job; ``keepdims`` leaves ones in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, TypeAlias

import numpy as np

from whiteboard.ops.kernels.cotangents import pull
from whiteboard.ops.kernels.lengths import mended, unit
from whiteboard.ops.kernels.products import at_risk, scaled_others, scaled_product
from whiteboard.ops.kernels.rows import column, fold, unfold
from whiteboard.ops.registry import builtin
from whiteboard.ops.shapes import (
    ShapeRule,
    along_axis,
    axes_of,
    axis_of,
    reduced,
    reduced_nonempty,
    wrong_param,
    wrong_shape,
)
from whiteboard.ops.spec import Exactness, Example
from whiteboard.types import Array, Params, Shape

Slope: TypeAlias = Callable[..., Array | float]

_FULL = (
    *(Example((shape,)) for shape in ((1,), (5,), (2, 3), (1, 4), (2, 3, 2))),
    Example(((2, 3),), {"axis": 0}),
    Example(((2, 3),), {"axis": -1, "keepdims": True}),
    Example(((2, 3, 2),), {"axis": (0, 2)}),
    Example(((2, 3, 2),), {"axis": 1, "keepdims": True}),
    Example(((3, 0),), {"axis": 0}),
)
_EMPTY = (*(Example((shape,)) for shape in ((), (0,), (0, 3), (2, 0))), Example(((3, 0),), {"axis": 1}))
_ALONG = (
    *(Example((shape,)) for shape in ((1,), (5,), (2, 3), (0,), (3, 0))),
    Example(((2, 3),), {"axis": 0}),
    Example(((2, 3, 2),), {"axis": -2}),
)


def reduction(
    name: str,
    slope: Slope,
    *,
    doc: str,
    shape: ShapeRule = reduced,
    subgradients: str = "",
    exactness: Exactness = "portable",
    tries: tuple[Example, ...] = (),
    **params: Any,
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Return a decorator that enters a reduction by its function on contiguous rows.

    The decorated function is ``function(rows, **params) → y``: (n, kept, reduced) to (n, kept). ``slope(rows, y,
    **params)`` is ∂y/∂x as an array that broadcasts to the rows, y being a column (n, kept, 1). `params` are
    further parameters and their defaults, `tries` further examples.
    """
    names = tuple(params)

    def vjp(
        saved: tuple[Array, Array, Shape, tuple[int, ...]], cotangent: Array, need: tuple[bool, ...], /, **given: Any
    ) -> tuple[Array | None, ...]:
        rows, y, sizes, axes = saved
        if not need[0]:
            return (None,)
        extra = {key: given[key] for key in names}
        spread = np.broadcast_to(column(cotangent, rows), rows.shape)
        return (unfold(pull(spread, slope(rows, column(y, rows), **extra)), sizes, axes),)

    def enter(function: Callable[..., Array]) -> Callable[..., Array]:
        def forward(
            xs: tuple[Array, ...], out: Array | None, /, axis: Any, keepdims: bool, **extra: Any
        ) -> tuple[Array, Any]:
            (x,) = xs
            axes = axes_of(name, axis, x.ndim - 1)
            rows = fold(x, axes)
            y = function(rows, **extra)
            sizes = (len(x), *(1 if a in axes else s for a, s in enumerate(x.shape[1:]) if keepdims or a not in axes))
            y = y.reshape(sizes)
            if out is not None:
                out[...] = y
                y = out
            return y, (rows, y, x.shape[1:], axes)

        builtin(
            name,
            arity=1,
            kind="general",
            exactness=exactness,
            vjp=vjp,
            shape=shape,
            examples=(*_FULL, *(_EMPTY if shape is reduced else ()), *tries),
            params={"axis": None, "keepdims": False, **params},
            subgradients=subgradients,
            doc=doc,
        )(forward)
        return function

    return enter


@reduction("sum", lambda rows, y: 1.0, doc="the sum over `axis`")
def _sum(rows: Array) -> Array:
    total: Array = np.add.reduce(rows, axis=-1)
    return total


@reduction("mean", lambda rows, y: 1.0 / rows.shape[-1], doc="the mean over `axis`", shape=reduced_nonempty)
def _mean(rows: Array) -> Array:
    size = rows.shape[-1]
    mean = np.asarray(_sum(rows) / size)
    over = ~np.isfinite(mean)
    if over.any():  # of the sum, perhaps, and not of the mean
        bits = size.bit_length()
        mean[over] = np.ldexp(_sum(np.ldexp(rows[over], -bits)) / size, bits)
    return mean


def _from_mean(rows: Array) -> Array:
    return rows - _mean(rows)[..., None]


def _var_shape(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    (shape,) = shapes
    ddof, count = params["ddof"], prod(shape[axis] for axis in axes_of(op, params["axis"], len(shape)))
    if not isinstance(ddof, int) or ddof < 0:
        raise wrong_param(op, "ddof", "an integer from 0", ddof)
    if count <= ddof:
        raise wrong_shape(op, 0, f"more than {ddof} elements along the reduced axes", shape)
    return reduced(op, shapes, params)


@reduction(
    "var",
    lambda rows, y, ddof: _from_mean(rows) * (2 / (rows.shape[-1] - ddof)),
    doc="the variance over `axis`: squared distances from the mean, over the number of elements less `ddof`",
    shape=_var_shape,
    tries=(Example(((4,),), {"ddof": 1}), Example(((2, 3),), {"ddof": 2, "axis": 1})),
    ddof=0,
)
def _var(rows: Array, ddof: int) -> Array:
    variance: Array = _sum(np.square(_from_mean(rows))) / (rows.shape[-1] - ddof)
    return variance


def _max_slope(rows: Array, y: Array) -> Array:
    wins = rows == y
    ties = np.maximum(wins.sum(-1, keepdims=True), 1)  # no element equals y where y is NaN
    share: Array = wins / ties.astype(rows.dtype)
    return share


@reduction(
    "max",
    _max_slope,
    doc="the largest element over `axis`",
    shape=reduced_nonempty,
    subgradients="shared equally by the elements that tie; 0 where one is NaN",
)
def _max(rows: Array) -> Array:
    # + 0: which of 0 and −0 NumPy returns is the processor's choice.
    largest: Array = np.maximum.reduce(rows, axis=-1) + 0
    return largest


def _shares(rows: Array, y: Array) -> Array:
    # Not e^(x − y): where y is large it has no digits left for the log Σ.
    top = np.maximum.reduce(rows, axis=-1, keepdims=True, initial=-np.inf)
    share = np.exp(np.where(rows == top, 0, rows - top))
    share /= _sum(share)[..., None]
    return np.where(top == -np.inf, 0, share).astype(rows.dtype, copy=False)


@reduction(
    "logsumexp",
    _shares,
    exactness="exact",
    doc="log Σ eˣ over `axis`, without overflow",
    subgradients="0 where every element is −∞; shared equally by the elements that are ∞",
)
def _logsumexp(rows: Array) -> Array:
    top = np.maximum.reduce(rows, axis=-1, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    return np.log(_sum(np.exp(rows - top[..., None]))) + top


@reduction(
    "norm",
    lambda rows, y: unit(rows, y[..., 0]),
    doc="the Euclidean (Frobenius) norm over `axis`",
    subgradients="0 at 0",
)
def _norm(rows: Array) -> Array:
    return mended(np.sqrt(_sum(np.square(rows))), rows)


def _others(rows: Array, y: Array) -> Array:
    """Return the product of all elements but each: of those before it, times those after it. No division by 0."""
    ones = np.ones_like(rows[..., :1])
    before = np.multiply.accumulate(np.concatenate([ones, rows[..., :-1]], axis=-1), axis=-1)
    after = np.multiply.accumulate(np.concatenate([ones, rows[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    others: Array = before * after
    risky = at_risk(np.frexp(rows)[1], rows.dtype)
    if risky.any():
        others[risky] = scaled_others(rows[risky])
    return others


@reduction("prod", _others, doc="the product over `axis`")
def _prod(rows: Array) -> Array:
    product: Array = np.multiply.reduce(rows, axis=-1)
    risky = at_risk(np.frexp(rows)[1], rows.dtype)
    if risky.any():
        product[risky] = scaled_product(rows[risky])
    return product


def _softmax_vjp(
    saved: tuple[Array, int, Shape], cotangent: Array, need: tuple[bool, ...], /, axis: int
) -> tuple[Array | None]:
    y, place, sizes = saved
    if not need[0]:
        return (None,)
    pulled = fold(cotangent, (place,))
    if y.size:
        # Counted from the cotangent of the largest share, whose own 1 − y would have no digits left.
        pulled = pulled - np.take_along_axis(pulled, y.argmax(axis=-1, keepdims=True), axis=-1)
    return (unfold(y * (pulled - _sum(y * pulled)[..., None]), sizes, (place,)),)


@builtin(
    "softmax",
    arity=1,
    kind="general",
    vjp=_softmax_vjp,
    shape=along_axis,
    examples=_ALONG,
    params={"axis": -1},
    doc="eˣ over its sum along `axis`",
)
def _softmax(xs: tuple[Array, ...], out: Array | None, /, axis: int) -> tuple[Array, tuple[Array, int, Shape]]:
    (x,) = xs
    place = axis_of("softmax", axis, x.ndim - 1)
    rows = fold(x, (place,))
    y = np.exp(rows - np.maximum.reduce(rows, axis=-1, keepdims=True, initial=-np.inf))
    y /= _sum(y)[..., None]
    return unfold(y, x.shape[1:], (place,)), (y, place, x.shape[1:])


def _cumsum_vjp(saved: int, cotangent: Array, need: tuple[bool, ...], /, axis: int) -> tuple[Array | None]:
    if not need[0]:
        return (None,)
    return (np.flip(np.cumsum(np.flip(cotangent, saved), saved), saved),)


@builtin(
    "cumsum",
    arity=1,
    kind="general",
    exactness="portable",
    vjp=_cumsum_vjp,
    shape=along_axis,
    examples=_ALONG,
    params={"axis": -1},
    doc="the running sum along `axis`",
)
def _cumsum(xs: tuple[Array, ...], out: Array | None, /, axis: int) -> tuple[Array, int]:
    (x,) = xs
    place = 1 + axis_of("cumsum", axis, x.ndim - 1)
    return np.cumsum(x, place, out=out), place
