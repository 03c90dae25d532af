"""Buffers that sessions borrow and give back, so that a bin allocates nothing new."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from types import TracebackType
from typing import Any, Self

import numpy as np

from whiteboard.concurrency import locks
from whiteboard.types import Array, Shape

POISON = "WHITEBOARD_POISON"
"""Environment variable that turns poisoning on: the tests set it."""


class BufferPool:
    """Uninitialised C-contiguous arrays, reused by size in bytes; at most `max_bytes` are kept idle.

    Thread-safe. With `poison`, what comes back is filled with 0xFF bytes (NaN in every float dtype), so that a
    result that still aliases a buffer shows at once; by default where the environment has ``WHITEBOARD_POISON=1``.
    """

    def __init__(self, max_bytes: int = 64 * 2**20, *, poison: bool | None = None) -> None:
        self._max_bytes = max_bytes
        self._poison = os.environ.get(POISON) == "1" if poison is None else poison
        self._idle: defaultdict[int, list[Array]] = defaultdict(list)
        self._lock = locks.lock()

    @property
    def idle_bytes(self) -> int:
        """Bytes of the buffers that wait to be borrowed."""
        return sum(nbytes * len(idle) for nbytes, idle in self._idle.items())

    def lend(self) -> Lender:
        """Return a lender for a ``with`` block."""
        return Lender(self)

    def borrow(self, nbytes: int) -> Array:
        """Return a flat uint8 buffer of `nbytes`, idle or new."""
        with self._lock:
            if idle := self._idle[nbytes]:
                return idle.pop()
        return np.empty(nbytes, np.uint8)

    def reclaim(self, buffers: list[Array]) -> None:
        if self._poison:
            for buffer in buffers:
                buffer.fill(0xFF)
        with self._lock:
            room = self._max_bytes - self.idle_bytes
            for buffer in buffers:
                if buffer.nbytes <= room:
                    self._idle[buffer.nbytes].append(buffer)
                    room -= buffer.nbytes


class Lender:
    """What one session has borrowed: all of it goes back when the block ends, with or without an error."""

    def __init__(self, pool: BufferPool) -> None:
        self._pool = pool
        self._borrowed: list[Array] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.reclaim(self._borrowed)
        self._borrowed = []

    def __call__(self, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """Return an uninitialised array that is valid until the lending ends."""
        buffer = self._pool.borrow(math.prod(shape) * dtype.itemsize)
        self._borrowed.append(buffer)
        return buffer.view(dtype).reshape(shape)
