"""Ops of any number of sources, elementwise: sum_k, mean_k, prod_k."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard.ops.kernels.cotangents import pull
from whiteboard.ops.kernels.products import at_risk, scaled_others, scaled_product
from whiteboard.ops.registry import builtin
from whiteboard.ops.shapes import broadcast
from whiteboard.ops.spec import Example
from whiteboard.types import Array

_EXAMPLES = tuple(
    Example(shapes)
    for shapes in (
        ((3,),),
        ((3,), (3,)),
        ((), (), ()),
        ((2, 3), (3,), ()),
        ((3,), (2, 1), (2, 3), (1,)),
        ((0,), (0,), (1,)),
        ((2,),) * 9,
    )
)


def _combined(ufunc: np.ufunc, xs: tuple[Array, ...], out: Array | None) -> Array:
    """Return the sources combined from the first on, in `out` or a new array."""
    y = np.empty(np.broadcast_shapes(*(x.shape for x in xs)), xs[0].dtype) if out is None else out
    np.copyto(y, xs[0])
    for x in xs[1:]:
        ufunc(y, x, out=y)
    return y


def _rows(xs: tuple[Array, ...], where: NDArray[np.bool_]) -> Array:
    """Return the sources' elements at some places of y, (m, k)."""
    return np.stack([np.broadcast_to(x, where.shape)[where] for x in xs], axis=-1)


def _at_risk(xs: tuple[Array, ...]) -> NDArray[np.bool_]:
    """Whether a product of an element's factors may leave the normal numbers, in y's shape."""
    exponents = np.stack(np.broadcast_arrays(*(np.frexp(x)[1] for x in xs)), axis=-1)
    return at_risk(exponents, xs[0].dtype)


def _sum_vjp(saved: None, cotangent: Array, need: tuple[bool, ...], /) -> tuple[Array | None, ...]:
    return tuple(cotangent if wanted else None for wanted in need)


@builtin(
    "sum_k",
    arity=None,
    kind="elementwise",
    exactness="portable",
    vjp=_sum_vjp,
    shape=broadcast,
    examples=_EXAMPLES,
    doc="the sum of the sources, from the first on",
)
def _sum_k(xs: tuple[Array, ...], out: Array | None, /) -> tuple[Array, None]:
    return _combined(np.add, xs, out), None


def _mean_vjp(saved: None, cotangent: Array, need: tuple[bool, ...], /) -> tuple[Array | None, ...]:
    share = pull(cotangent, 1 / len(need))
    return tuple(share if wanted else None for wanted in need)


@builtin(
    "mean_k",
    arity=None,
    kind="elementwise",
    exactness="portable",
    vjp=_mean_vjp,
    shape=broadcast,
    examples=_EXAMPLES,
    doc="the mean of the sources",
)
def _mean_k(xs: tuple[Array, ...], out: Array | None, /) -> tuple[Array, None]:
    total = _combined(np.add, xs, out)
    mean = np.divide(total, len(xs), out=total)
    over = ~np.isfinite(mean)
    if over.any():  # of the sum, perhaps, and not of the mean
        bits, rows = len(xs).bit_length(), _rows(xs, over)
        sums = np.zeros(len(rows), mean.dtype)
        for j in range(len(xs)):
            sums += np.ldexp(rows[:, j], -bits)
        mean[over] = np.ldexp(sums / len(xs), bits)
    return mean, None


def _prod_vjp(xs: tuple[Array, ...], cotangent: Array, need: tuple[bool, ...], /) -> tuple[Array | None, ...]:
    # The product of those before times that of those after: no division, so that a 0 does no harm.
    before: list[Array | float] = [1.0]
    for x in xs[:-1]:
        before.append(before[-1] * x)
    after: list[Array | float] = [1.0]
    for x in xs[:0:-1]:
        after.append(after[-1] * x)
    partials: list[Any] = [left * right for left, right in zip(before, reversed(after), strict=True)]
    risky = _at_risk(xs)
    if risky.any():
        partials = [np.array(np.broadcast_to(np.asarray(each, cotangent.dtype), risky.shape)) for each in partials]
        for partial, mended in zip(partials, scaled_others(_rows(xs, risky)).T, strict=True):
            partial[risky] = mended
    return tuple(pull(cotangent, partial) if wanted else None for partial, wanted in zip(partials, need, strict=True))


@builtin(
    "prod_k",
    arity=None,
    kind="elementwise",
    exactness="portable",
    vjp=_prod_vjp,
    shape=broadcast,
    examples=_EXAMPLES,
    doc="the product of the sources, from the first on",
)
def _prod_k(xs: tuple[Array, ...], out: Array | None, /) -> tuple[Array, tuple[Array, ...]]:
    y, risky = _combined(np.multiply, xs, out), _at_risk(xs)
    if risky.any():
        y[risky] = scaled_product(_rows(xs, risky))
    return y, xs
