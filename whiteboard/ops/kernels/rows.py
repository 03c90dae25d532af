"""Reductions over any axes as one over the last axis of contiguous rows: the form whose bits no bin can change.

NumPy sums a contiguous last axis row by row, pairwise, whatever the number of rows. Over other axes, and over other
memory orders, the order of its additions may follow the whole array's shape.
"""

from __future__ import annotations

from math import prod

import numpy as np

from whiteboard.types import Array, Shape


def fold(x: Array, axes: tuple[int, ...]) -> Array:
    """Return (n, *shape) as contiguous (n, kept, reduced); `axes` are of one job, without the job axis.

    Where the axes are the last ones it is a view.
    """
    shape = x.shape[1:]
    kept = tuple(axis for axis in range(len(shape)) if axis not in axes)
    moved = x.transpose(0, *(axis + 1 for axis in kept), *(axis + 1 for axis in axes))
    size = (len(x), prod(shape[axis] for axis in kept), prod(shape[axis] for axis in axes))
    return np.ascontiguousarray(moved).reshape(size)


def unfold(rows: Array, shape: Shape, axes: tuple[int, ...]) -> Array:
    """Return rows of `fold` as a view of (n, *shape) again."""
    kept = tuple(axis for axis in range(len(shape)) if axis not in axes)
    order = (*kept, *axes)
    moved = rows.reshape(len(rows), *(shape[axis] for axis in order))
    back = sorted(range(len(order)), key=order.__getitem__)
    return moved.transpose(0, *(place + 1 for place in back))


def column(y: Array, rows: Array) -> Array:
    """Return what stands for y's shape, (n, …) with the reduced axes gone or 1, as (n, kept, 1) beside `rows`."""
    return y.reshape(*rows.shape[:2], 1)


def sum_back(grad: Array, shape: Shape) -> Array:
    """Return (n, *full) summed over the axes along which a source of `shape` was broadcast to `full`."""
    n, *full = grad.shape
    padded = (1,) * (len(full) - len(shape)) + shape
    spread = tuple(axis for axis, (was, now) in enumerate(zip(padded, full, strict=True)) if was != now)
    return (np.add.reduce(fold(grad, spread), axis=-1) if spread else grad).reshape(n, *shape)
