"""How far apart two arrays are, in units in the last place."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FARTHEST: Final = 2**64 - 1
"""The distance of what cannot be compared: a NaN and a number, arrays of another shape or dtype."""


def ulps(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.uint64]:
    """Return how many numbers lie from a to b, element by element, and so 1 from -0.0 to 0.0, and 0 for two NaNs.

    Of integers, their difference; of complex numbers, the larger one of the parts'. `FARTHEST` for a NaN and a number.

    Parameters
    ----------
    a, b : ndarray
        Of one shape and dtype: boolean, integer, complex, or float of up to 8 bytes.
    """
    a, b = (np.ascontiguousarray(x.astype(x.dtype.newbyteorder("="), copy=False)).reshape(x.shape) for x in (a, b))
    if a.dtype.kind == "c":
        return np.asarray(np.maximum(ulps(a.real, b.real), ulps(a.imag, b.imag)))
    places = [_places(x) for x in (a, b)]
    above = places[0] >= places[1]
    with np.errstate(over="ignore"):
        raw = [place.astype(np.uint64) for place in places]
        apart = np.where(above, raw[0] - raw[1], raw[1] - raw[0])
    if a.dtype.kind == "f":
        nans = np.isnan(a).astype(np.int8) + np.isnan(b)
        apart = np.where(nans == 0, apart, np.where(nans == 2, np.uint64(0), np.uint64(FARTHEST)))
    return np.asarray(apart, np.uint64)


def _places(x: NDArray[Any]) -> NDArray[Any]:
    """Integers that stand in the order of the numbers, neighbours next to each other."""
    if x.dtype.kind == "b":
        return x.astype(np.int64)
    if x.dtype.kind != "f":
        return x
    bits = x.view(f"i{x.itemsize}").astype(np.int64)
    # Negative floats run downwards: bits without the sign, inverted.
    return np.where(bits < 0, ~(bits - np.int64(-(2 ** (8 * x.itemsize - 1)))), bits)


def largest(a: NDArray[Any], b: NDArray[Any]) -> int | None:
    """Return the largest distance of two arrays' elements; None where they cannot be compared."""
    if (a.dtype.str, a.shape) != (b.dtype.str, b.shape) or a.dtype.itemsize > (16 if a.dtype.kind == "c" else 8):
        return None
    found = int(ulps(a, b).max(initial=np.uint64(0)))
    return None if found == FARTHEST else found
