"""Exact sums: floating-point numbers added as integers in limbs, and rounded once.

The sum of a group is the real sum of its members, correctly rounded. So it knows no order, and a member that is
added and taken away again leaves no trace in the bits.
"""

from __future__ import annotations

import math

import numpy as np

from whiteboard.types import Array, Ids

LIMB_BITS = 31
"""A limb holds this many bits of each member; int64 then adds 2³² members without a carry."""


def exact_sums(values: Array, starts: Ids) -> Array:
    """Return the correctly rounded sum of each run of rows.

    Parameters
    ----------
    values : ndarray of float, shape (m, …)
        Finite.
    starts : ndarray of int64, shape (g,)
        First row of each run, ascending, beginning with 0.

    Returns
    -------
    ndarray, shape (g, …), dtype of `values`
        Infinity where a sum is beyond the dtype.
    """
    width = math.prod(values.shape[1:])
    rest = values.reshape(len(values), width).astype(np.float64)
    total = np.zeros((len(starts), width), object)
    scale = 0
    if rest.any():
        _, exponents = np.frexp(rest[rest != 0])
        top, bottom = int(exponents.max()), max(int(exponents.min()) - 53, -1074)
        scale = bottom
        for low in reversed(range(bottom, top, LIMB_BITS)):
            # Cutting the leading bits off a float, and what is then left, are both exact.
            limb = np.trunc(np.ldexp(rest, -low))
            rest -= np.ldexp(limb, low)
            total += np.add.reduceat(limb.astype(np.int64), starts, axis=0).astype(object) * (1 << (low - bottom))
    rounded = np.array([_rounded(int(value), scale) for value in total.flat], np.float64)
    with np.errstate(over="ignore"):
        return rounded.astype(values.dtype).reshape(len(starts), *values.shape[1:])


def _rounded(value: int, exponent: int) -> float:
    """Return value · 2^exponent, correctly rounded, also where it is subnormal."""
    try:
        return value / (1 << -exponent) if exponent < 0 else float(value << exponent)
    except OverflowError:
        return math.copysign(math.inf, value)
