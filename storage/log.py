"""The write-ahead log kept short: moved into the file in the background, and cut where readers kept it from that."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Final

from whiteboard.errors import ClosedError, StoreError
from whiteboard.storage.location import wal_bytes

AUTOCHECKPOINT_PAGES: Final = 4000
"""The log of so many pages, 32 MB, is moved by the commit that finds it, and its caller waits."""

# What this process wrote since it last did so is moved while its caller computes on.
_MOVE_BYTES = 8 * 2**20
# Not at once: what follows what was written would have to wait.
_MOVE_AFTER_SECONDS = 0.5
# Reached only when moving could not start the log anew, because some reader was always using it.
_CUT_BYTES = 40 * 2**20
_CUT_STEP = 4 * 2**20
_CUT_WAIT_MS = 100


class LogKeeper:
    """Keeps the log of one store short.

    Parameters
    ----------
    path : Path
        The store's file.
    held : callable
        The writer's connection.
    exclusive : callable
        A context in which nobody else writes.
    wait_ms : int
        What the connection's ``busy_timeout`` is otherwise.
    """

    def __init__(
        self,
        path: Path,
        held: Callable[[], sqlite3.Connection],
        exclusive: Callable[[], AbstractContextManager[None]],
        wait_ms: int,
    ) -> None:
        self._path, self._held, self._exclusive, self._wait_ms = path, held, exclusive, wait_ms
        self._cut_at: int = _CUT_BYTES
        self._unmoved = 0
        self._moving = False

    def written(self, nbytes: int) -> None:
        """Hear of a transaction that wrote about so many bytes; the caller still keeps others from writing."""
        if (size := wal_bytes(self._path)) >= self._cut_at:
            self._cut_at = _CUT_BYTES if self._cut() else size + _CUT_STEP
        self._unmoved += nbytes
        if self._unmoved >= _MOVE_BYTES and not self._moving:
            self._unmoved, self._moving = 0, True
            try:
                timer = threading.Timer(_MOVE_AFTER_SECONDS, self._move)
                timer.daemon = True
                timer.start()
            except RuntimeError:
                # The interpreter ends, and the last connection that closes moves it.
                self._moving = False

    def forked(self) -> None:
        """Hear that this is the child of a fork, where no thread but one goes on."""
        self._unmoved, self._moving = 0, False

    def _move(self) -> None:
        try:
            # Closed, or the disk full: a later commit moves it, and says what is wrong.
            with suppress(StoreError, ClosedError), self._exclusive():
                self._held().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            self._moving = False

    def _cut(self) -> bool:
        held = self._held()
        # Readers that come now use the file alone, so this waits for those that are reading, and not for long.
        held.execute(f"PRAGMA busy_timeout={_CUT_WAIT_MS}")
        busy = True
        with suppress(sqlite3.Error):
            busy = bool(held.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        held.execute(f"PRAGMA busy_timeout={self._wait_ms}")
        return not busy
