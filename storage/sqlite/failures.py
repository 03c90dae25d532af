"""What SQLite says went wrong, as errors of the store in one line."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from whiteboard.errors import CorruptPackageError, ReadOnlyError, StoreError
from whiteboard.storage.sql.location import Location
from whiteboard.storage.sql.results import MissingRowError
from whiteboard.storage.sqlite import write_queue
from whiteboard.storage.sqlite.bounds import VALUE_BYTES, was_endless

TRANSLATED: Final = (MissingRowError, sqlite3.Error, UnicodeDecodeError, UnicodeEncodeError)
"""What `translated` takes."""


@contextmanager
def translated(location: Location) -> Iterator[None]:
    """Raise what SQLite raises as one-line errors of the store."""
    try:
        yield
    except TRANSLATED as error:
        raise translation(location, error) from error


def translation(location: Location, error: Exception) -> StoreError | KeyboardInterrupt:
    """What is raised in the place of one that is `TRANSLATED`."""
    match error:
        case MissingRowError():
            why = "a row that it leads to is not there"
        case UnicodeDecodeError():  # of SQLite's message, which quotes a damaged schema
            why = "its schema cannot be read; restore it from a copy"
        case UnicodeEncodeError():  # a text that was read from a damaged row is asked for
            return CorruptPackageError(f"the store {location}: {error.object!r} is no text in UTF-8")
        case _:
            return translate(location, error)
    return CorruptPackageError(f"the store {location} is damaged: {why}")


_DAMAGE: Final = {
    sqlite3.SQLITE_CORRUPT: "",
    sqlite3.SQLITE_INTERRUPT: "to read it takes more steps than a file of its size can need",
    sqlite3.SQLITE_TOOBIG: f"it holds a value of more than {VALUE_BYTES} bytes where none is so large",
}


def primary(error: BaseException | None) -> int:
    """The primary result code: the low byte, whatever the extended one says."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


_PASSING = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY)


def translate(location: Location, error: BaseException | None) -> StoreError | KeyboardInterrupt:
    """The error of the store for one of SQLite's, or the interrupt that has ended what was under way."""
    code = primary(error)
    if code == sqlite3.SQLITE_INTERRUPT and not was_endless():
        return KeyboardInterrupt()
    gone = code == sqlite3.SQLITE_CANTOPEN and location.path is not None and not location.path.exists()
    if gone or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED:
        return StoreError(f"the store {location} was moved or removed while it was open; open it again")
    if code == sqlite3.SQLITE_READONLY:
        return ReadOnlyError(f"the store {location} cannot be written; open it with readonly=True ({error})")
    if code in _DAMAGE:
        why = _DAMAGE[code] or error
        # SQLite calls it damage, too, when a disk fails to read.
        return CorruptPackageError(
            f"the store {location} is damaged, or its disk fails; look at that, then restore the store from a copy, "
            f"or move it away ({why})"
        )
    why = {
        sqlite3.SQLITE_FULL: "there is no room left on its disk; make room and try again",
        sqlite3.SQLITE_IOERR: "its disk refused to read or write; look at its space, quota and health",
        sqlite3.SQLITE_BUSY: f"another process has kept it locked for {write_queue.WAIT_SECONDS:.0f} s",
        sqlite3.SQLITE_NOTADB: "it is not a SQLite file, or is damaged; restore it from a copy",
        sqlite3.SQLITE_CANTOPEN: "it cannot be opened; look at the permissions of the file and its folder",
    }.get(code, "SQLite refused")
    failed = StoreError(f"the store {location}: {why} ({error})")
    failed.passing = code in _PASSING
    return failed
