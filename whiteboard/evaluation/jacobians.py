"""Jacobians as columns: pulled back to gradients, or made of gradients and of the VJPs of y's components."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.evaluation.canonical import canonical
from whiteboard.ops.kernels import jacobians
from whiteboard.records.packages import MISS
from whiteboard.types import Array, Ids, Shape

MOST: Final = 2**22
"""Most elements of unit cotangents that are made at once."""


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


class Components:
    """The Jacobians of n jobs, from the VJPs of unit cotangents, one a component of y.

    Iterating yields (some, rows, cotangent): which pairs of a job and a component of its y, (m,), their jobs, (m,), and
    the unit cotangents, (m, *y_shape), as many as `MOST` allows. `fill` takes what comes of them.
    """

    def __init__(self, y: Array, shapes: Sequence[Shape]) -> None:
        self._y, self._size = y, prod(y.shape[1:])
        self._pairs = len(y) * self._size
        self._filled = [np.empty((self._pairs, *shape), y.dtype) for shape in shapes]
        self._hit = np.empty(self._pairs, np.uint8)

    def __iter__(self) -> Iterator[tuple[Ids, Ids, Array]]:
        for start in range(0, self._pairs, step := max(1, MOST // max(1, self._size))):
            some = np.arange(start, min(start + step, self._pairs), dtype=np.int64)
            units = np.zeros((len(some), self._size), self._y.dtype)
            units[np.arange(len(some)), some % self._size] = 1
            yield some, some // self._size, units.reshape(len(some), *self._y.shape[1:])

    def fill(self, some: Ids, grads: Sequence[Array], hit: NDArray[np.uint8]) -> None:
        """Take the VJPs of some pairs, (m, *shape) a source, and their hit codes, (m,)."""
        for whole, part in zip(self._filled, grads, strict=True):
            whole[some] = part
        self._hit[some] = hit

    @property
    def hit(self) -> NDArray[np.uint8]:
        """The hit codes of the jobs, (n,): a miss where one component is, else the slowest tier."""
        codes = self._hit.reshape(len(self._y), self._size)
        return np.where((codes == MISS).any(axis=1), np.uint8(MISS), codes.max(axis=1, initial=MISS))

    @property
    def jacobians(self) -> tuple[Array, ...]:
        """What was filled in, (n, *y_shape, *shape) a source, read-only."""
        return tuple(_read_only(each.reshape(*self._y.shape, *each.shape[1:])) for each in self._filled)


def _finished(array: Array) -> Array:
    canonical(array)
    return _read_only(array)


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array
