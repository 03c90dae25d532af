"""Locks of claims: a byte of the store's lock file each, which the kernel lets go with the process that holds it.

They are locks of the open file (F_OFD_SETLK), a file opened for each: neither threads nor boards of one process take
another's for their own, closing the file is giving it back, and a forked child closes them all. The bytes lie behind
those of the queue of writers.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from typing import Final

from whiteboard.storage.sql.backend import Connection, Hold, Locks
from whiteboard.storage.sqlite.write_queue import WriteLock

# struct flock: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK: Final = struct.Struct("hhqqi4x")
_FIRST: Final = 2**41

_MOST: Final = 2**40
"""Numbers of claims are below this."""

_opened: weakref.WeakValueDictionary[int, FileIO] = weakref.WeakValueDictionary()
"""By descriptor, what this process has opened here."""


def supported() -> bool:
    """Whether this system has locks of open files: Linux has."""
    return hasattr(fcntl, "F_OFD_SETLK")


class FileLocks(Locks):
    """Locks on bytes of a lock file, for processes of one machine."""

    def __init__(self, lock: WriteLock) -> None:
        self._lock = lock

    def hold(self) -> FileHold:
        file = self._file()
        number = secrets.randbelow(_MOST)
        try:
            with self._telling():
                while not _locked(file, number):  # of a claim whose row was deleted and whose holder goes on
                    number = secrets.randbelow(_MOST)
        except BaseException:
            file.close()
            raise
        return FileHold(file, number)

    def held(self, connection: Connection, numbers: Iterable[int]) -> set[int]:  # noqa: ARG002
        asked = [number for number in numbers if 0 <= number < _MOST]
        if not asked:
            return set()
        with self._file() as file, self._telling():
            return {number for number in asked if _is_held(file.fileno(), number)}

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Raise what the file system refuses as an error of the store."""
        try:
            yield
        except OSError as error:
            raise self._lock.refused(error) from error

    def _file(self) -> FileIO:
        """Open the lock file; what is locked by it is free when it is closed, on purpose or by its end."""
        file = self._lock.opened()
        _opened[file.fileno()] = file
        return file


class FileHold(Hold):
    """A byte of the lock file, locked by an opening of its own."""

    def __init__(self, file: FileIO, number: int) -> None:
        self._file, self.number = file, number

    @property
    def lives(self) -> bool:
        return not self._file.closed  # in a forked child it is closed

    def free(self, *, later: bool = False) -> None:  # noqa: ARG002
        self._file.close()


def _locked(file: FileIO, number: int) -> bool:
    with suppress(BlockingIOError, PermissionError):
        fcntl.fcntl(file.fileno(), fcntl.F_OFD_SETLK, _at(number))
        return True
    return False


def _is_held(fd: int, number: int) -> bool:
    kind, *_ = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _at(number)))
    return bool(kind != fcntl.F_UNLCK)


def _close_all() -> None:
    """Close, in a forked child, what belongs to its parent: else the locks would live as long as the child."""
    for reference in _opened.valuerefs():
        if (file := reference()) is not None:
            file.close()
    _opened.clear()


os.register_at_fork(after_in_child=_close_all)


def _at(number: int) -> bytes:
    return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _FIRST + number, 1, 0)
