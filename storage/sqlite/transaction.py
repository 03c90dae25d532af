"""A transaction of the driver's connection, with the part of SQLAlchemy's interface that `sql.backend` asks for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from whiteboard.storage.sqlite import rows
from whiteboard.storage.sqlite.connection import Held

_OPTIONS: Final[Mapping[str, Any]] = {"rows": rows}


class MissingRowError(LookupError):
    """A statement gave no row where one leads to it: `database.translated` makes an error of the store of it."""


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


class Results:
    """What a statement gave; what is asked for one row is done with."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        """How many rows a statement changed."""
        return self._cursor.rowcount

    def __iter__(self) -> Iterator[Any]:
        columns = tuple(column[0] for column in self._cursor.description or ())
        return map(_row_of(columns), self._cursor)

    def all(self) -> list[Any]:
        """All rows."""
        return list(self)

    def first(self) -> Any | None:
        """The first row, if any."""
        found = next(iter(self), None)
        self._cursor.close()
        return found

    one_or_none = first

    def one(self) -> Any:
        """The first row."""
        if (found := self.first()) is None:
            raise MissingRowError
        return found

    def scalar(self) -> Any:
        """The first value of the first row, None where there is none."""
        found = self._cursor.fetchone()
        self._cursor.close()
        return None if found is None else found[0]

    def scalar_one(self) -> Any:
        """The first value of the first row."""
        return self.one()[0]

    def scalars(self) -> Iterator[Any]:
        """The first value of each row."""
        return map(_FIRST, self._cursor)


_FIRST: Final = itemgetter(0)


class _Row(tuple[Any, ...]):
    """A row whose values are attributes too."""

    __slots__ = ()
    _fields: tuple[str, ...] = ()

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))


@lru_cache(256)
def _row_of(columns: tuple[str, ...]) -> type[_Row]:
    """The class of rows of some columns: `collections.namedtuple` compiles one, in ten times as long."""
    values = {name: property(itemgetter(place)) for place, name in enumerate(columns)}
    return type("Row", (_Row,), {"__slots__": (), "_fields": columns, **values})
