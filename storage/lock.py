"""The queue of writers: one lock file beside the store, in which processes wait in the kernel.

SQLite 3.7.0 to 3.51.2 (but 3.44.6 and 3.50.7) can corrupt a WAL file when a commit meets another process's checkpoint
(https://sqlite.org/wal.html#walresetbug), so there writes, checkpoints and closes must not overlap. In every version
the queue is also what keeps waits short: SQLite's own wait is a poll with growing sleeps, in which 16 writers starve
each other, and a log that is written without a pause is never cut.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from whiteboard.errors import StoreError


class WriteLock:
    """An exclusive lock between processes; threads of one process come here one at a time, as `Database` sees to.

    Parameters
    ----------
    store : Path
        The store's file; the lock file is ``<store>.lock``, and has its permissions.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self.path = Path(f"{store}.lock")
        self._fd: int | None = None
        self._depth = 0

    @contextmanager
    def held(self, seconds: float) -> Iterator[None]:
        """Hold the lock; it may be taken again inside. A process that dies lets go of it.

        Raises
        ------
        StoreError
            Another process has held it for so many seconds, or the lock file cannot be opened.
        """
        if not self._depth:
            self._acquire(seconds)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth and self._fd is not None:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the lock file: a child process would share the lock with its parent through it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _acquire(self, seconds: float) -> None:
        while True:
            if self._fd is None:
                self._fd = self._open()
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._wait(self._fd, seconds)
            if self._is_current(self._fd):
                return
            # Somebody removed the file and others lock a new one.
            self.close()

    def _wait(self, fd: int, seconds: float) -> None:
        """Wait in the kernel, which wakes whoever waits, and stop waiting after some seconds."""
        outcome: list[OSError | None] = []

        def block() -> None:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                outcome.append(None)
            except OSError as error:
                outcome.append(error)

        waiting = threading.Thread(target=block, name="whiteboard write lock", daemon=True)
        waiting.start()
        try:
            waiting.join(seconds)
        finally:
            if not outcome or outcome[0] is not None:
                # Whatever the thread still gets is given back at once, as nothing else holds the file open.
                self.close()
        if not outcome or outcome[0] is not None:
            message = f"the store {self.store}: another process has held {self.path} for {seconds:g} s"
            raise StoreError(message) from (outcome[0] if outcome else None)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self.path, flags, 0o600)
        except OSError as error:
            message = f"the store {self.store}: its lock file {self.path} cannot be opened: {error.strerror}"
            raise StoreError(message) from error
        # Whoever may write the store may queue for it.
        with suppress(OSError):
            mode = self.store.stat().st_mode & 0o666
            if os.fstat(fd).st_mode & 0o777 != mode:
                os.fchmod(fd, mode)
        return fd

    def _is_current(self, fd: int) -> bool:
        try:
            named = self.path.stat()
        except OSError:
            return False
        mine = os.fstat(fd)
        return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)
