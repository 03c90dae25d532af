"""Locks of claims: a byte of the store's lock file each, which the kernel lets go with the process that holds it.

They are locks of the open file (F_OFD_SETLK), a file opened for each: neither threads nor boards of one process take
another's for their own, closing the file is giving it back, and a forked child closes them all. The bytes lie behind
those of the queue of writers.
"""

from __future__ import annotations

import fcntl
import os
import struct
import weakref
from collections.abc import Iterable
from contextlib import suppress
from io import FileIO
from typing import Final

from whiteboard.storage.sqlite.write_queue import WriteLock

# struct flock: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK: Final = struct.Struct("hhqqi4x")
_FIRST: Final = 2**41

_opened: weakref.WeakValueDictionary[int, FileIO] = weakref.WeakValueDictionary()
"""By descriptor, what this process has opened here."""

MOST: Final = 2**40
"""Numbers of claims are below this."""


def supported() -> bool:
    """Whether this system has locks of open files: Linux has."""
    return hasattr(fcntl, "F_OFD_SETLK")


def opened(lock: WriteLock) -> FileIO:
    """Open the lock file; what is locked by it is free when it is closed, on purpose or by its end.

    Raises
    ------
    StoreError
    """
    file = lock.opened()
    _opened[file.fileno()] = file
    return file


def hold(file: FileIO, number: int) -> bool:
    """Lock a number for as long as the file is open; False where somebody has it."""
    with suppress(BlockingIOError, PermissionError):
        fcntl.fcntl(file.fileno(), fcntl.F_OFD_SETLK, _at(number))
        return True
    return False


def held(file: FileIO, numbers: Iterable[int]) -> set[int]:
    """Those of some numbers that somebody has locked by another opening of the file."""
    return {number for number in numbers if 0 <= number < MOST and _is_held(file.fileno(), number)}


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
