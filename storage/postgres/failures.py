"""What a server or its driver says went wrong, as errors of the store in one line, in which no password is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors as sent

from whiteboard.errors import ConflictError, CorruptPackageError, ReadOnlyError, StoreError
from whiteboard.storage.sql.location import Location
from whiteboard.storage.sql.results import MissingRowError


class Lost(StoreError):
    """A connection ended: nothing of the transaction was written, and it may be run again."""

    passing = True


class Again(StoreError):
    """The server asks for the transaction to be run again: it met another one."""


class Faster(ConflictError):
    """Another transaction put what this one was about to: run again, it sees that."""


@contextmanager
def translated(location: Location) -> Iterator[None]:
    """Raise what the driver raises as errors of the store."""
    try:
        yield
    except MissingRowError as error:
        message = f"the store {location} is damaged: a row that it leads to is not there"
        raise CorruptPackageError(message) from error
    except psycopg.Error as error:
        raise translate(location, error) from None
    except UnicodeEncodeError as error:
        message = f"the store {location}: {error.object!r} is no text in UTF-8"
        raise CorruptPackageError(message) from error


def is_lost(error: BaseException | None) -> bool:
    """Whether a connection ended, or could not be had."""
    state = getattr(error, "sqlstate", None) or ""
    broken = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not state
    return broken or state.startswith(("08", "57P"))


def translate(location: Location, error: BaseException | None) -> StoreError | ConflictError:
    """The error of the store for one of the driver's."""
    said = one_line(location, error)
    match error:
        case sent.InsufficientPrivilege() | sent.ReadOnlySqlTransaction():
            return ReadOnlyError(f"the store {location} cannot be written: {said}; open it with readonly=True")
        case sent.DeadlockDetected() | sent.SerializationFailure():
            return Again(f"the store {location} is written by others at the same time: {said}")
        case sent.UniqueViolation():
            return Faster(f"the store {location}: another writer was faster: {said}")
        case sent.UndefinedTable() | sent.InvalidSchemaName():
            return StoreError(f"the store {location} was removed while it was open: {said}")
        case sent.DataCorrupted() | sent.IndexCorrupted():
            return CorruptPackageError(f"the store {location} is damaged: {said}; look at its server")
    if is_lost(error):
        return Lost(f"the store {location} cannot be reached: {said}")
    return StoreError(f"the store {location}: {said}")


def one_line(location: Location, error: Any) -> str:
    """What an error says, on one line and without the password that was given."""
    diag = getattr(error, "diag", None)
    text = (diag and diag.message_primary) or " ".join(str(error).split()) or type(error).__name__
    password = location.server and location.server.password
    return str(text).replace(str(password), "***") if password else str(text)
