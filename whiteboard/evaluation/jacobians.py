"""Jacobians as columns: pulled back to gradients, or made of gradients and of the VJPs of y's components."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from whiteboard.evaluation.session import canonical
from whiteboard.ops.kernels import jacobians
from whiteboard.records.packages import MISS
from whiteboard.types import Array, Ids, Shape


def pulled(y: Array, given: Sequence[Array], cotangent: Array | None) -> tuple[Array, ...]:
    """Return Jᵀ · cotangent of n jobs, one array (n, *shape) a source, read-only; None stands for ones.

    Parameters
    ----------
    y : ndarray, (n, *y_shape)
    given : sequence of ndarray, each (n, *y_shape, *shape)
    cotangent : ndarray, (n, *y_shape), optional
    """
    driving = np.broadcast_to(np.ones((), y.dtype), y.shape) if cotangent is None else cotangent
    with np.errstate(all="ignore"):
        return tuple(_finished(jacobians.pull(driving, each)) for each in given)


def of_scalar(y: Array, grads: Sequence[Array]) -> tuple[Array, ...]:
    """Return the gradients of y, (n, *y_shape) of one element a job, as Jacobians."""
    return tuple(grad.reshape(*y.shape, *grad.shape[1:]) for grad in grads)


def diagonal(grads: Sequence[Array]) -> tuple[Array, ...]:
    """Return Jacobians (n, *shape, *shape) that are zero but for the gradients, (n, *shape), on their diagonals."""
    made = []
    for grad in grads:
        n, size = len(grad), prod(grad.shape[1:])
        full = np.zeros((n, size, size), grad.dtype)
        full[:, np.arange(size), np.arange(size)] = grad.reshape(n, size)
        made.append(_read_only(full.reshape(n, *grad.shape[1:], *grad.shape[1:])))
    return tuple(made)


class Blocks:
    """The Jacobians of n jobs, from VJPs of unit cotangents: some jobs at a time, one a component of y of each.

    Iterating yields (rows, repeated, cotangent): some jobs, (m,), these jobs as often as y has components, (m · size,),
    and the unit cotangents, (m · size, *y_shape). `fill` takes what comes of them.
    """

    def __init__(self, y: Array, shapes: Sequence[Shape], most: int) -> None:
        self._y, self._size, self._most = y, prod(y.shape[1:]), most
        self._filled = [np.zeros((len(y), self._size, *shape), y.dtype) for shape in shapes]

    def __iter__(self) -> Iterator[tuple[Ids, Ids, Array]]:
        if not self._size:
            return
        step = max(1, self._most // self._size)
        for start in range(0, len(self._y), step):
            rows = np.arange(start, min(start + step, len(self._y)), dtype=np.int64)
            units = np.tile(np.eye(self._size, dtype=self._y.dtype), (len(rows), 1))
            yield rows, np.repeat(rows, self._size), units.reshape(-1, *self._y.shape[1:])

    def fill(self, rows: Ids, grads: Sequence[Array], hit: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Take the VJPs of a block, and return the hit codes of its jobs, (m,): one miss makes a job one."""
        for whole, part in zip(self._filled, grads, strict=True):
            whole[rows] = part.reshape(len(rows), self._size, *part.shape[1:])
        codes = hit.reshape(len(rows), self._size)
        return np.where((codes == MISS).any(axis=1), np.uint8(MISS), codes.max(axis=1))

    @property
    def jacobians(self) -> tuple[Array, ...]:
        """What was filled in, (n, *y_shape, *shape) a source, read-only."""
        return tuple(_read_only(each.reshape(*self._y.shape, *each.shape[2:])) for each in self._filled)


def _finished(array: Array) -> Array:
    canonical(array)
    return _read_only(array)


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array
