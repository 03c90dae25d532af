"""A transaction of the driver's connection, with the part of SQLAlchemy's interface that `sql.backend` asks for."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from whiteboard.storage.sql.backend import Connection
from whiteboard.storage.sql.results import Results
from whiteboard.storage.sqlite import rows
from whiteboard.storage.sqlite.connection import Held

BEGIN: Final = "BEGIN IMMEDIATE"
"""What begins a transaction that writes."""

_OPTIONS: Final[Mapping[str, Any]] = {"rows": rows}


class Transaction:
    """A connection that is within a transaction, for as long as whoever began it says."""

    __slots__ = ("connection",)

    def __init__(self, connection: Held) -> None:
        self.connection = connection

    def exec_driver_sql(self, statement: str, parameters: Any = (), /) -> Results:
        """Run a statement with the values of a tuple, or of each tuple of a list in turn."""
        cursor: sqlite3.Cursor = self.connection.cursor()
        if isinstance(parameters, list):
            return Results(cursor.executemany(statement, parameters))
        return Results(cursor.execute(statement, parameters))

    def get_execution_options(self) -> Mapping[str, Any]:
        """``rows``: the statements of SQLite."""
        return _OPTIONS


def begun(raw: Held) -> AbstractContextManager[Connection]:
    """A write transaction, which the driver's connection ends."""
    raw.execute(BEGIN)
    return nullcontext(Transaction(raw))
