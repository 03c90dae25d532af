"""The last step of a closed-form VJP: a cotangent times a partial derivative."""

from __future__ import annotations

import numpy as np

from whiteboard.types import Array


def is_ones(cotangent: Array) -> bool:
    """Whether the cotangent is a 0-stride broadcast of 1, as it is for packages: then VJP is the derivative itself."""
    return cotangent.size > 0 and not any(cotangent.strides) and bool(cotangent[(0,) * cotangent.ndim] == 1)


def pull(cotangent: Array, partial: Array | float) -> Array:
    """Return cotangent · partial, in the cotangent's shape; it may be a view of either.

    Parameters
    ----------
    cotangent : ndarray
        In y's shape and dtype.
    partial : ndarray or float
        ∂y/∂x elementwise, of a shape that broadcasts to the cotangent's, or one number for all.
    """
    if not isinstance(partial, np.ndarray):
        if partial == 0:
            return np.broadcast_to(cotangent.dtype.type(0), cotangent.shape)  # also where the cotangent is infinite
        return cotangent if partial == 1 else cotangent * cotangent.dtype.type(partial)
    if not is_ones(cotangent):
        return np.multiply(cotangent, partial)
    # 1 · x has the bits of x: the product and its buffer are saved.
    return partial if partial.shape == cotangent.shape else np.broadcast_to(partial, cotangent.shape)


def pull_rows(cotangent: Array, partial: Array) -> Array:
    """Return one cotangent a job, (n,), times ∂y/∂x of that job, (n, d); it may be a view of `partial`."""
    return partial if is_ones(cotangent) else cotangent[:, None] * partial
