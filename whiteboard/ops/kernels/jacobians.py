"""Jacobians, contracted with a cotangent in one order, whatever the bin."""

from __future__ import annotations

from math import prod

import numpy as np

from whiteboard.ops.kernels.contract import contract
from whiteboard.ops.kernels.cotangents import is_ones
from whiteboard.types import Array


def pull(cotangent: Array, jacobian: Array) -> Array:
    """Return Jᵀ · cotangent of each of n jobs, (n, *x), in memory of its own.

    Of a scalar y it is a product, and J itself where the cotangent is 1; else the sum over y in C order.

    Parameters
    ----------
    cotangent : ndarray, (n, *y)
    jacobian : ndarray, (n, *y, *x)
    """
    n, ndim = len(jacobian), cotangent.ndim
    shape = jacobian.shape[ndim:]
    rows, width = prod(cotangent.shape[1:]), prod(shape)
    flat = np.ascontiguousarray(jacobian).reshape(n, rows, width)
    if rows == 1:
        single = flat[:, 0]
        return np.array(single if is_ones(cotangent) else cotangent.reshape(n, 1) * single).reshape(n, *shape)
    weights = np.ascontiguousarray(cotangent).reshape(n, rows)
    return contract("ij,i->j", flat, weights).reshape(n, *shape)
