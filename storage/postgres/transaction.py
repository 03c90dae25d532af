"""A transaction on a server that sends what can wait with what is waited for, as each message takes a while.

A statement is sent when its result is looked at, or another's behind it, or at the end; so are BEGIN and COMMIT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import psycopg

from whiteboard.storage.sql.results import Results


class Transaction:
    """A connection with the statements that wait to be sent.

    Parameters
    ----------
    session : psycopg.Connection
        In no transaction, by autocommit.
    options : mapping
        ``rows``: the module of statements of this backend.
    begin : sequence of str
        Statements that are sent first; with none, each statement is a transaction of its own.
    """

    __slots__ = ("_options", "_waiting", "connection")

    def __init__(self, session: psycopg.Connection[Any], options: Mapping[str, Any], begin: Sequence[str] = ()) -> None:
        self.connection, self._options = session, options
        self._waiting: list[tuple[psycopg.Cursor[Any], str, Any]] = []
        for statement in begin:
            self.run(statement)

    def exec_driver_sql(self, statement: str, parameters: Any = None, /) -> Results:
        """Run a statement with ``?`` for its values: those of a tuple, or of each tuple of a list in turn."""
        return Results(self.run(_marked(statement), parameters))

    def run(self, statement: str, parameters: Any = None) -> Awaited:
        """Run a statement that is written for this driver; a list's each may return rows, in `Awaited.sets`."""
        cursor = self.connection.cursor()
        self._waiting.append((cursor, statement, parameters))
        return Awaited(self, cursor)

    def get_execution_options(self) -> Mapping[str, Any]:
        """``rows``: the statements of this backend."""
        return self._options

    def send(self) -> None:
        """Send what waits, and wait for all of its results."""
        waiting, self._waiting = self._waiting, []
        if len(waiting) == 1 and not isinstance(waiting[0][2], list):
            cursor, statement, values = waiting[0]
            cursor.execute(statement, values)
        elif waiting:
            with self.connection.pipeline():
                for cursor, statement, values in waiting:
                    if isinstance(values, list):
                        cursor.executemany(statement, values, returning="RETURNING" in statement)
                    else:
                        cursor.execute(statement, values)


class Awaited:
    """A cursor whose statement is sent when something is asked of it."""

    __slots__ = ("_cursor", "_transaction")

    def __init__(self, transaction: Transaction, cursor: psycopg.Cursor[Any]) -> None:
        self._transaction, self._cursor = transaction, cursor

    def _there(self) -> psycopg.Cursor[Any]:
        self._transaction.send()
        return self._cursor

    @property
    def description(self) -> Sequence[Any] | None:
        return self._there().description

    @property
    def rowcount(self) -> int:
        return self._there().rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._there())

    def fetchone(self) -> Any:
        return self._there().fetchone()

    def fetchall(self) -> list[Any]:
        """All rows, as tuples."""
        return self._there().fetchall()

    def sets(self) -> Iterator[Any]:
        """The first row of each statement of a list."""
        cursor = self._there()
        yield cursor.fetchone()
        while cursor.nextset():
            yield cursor.fetchone()

    def close(self) -> None:
        self._cursor.close()


@lru_cache(256)
def _marked(statement: str) -> str:
    """Statements that are written for all backends have ``?`` where this driver wants ``%s``."""
    return statement.replace("?", "%s")
