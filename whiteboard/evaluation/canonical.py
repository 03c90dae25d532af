"""NaNs as they are kept: all the same one."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from whiteboard.types import Array

_FEW: Final = 4096
"""Numbers of which BLAS makes a product in the thread that asks."""


def canonical(array: Array) -> None:
    """Make every NaN the same one.

    Which of two NaNs a sum or product returns, and so its sign and payload, follows the lane of the vector register
    that the element is in (NumPy's loops and remainders differ), and with it the bin.
    """
    # A sum of squares is NaN where one of them is, as none is negative, and so is a maximum, which takes twice as long.
    if math.isnan(np.vdot(array, array) if array.size <= _FEW else np.maximum.reduce(array, axis=None)):
        np.copyto(array, np.nan, where=np.isnan(array))


def all_canonical(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    """Make every NaN of some arrays the same one, and return them."""
    for array in arrays:
        canonical(array)
    return arrays
