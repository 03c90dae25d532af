"""Digests of the rows of a matrix, each computed when it is first asked for, and again once its row has changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from whiteboard.identity.keys import DIGEST_BYTES
from whiteboard.types import Array, Ids


class RowDigests:
    """The digests of some rows, which `made` makes of n values as uint8 of shape (n, 16)."""

    def __init__(self, made: Callable[[Array], NDArray[np.uint8]]) -> None:
        self._made = made
        self._found: NDArray[np.uint8] = np.empty((0, DIGEST_BYTES), np.uint8)
        self._fresh: NDArray[np.bool_] = np.empty(0, np.bool_)

    def extended(self, start: int, end: int, room: int) -> RowDigests:
        """Return those of rows up to `end` too, for `room` rows, of which the first `start` are these.

        Where the memory has room it is shared, so only one may be made of another and then used.
        """
        other = RowDigests(self._made)
        if room > len(self._fresh):
            more = room - start
            other._found = np.concatenate([self._found[:start], np.empty((more, DIGEST_BYTES), np.uint8)])
            other._fresh = np.concatenate([self._fresh[:start], np.zeros(more, np.bool_)])
        else:
            other._found, other._fresh = self._found, self._fresh
        other._fresh[start:end] = False
        return other

    def forget(self, rows: Ids) -> None:
        """Hear that rows are about to change."""
        self._fresh[rows] = False

    def put(self, rows: Ids, digests: NDArray[np.uint8]) -> None:
        """Take the digests of some rows, (n, 16)."""
        self._found[rows] = digests
        self._fresh[rows] = True

    def of(self, rows: Ids, values: Array) -> NDArray[np.uint8]:
        """Return the digests of `rows` (any shape) of a matrix of values, uint8 of shape (*rows.shape, 16)."""
        stale = rows[~self._fresh.take(rows)]
        if stale.size:
            stale = np.sort(stale)
            stale = stale[np.diff(stale, prepend=-1) > 0]
            whole = len(stale) == len(values)
            self.put(stale, self._made(values if whole else values[stale]))
        return self._found.take(rows, axis=0)
