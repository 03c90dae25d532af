"""The queue of writers: one lock file beside the store, in which processes wait in the kernel.

SQLite 3.7.0 to 3.51.2 (but 3.44.6 and 3.50.7) can corrupt a WAL file when a commit meets another process's checkpoint
(https://sqlite.org/wal.html#walresetbug), so there writes, checkpoints and closes must not overlap. In every version
the queue is also what keeps waits short: SQLite's own wait is a poll with growing sleeps, in which 16 writers starve
each other, and a log that is written without a pause is never cut.
"""

from __future__ import annotations

import _thread
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TypeVar

from whiteboard.errors import StoreError

WAIT_SECONDS = 60.0
"""How long a write waits for another process before it is an error."""

T = TypeVar("T")

_OFD = getattr(fcntl, "F_OFD_SETLKW", None)
# struct flock: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("hhqqi4x")
_PLACES = 2**40


class WriteLock:
    """An exclusive lock between processes; threads of one process come here one at a time, as `Database` sees to.

    The lock lives as long as a file object is open, which a ``with`` closes in C: no interrupt can leave it held.

    Parameters
    ----------
    store : Path
        The store's file; the lock file is ``<store>.lock``, and has its permissions.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self.path = Path(f"{store}.lock")
        self._file: FileIO | None = None

    @property
    def held(self) -> bool:
        """Whether this process has the lock."""
        return self._file is not None and not self._file.closed

    def opened(self) -> FileIO:
        """Open the lock file, for a ``with`` around `take` and what needs the lock.

        Raises
        ------
        StoreError
        """
        try:
            file = FileIO(self.path, "rb+", opener=_open)
        except OSError as error:
            message = f"the store {self.store}: its lock file {self.path} cannot be opened: {error.strerror}"
            raise StoreError(message) from error
        # Whoever may write the store may queue for it.
        with suppress(OSError):
            mode = self.store.stat().st_mode & 0o666
            if os.fstat(file.fileno()).st_mode & 0o777 != mode:
                os.fchmod(file.fileno(), mode)
        return file

    def acquire(self, file: FileIO, seconds: float) -> bool:
        """Wait for the lock, which is held until the file is closed; a process that dies lets go of it.

        Returns
        -------
        bool
            False where somebody removed the lock file meanwhile, and others lock a new one: open it again.

        Raises
        ------
        StoreError
            Another process has held it for so many seconds, or the file system has no such locks.
        """
        try:
            self._wait(file.fileno(), seconds)
        except StoreError:
            raise
        except OSError as error:
            raise self.refused(error) from error
        self._file = file
        return self._is_current(file.fileno())

    def refused(self, error: OSError) -> StoreError:
        """Return what tells that the file system refuses a lock."""
        return StoreError(f"the store {self.store}: its lock file {self.path} cannot be locked: {error.strerror}")

    def _wait(self, fd: int, seconds: float) -> None:
        """Wait in the kernel, which wakes whoever is next, and stop waiting after some seconds."""
        with _place_in_queue(fd) as place:
            try:
                _enter(fd, place, fcntl.LOCK_NB)
            except BlockingIOError:
                self._wait_long(fd, place, seconds)

    def _wait_long(self, fd: int, place: int, seconds: float) -> None:
        """Wait in a thread: whatever it still gets after this has given up goes with the file, which is then closed."""
        outcome: list[OSError | None] = []

        def block() -> None:
            try:
                _enter(fd, place, 0)
                outcome.append(None)
            except OSError as error:
                outcome.append(error)
            done.release()

        done = _thread.allocate_lock()
        done.acquire()
        try:
            _thread.start_new_thread(block, ())
        except RuntimeError:
            # No thread can be started while the interpreter ends: then without a bound on the wait.
            _enter(fd, place, 0)
            return
        done.acquire(timeout=seconds)
        if outcome != [None]:
            message = f"the store {self.store}: another process has held {self.path} for {seconds:g} s"
            raise StoreError(message) from (outcome[0] if outcome else None)

    def _is_current(self, fd: int) -> bool:
        try:
            named = self.path.stat()
        except OSError:
            return False
        mine = os.fstat(fd)
        return (named.st_dev, named.st_ino) == (mine.st_dev, mine.st_ino)


def in_turn(lock: WriteLock | None, work: Callable[[], T]) -> T:
    """Run `work` while no other process writes, and return what it returns; without a lock there is none.

    Raises
    ------
    StoreError
        Another process has written for `WAIT_SECONDS`, or the lock file cannot be used.
    """
    if lock is None or lock.held:
        return work()
    while True:
        with lock.opened() as file:
            if lock.acquire(file, WAIT_SECONDS):
                return work()


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _enter(fd: int, place: int, flags: int) -> None:
    """Wait until whoever is ahead has the lock, then for the lock itself."""
    if place:
        _range(fd, fcntl.F_WRLCK, place - 1, flags)
        _range(fd, fcntl.F_UNLCK, place - 1, flags)
    fcntl.flock(fd, fcntl.LOCK_EX | flags)


@contextmanager
def _place_in_queue(fd: int) -> Iterator[int]:
    """Stand in line until the block ends: a number, whose byte range in the lock file this process holds.

    ``flock`` alone wakes all who wait and whoever runs first wins, so that of 16 writers some wait for seconds. Here
    each waits for the one ahead only. The ranges are locks of the open file, which the kernel drops with its process:
    one that dies lets the next go on, to ``flock``, which is what excludes. Systems without such locks do without.
    """
    if _OFD is None:
        yield 0
        return
    _range(fd, fcntl.F_WRLCK, 0, 0)
    try:
        last = int.from_bytes(os.pread(fd, 8, 0), "little")
        place = last % _PLACES + 2
        os.pwrite(fd, (place - 1).to_bytes(8, "little"), 0)
        _range(fd, fcntl.F_WRLCK, place, 0)
    finally:
        _range(fd, fcntl.F_UNLCK, 0, 0)
    try:
        yield place
    finally:
        with suppress(OSError):
            _range(fd, fcntl.F_UNLCK, place, 0)


def _range(fd: int, kind: int, start: int, flags: int) -> None:
    command = fcntl.F_OFD_SETLK if flags & fcntl.LOCK_NB else fcntl.F_OFD_SETLKW
    fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, start, 1, 0))
