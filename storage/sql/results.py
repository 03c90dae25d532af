"""What a statement gave, over a driver's cursor: the part of SQLAlchemy's interface that `sql.backend` asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, Protocol


class Cursor(Protocol):
    """A driver's cursor that a statement was run by."""

    @property
    def description(self) -> Sequence[Any] | None: ...
    @property
    def rowcount(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def fetchone(self) -> Any: ...
    def close(self) -> None: ...


class MissingRowError(LookupError):
    """A statement gave no row where one leads to it: `translated` of a backend makes an error of the store of it."""


class Results:
    """What a statement gave; what is asked for one row is done with."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: Cursor) -> None:
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
