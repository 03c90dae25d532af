"""Where results go that are computed: into memory that is cheap to touch, those of a batch bin behind bin.

A column of all bins is a view then (`whiteboard.records.adjacent.together`), and copies nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from whiteboard.memory.room import LEAST_BYTES, Room, Shelf, aligned, block, is_small, room, shelves
from whiteboard.types import Array, Shape

_LEAST_COLUMN: Final = 2**20
_MOST_BYTES: Final = 128 * 2**20
"""As of pages that are read: less is not worth a region of memory, and what is let go of more stays too long."""


class Place(NamedTuple):
    """Memory of an array: `target` to write to, and `result` to read once that is done, which may be read-only."""

    target: Array
    result: Array


def place(shape: Shape, dtype: np.dtype[Any]) -> Place:
    """Return a place of an array."""
    nbytes = dtype.itemsize * math.prod(shape)
    return _placed(room(nbytes) if nbytes >= LEAST_BYTES else None, shape, dtype)


def _placed(made: Room | None, shape: Shape, dtype: np.dtype[Any]) -> Place:
    if made is None:
        array = np.empty(shape, dtype)
        return Place(array, array)
    return Place(np.ndarray(shape, dtype, made.into), np.ndarray(shape, dtype, made.lent()))


def copies(arrays: Sequence[Array]) -> list[Array]:
    """Return copies of arrays, in memory that keeps no more alive than themselves."""
    sizes = [array.nbytes for array in arrays]
    total = sum(sizes)
    into = block(sum(map(aligned, sizes))) if total >= LEAST_BYTES else None
    if into is None:
        return [array.copy() for array in arrays]
    made, at = [], 0
    for array, size in zip(arrays, sizes, strict=True):
        if is_small(size, total, len(sizes)):
            made.append(array.copy())
            continue
        copy: Array = np.ndarray(array.shape, array.dtype, into, at)
        copy[...] = array
        made.append(copy)
        at += aligned(size)
    return made


class Columns:
    """Places of the results of n jobs, which are computed some at a time.

    Parameters
    ----------
    n : int
    shapes : sequence of tuple of int
        Of one job's arrays.
    dtype : dtype
    """

    def __init__(self, n: int, shapes: Sequence[Shape], dtype: np.dtype[Any]) -> None:
        self._dtype, self._left = dtype, [n] * len(shapes)
        sizes = [n * dtype.itemsize * math.prod(shape) for shape in shapes]
        large = {number: size for number, size in enumerate(sizes) if size >= _LEAST_COLUMN and n > 1}
        made = shelves([*large.values()]) if 0 < sum(large.values()) <= _MOST_BYTES else None
        self._shelves: dict[int, Shelf] = dict(zip(large, made or (), strict=False))

    def place(self, number: int, shape: Shape) -> Place:
        """Return a place of the array of some jobs that has this number."""
        shelf = self._shelves.get(number)
        if shelf is None or shape[0] > self._left[number]:
            return place(shape, self._dtype)
        self._left[number] -= shape[0]
        nbytes = self._dtype.itemsize * math.prod(shape)
        return _placed(shelf.room(nbytes), shape, self._dtype)
