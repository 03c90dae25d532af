"""The write-ahead log kept short: moved into the file and cut to nothing, in the background wherever that is enough."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from weakref import WeakMethod

from whiteboard.concurrency.alarm import Alarm
from whiteboard.errors import ClosedError, StoreError
from whiteboard.storage.sqlite.location import wal_bytes

# From this size on it is cut, a moment after the write that found it so: what follows in a burst need not wait for it.
# All writers wait while it is cut, so it is done while there is little to move.
_CUT_BYTES = 8 * 2**20
_CUT_AFTER_SECONDS = 0.1
# A reader that uses it keeps it from being cut: what could be moved is moved, and it is tried again after so much more,
# or after twice as long as before.
_CUT_AGAIN_BYTES = 4 * 2**20
_MOST_SECONDS = 10.0
# From this size on readers that were in the way are waited for, while they that come use the file alone, and not for
# long. Where none was, it has grown so in one burst, of large packages: that it is cut behind, but for a bound.
_MOST_BYTES = 32 * 2**20
_BURST_BYTES = 128 * 2**20
_WAIT_MS = 40


class LogKeeper:
    """Keeps the log of one store short, in the place of SQLite's automatic checkpoints, for which every commit waits.

    Parameters
    ----------
    path : Path
        The store's file.
    idle : callable
        The writer's connection, in no transaction.
    exclusive : callable
        Runs a function while nobody else writes.
    wait_ms : int
        What the connection's ``busy_timeout`` is otherwise.
    """

    def __init__(
        self,
        path: Path,
        idle: Callable[[], sqlite3.Connection],
        exclusive: Callable[[Callable[[], None]], None],
        wait_ms: int,
    ) -> None:
        self._path, self._idle, self._exclusive, self._wait_ms = path, idle, exclusive, wait_ms
        self._cut_at: int = _CUT_BYTES
        self._waiting = False
        self._pause = _CUT_AFTER_SECONDS

    def written(self) -> None:
        """Hear of a transaction; the caller still keeps others from writing."""
        size = wal_bytes(self._path)
        if size >= max(self._cut_at, _MOST_BYTES if self._cut_at > _CUT_BYTES else _BURST_BYTES):
            self._cut(_WAIT_MS)
        elif size >= self._cut_at and not self._waiting:
            self._wait(size)

    def cut(self) -> bool:
        """Cut it, and say whether it was: a reader is not waited for longer than a moment."""
        return self._cut(_WAIT_MS)

    def forked(self) -> None:
        """Hear that this is the child of a fork, where no thread but one goes on."""
        self._waiting = False

    def _wait(self, size: int) -> None:
        # While the interpreter ends no thread can be started, and the last connection that closes cuts it.
        later = WeakMethod(self._cut_later)  # a store that was dropped is not kept

        def work() -> None:
            if cut := later():
                cut(size)

        with suppress(RuntimeError):
            Alarm(self._pause, work)
            self._waiting = True

    def _cut_later(self, before: int) -> None:
        if self._goes_on(before):
            return
        # Closed, or the disk full: a later write says what is wrong.
        with suppress(StoreError, ClosedError):
            self._exclusive(lambda: self._cut_if_long(before))

    def _goes_on(self, before: int) -> bool:
        """Whether a burst is under way, which would have to wait: then it is looked at again later."""
        size = wal_bytes(self._path)
        goes_on = before + _CUT_BYTES <= size < _BURST_BYTES
        if goes_on:
            self._wait(size)
        return goes_on

    def _cut_if_long(self, before: int) -> None:
        self._waiting = False
        if self._goes_on(before):  # what was written meanwhile had its turn first
            return
        # Another process may have cut it meanwhile.
        if (size := wal_bytes(self._path)) >= _CUT_BYTES and not self._cut(0):
            self._pause = min(2 * self._pause, _MOST_SECONDS)
            self._wait(size)  # there may be no other write

    def _cut(self, wait_ms: int) -> bool:
        raw = self._idle()
        busy = True
        try:
            raw.execute(f"PRAGMA busy_timeout={wait_ms}")
            with suppress(sqlite3.Error):
                busy = bool(raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        finally:
            raw.execute(f"PRAGMA busy_timeout={self._wait_ms}")
        if busy:
            self._cut_at = wal_bytes(self._path) + _CUT_AGAIN_BYTES
        else:
            self._cut_at, self._pause = _CUT_BYTES, _CUT_AFTER_SECONDS
        return not busy
