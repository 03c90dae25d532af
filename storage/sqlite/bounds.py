"""What one statement may take on a file that others may have made: so many steps, and values of so many bytes."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Final

from whiteboard.storage.page.codec import MAX_BYTES
from whiteboard.storage.page.format import HEADER_BYTES
from whiteboard.storage.sqlite.location import file_bytes

VALUE_BYTES: Final = HEADER_BYTES
"""Most bytes of a value that is read as a column. The data of a page may be larger, and is read as an opened blob."""

# Some 20 ms: often enough for Ctrl-C, and seldom enough to wait for the interpreter's lock each time.
_BETWEEN_LOOKS = 2**20
# A row takes 15 bytes at least, and what reads some 10 steps for it. Rows that come without end are held by whoever
# gathers them, so this bounds memory too. What writes takes steps for what it is given as well.
_READ_PER_BYTE, _READ_OF_ANY = 16, 2**20
_WRITE_PER_BYTE, _WRITE_OF_ANY = 64, 2**27

_endless: set[int] = set()


class Steps:
    """Counts the steps of SQLite's machine on one connection, and ends a statement that takes more than its file can.

    Parameters
    ----------
    path : Path or None
        The file; without one, nobody else can have made what is in it.
    """

    __slots__ = ("_of_any", "_path", "_per_byte", "looks")

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.looks = 0
        self._of_any, self._per_byte = _READ_OF_ANY, _READ_PER_BYTE

    def begin(self) -> None:
        """Count from nothing: a statement begins."""
        self.looks = 0

    def let_write(self) -> None:
        """Allow what a statement takes that writes."""
        self._of_any, self._per_byte = _WRITE_OF_ANY, _WRITE_PER_BYTE

    def __call__(self) -> bool:
        """Return whether to end what is under way. A signal's handler runs here too, and what it raises ends it."""
        self.looks += 1
        steps = self.looks * _BETWEEN_LOOKS
        if self._path is None or steps <= self._of_any + self._per_byte * file_bytes(self._path):
            return False
        _endless.add(threading.get_ident())
        return True


def bound(connection: sqlite3.Connection, steps: Steps) -> None:
    """Bound what each statement of a connection takes."""
    connection.set_progress_handler(steps, _BETWEEN_LOOKS)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES)


def let_write(connection: sqlite3.Connection, steps: Steps) -> None:
    """Let a connection hold data of any size, which is written as a column."""
    steps.let_write()
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BYTES)


def was_endless() -> bool:
    """Whether the statement that was ended in this thread took too many steps; else a signal has ended it."""
    me = threading.get_ident()
    try:
        return me in _endless
    finally:
        _endless.discard(me)
