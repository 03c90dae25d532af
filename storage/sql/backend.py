"""The seam between backends of SQL: connections and transactions (`Database`), and the statements that differ (`Rows`).

Beside `Rows`, statements are written for all backends, with ``?`` for values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import ReadOnlyError
from whiteboard.records.packages import Page
from whiteboard.storage.page.digests import Laid
from whiteboard.storage.page.format import Blob, Packed
from whiteboard.storage.page.grouping import PAGE_BYTES
from whiteboard.storage.sql.location import Location
from whiteboard.storage.sql.page_row import PageRow

T = TypeVar("T")

Row: TypeAlias = Any
"""A tuple of values, each also an attribute by the name of its column; the names are in ``_fields``."""


class Result(Protocol):
    """What a statement gave, as SQLAlchemy has it. Where a row has to be there and is not, the store is damaged."""

    @property
    def rowcount(self) -> int: ...
    def __iter__(self) -> Iterator[Row]: ...
    def all(self) -> Sequence[Row]: ...
    def first(self) -> Row | None: ...
    def one(self) -> Row: ...
    def one_or_none(self) -> Row | None: ...
    def scalar(self) -> Any: ...
    def scalar_one(self) -> Any: ...
    def scalars(self) -> Iterable[Any]: ...


class Connection(Protocol):
    """A connection within a transaction: the part of SQLAlchemy's that statements for all backends need.

    It is a few lines over a driver (`sqlite.transaction`): for a process that asks for one package, SQLAlchemy's import
    took longer than all else together. SQLAlchemy's own are for migrations.
    """

    @property
    def connection(self) -> Any:
        """The driver's connection."""

    def exec_driver_sql(self, statement: str, parameters: Any = None, /) -> Result:
        """Run a statement with ``?`` for its values: those of a tuple, or of each tuple of a list in turn."""

    def get_execution_options(self) -> Mapping[str, Any]:
        """``rows``: the backend's module of that name."""


class Rows(Protocol):
    """What a backend's module `rows` has: see the functions of these names in `sql.rows`."""

    @property
    def INDEXED(self) -> str: ...
    @property
    def AS_COLUMN(self) -> str: ...
    @property
    def TO_CHANGE(self) -> str: ...
    def is_empty(self, connection: Connection) -> bool: ...
    def count_packages(self, connection: Connection) -> int: ...
    def select_in(self, connection: Connection, sql: str, values: Sequence[int]) -> list[Any]: ...
    def select_index(self, connection: Connection, hashes: NDArray[np.int64]) -> NDArray[np.int64]: ...
    def index_parts(self, connection: Connection) -> Iterator[NDArray[np.int64]]: ...
    def read_pages(self, connection: Connection, ids: Sequence[int]) -> Iterator[tuple[int, Blob]]: ...
    def find(
        self, connection: Connection, hashes: NDArray[np.int64], seen: Collection[int]
    ) -> tuple[NDArray[np.int64], Sequence[int], Iterable[tuple[int, Laid]]]: ...
    def read_data(self, connection: Connection, table: str, row_id: int, header: object) -> bytes | memoryview: ...
    def laid(self, connection: Connection, page_id: int) -> AbstractContextManager[Laid | None]: ...
    def insert_page(self, connection: Connection, page: PageRow) -> int: ...
    def insert_pages(self, connection: Connection, pages: Sequence[PageRow]) -> list[int]: ...
    def update_page(self, connection: Connection, page_id: int, page: PageRow) -> None: ...
    def insert_node_page(self, connection: Connection, row: tuple[int, int, int], page: Packed) -> None: ...
    def advance(
        self, connection: Connection, system: tuple[str, str], number: int, token: str | None
    ) -> int | None: ...
    def delete_index(self, connection: Connection, rows: Iterable[tuple[int, int]]) -> int: ...
    def settle(self, connection: Connection) -> None: ...
    def lately(self, connection: Connection) -> NDArray[np.int64]: ...


def rows_of(connection: Connection) -> Rows:
    """The statements of the backend that a connection is of."""
    return cast("Rows", connection.get_execution_options()["rows"])


class Hold(ABC):
    """A number that is held: until it is freed, on purpose, by being dropped, or by the end of its process.

    Attributes
    ----------
    number : int
    """

    number: int

    @property
    @abstractmethod
    def lives(self) -> bool:
        """Whether it is this process's, and was not freed: a forked child has none of its parent's."""

    @abstractmethod
    def free(self, *, later: bool = False) -> None:
        """Let go; `later` where nobody waits for it, as no row has its number any more."""


class Locks(ABC):
    """Locks that are known by numbers and end with the process that has them: they tell the living from the dead."""

    @abstractmethod
    def hold(self) -> Hold:
        """Hold a number that nobody else holds.

        Raises
        ------
        StoreError
        """

    @abstractmethod
    def held(self, connection: Connection, numbers: Iterable[int]) -> set[int]:
        """Those of some numbers that somebody holds."""

    def alone(self, connection: Connection) -> None:  # noqa: B027
        """Be the only one who claims until the transaction ends: nothing to do where there is one writer at a time."""


class Database(ABC):
    """A place where rows are: who reads and writes it, and when.

    Attributes
    ----------
    location : Location
    readonly : bool
    durability : {"normal", "full"}
    typed : bool
        Whether a column holds values of its type only, and rows refer to rows that are there.
    page_bytes : int
        About so large are the pages that packages are put in.
    """

    location: Location
    readonly: bool
    durability: str
    typed: bool
    page_bytes: int = PAGE_BYTES

    @abstractmethod
    def read(self) -> AbstractContextManager[Connection]:
        """One read transaction: everything read in it is of one moment. Keep it short."""

    @abstractmethod
    def write(self, work: Callable[[Connection], T], *, durable: bool = False) -> T:
        """Run `work` in one write transaction, and return what it returns.

        It may be run again, where it failed and where a server's answer to its COMMIT was lost: so what is done twice
        has to be as if done once.

        Parameters
        ----------
        durable : bool
            What is committed survives a power loss when the store's durability says so.

        Raises
        ------
        StoreError
            Nothing was written.
        UnansweredError
            A server cannot be asked what became of it.
        ReadOnlyError, ClosedError
        """

    def look(self, hashed: int, seen: Container[int] | None) -> tuple[int, Page] | bool:  # noqa: ARG002
        """Look one package up by its hash, for less than a lookup of many takes.

        In a page that was `seen` before, all others are wanted too; none are where `seen` is None: nobody keeps them.

        Returns
        -------
        (int, Page) or bool
            Its page's id, and the package, alone or among those of its page; True where there is certainly none, False
            where a lookup has to tell.
        """
        return False

    @abstractmethod
    def live_bytes(self) -> int:
        """Bytes of the store that hold something."""

    @abstractmethod
    def give_back(self) -> None:
        """Return what is free to the file system, where the backend can."""

    @abstractmethod
    def bytes_on_disk(self) -> int:
        """Bytes that the store takes."""

    @abstractmethod
    def structure(self) -> tuple[str, ...]:
        """What the database itself finds damaged; empty where nothing."""

    @abstractmethod
    def version(self) -> dict[str, str]:
        """The name and version of the database's program."""

    @property
    def locks(self) -> Locks | None:
        """By which processes know who computes what; None where no other process can, or it cannot be known."""
        return None

    def query(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one read transaction, and return what it returns; again where a connection was lost."""
        with self.read() as connection:
            return work(connection)

    def glance(self, work: Callable[[Connection], T]) -> T:
        """Run `work` as `query` does, but what each of its statements reads may be of another moment."""
        return self.query(work)

    def writer_lives(self, connection: Connection, token: str) -> bool | None:  # noqa: ARG002
        """Whether the open store that claims are known by is open; None where only its process tells."""
        return None

    def hold(self, token: str) -> None:  # noqa: B027
        """Be known as open by a token, from now to the close."""

    @abstractmethod
    def close(self) -> None:
        """Close every connection. Closing twice is allowed, and after an interrupt needed."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether it was closed, and nothing is left to close."""

    @abstractmethod
    def check_open(self) -> None:
        """Raise `ClosedError` after `close`."""

    def check_writable(self) -> None:
        """Raise `ReadOnlyError` where it was opened for reading."""
        if self.readonly:
            message = f"the store {self.location} was opened with readonly=True: nothing can be written"
            raise ReadOnlyError(message)
