"""The rows of packages in SQL: index rows by hash, pages by id, and the counts that eviction goes by."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page
from whiteboard.storage.page import row_checks
from whiteboard.storage.page.codec import DEFAULT, Encoding
from whiteboard.storage.page.format import Blob, Laid, Moved, Packed, encode_page, pieces, unpack
from whiteboard.storage.sqlite import recent_index
from whiteboard.storage.sqlite import tables as t
from whiteboard.storage.sqlite.connection import Held

LIST: Final = 900
"""Most values in one SQL list: longer ones are slower, and older SQLite refuses them."""

_LARGE: Final = 64 * 1024
"""Data of so many bytes is read by itself, not as a column."""

_HUGE: Final = 4 * 2**20
"""Data of more bytes is not in memory as a whole where that can be helped."""

INDEXED: Final = "SELECT page_id FROM package UNION SELECT page_id FROM recent"
"""The pages in which some package is found."""

# With a condition it goes row by row, 40 ns each; without one SQLite counts page by page, which nothing can stop: in a
# file whose pages are said to hold one another, to no end.
COUNT_PACKAGES: Final = (
    "SELECT (SELECT count(*) FROM package WHERE hash >= 0) + (SELECT coalesce(sum(length(hashes)), 0) / 8 FROM recent)"
)

HASH_BITS: Final = 63
"""Bits of a key that the index holds: the most that a non-negative SQLite integer has."""

AS_COLUMN: Final = f"CASE WHEN length(data) < {_LARGE} THEN data END"
"""The data of a row in SQL, NULL where it is larger."""

_SELECT_PAGES = f"SELECT id, header, digest, {AS_COLUMN} FROM page WHERE id IN"
_INSERT_PAGE = "INSERT INTO page (op, n, nbytes, cost_ns, header, digest, data) VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_ROOM = _INSERT_PAGE.removesuffix("?)") + "zeroblob(?))"
_UPDATE_PAGE = "UPDATE page SET op = ?, n = ?, nbytes = ?, cost_ns = ?, header = ?, digest = ?, data = ? WHERE id = ?"
_UPSERT_ACCESS = (
    "INSERT INTO page_access VALUES (?, ?, ?) ON CONFLICT(page_id) DO UPDATE SET "
    "last_use = excluded.last_use, hits = hits + excluded.hits"
)
_UPSERT_EVICTION = (
    "INSERT INTO eviction VALUES (?, ?, ?, ?, ?) ON CONFLICT(reason) DO UPDATE SET pages = pages + excluded.pages, "
    "packages = packages + excluded.packages, nbytes = nbytes + excluded.nbytes, last = excluded.last"
)
_DELETE_INDEX = (
    "DELETE FROM package WHERE hash = ? AND (page_id = ? OR typeof(page_id) <> 'integer' OR typeof(slot) <> 'integer')"
)


@dataclass(frozen=True, slots=True)
class PageRow:
    """A page ready to be inserted."""

    op: str
    n: int
    cost_ns: int
    hashes: NDArray[np.int64]
    packed: Packed

    @classmethod
    def of(cls, page: Page, encoding: Encoding = DEFAULT, *, bits: int = HASH_BITS) -> PageRow:
        """The row of a page: its arrays are encoded."""
        return cls(page.op, page.n, page.cost_ns, hashes_of(page.keys, bits), encode_page(page, encoding))

    @property
    def nbytes(self) -> int:
        """Bytes of the page's row."""
        return len(self.packed.header) + self.packed.nbytes


@dataclass(frozen=True, slots=True)
class Broken:
    """Pages and hashes that were found damaged: what is put for them again replaces them."""

    pages: frozenset[int]
    hashes: frozenset[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded pages, ready for the transaction of whoever writes them."""

    rows: list[PageRow]
    broken: Broken
    uses: Counter[int]

    def __bool__(self) -> bool:
        return bool(self.rows or self.uses)

    @property
    def nbytes(self) -> int:
        """Bytes of all pages' rows."""
        return sum(row.nbytes for row in self.rows)

    def write(self, connection: Connection) -> None:
        """Write pages, index rows and access counts."""
        self.insert(connection)
        count_uses(connection, self.uses)

    def insert(self, connection: Connection) -> list[int]:
        """Write pages and index rows; returns the pages' ids."""
        if self.rows and (self.broken.pages or self.broken.hashes):
            index = select_index(connection, np.unique(np.concatenate([row.hashes for row in self.rows])))
            delete_index(
                connection,
                (
                    (hashed, page_id)
                    for hashed, page_id, _ in index.tolist()
                    if page_id in self.broken.pages or hashed in self.broken.hashes
                ),
            )
        return insert_pages(connection, self.rows)


def hashes_of(keys: NDArray[np.uint8], bits: int = HASH_BITS) -> NDArray[np.int64]:
    """The first `bits` bits of each row of an (n, 16) array of keys."""
    words = np.ascontiguousarray(keys).view(">u8")[:, 0].astype(np.uint64)
    return (words >> np.uint64(64 - bits)).astype(np.int64)


def may_be_there(raw: Held, hashed: int) -> bool:
    """Whether the index has a row of a hash; none is a certain miss."""
    sql = "SELECT 1 FROM package WHERE hash = ?"
    return raw.execute(sql, (hashed,)).fetchone() is not None or recent_index.may_have(raw, hashed)


def is_empty(connection: Connection) -> bool:
    """Return whether there is no package at all."""
    sql = "SELECT EXISTS (SELECT 1 FROM package) OR EXISTS (SELECT 1 FROM recent)"
    return not connection.exec_driver_sql(sql).scalar_one()


def count_packages(connection: Connection) -> int:
    """Packages that can be found; of two pages written lately that hold the same one, both count."""
    return int(connection.exec_driver_sql(COUNT_PACKAGES).scalar_one())


def select_index(connection: Connection, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index rows (hash, page_id, slot) of the given hashes, ascending and each there once: one row a hash, (m, 3).

    A damaged row, with text where a number should be, comes as one of page -1, which there never is.
    """
    hashes = np.unique(hashes)
    found = select_in(connection, "SELECT hash, page_id, slot FROM package WHERE hash IN", hashes.tolist())
    rows = np.concatenate([index_array(found), recent_index.find(connection, hashes)])
    _, first = np.unique(rows[:, 0], return_index=True)
    return rows[first]


def reached(connection: Connection, page_id: int, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The rows of a page that the index leads to, ascending: others were stored elsewhere first, and are nobody's."""
    hashes = hashes_of(keys)
    index = select_index(connection, np.unique(hashes))
    index = index[(index[:, 1] == page_id) & (index[:, 2] >= 0) & (index[:, 2] < len(keys))]
    return np.sort(index[hashes[index[:, 2]] == index[:, 0], 2])


def index_array(rows: Sequence[tuple[Any, Any, Any]]) -> NDArray[np.int64]:
    """Index rows as an (m, 3) array, damaged ones as rows of page -1."""
    try:
        array = np.fromiter(chain.from_iterable(rows), np.int64, 3 * len(rows))
    except (ValueError, TypeError, OverflowError):
        array = np.array([row if type(row[1]) is type(row[2]) is int else (row[0], -1, -1) for row in rows], np.int64)
    return array.reshape(-1, 3)


def select_pages(connection: Connection, ids: Sequence[int]) -> dict[int, Blob]:
    """The pages of the given ids; one that is not there is left out."""
    return dict(read_pages(connection, ids))


def read_pages(connection: Connection, ids: Sequence[int]) -> Iterator[tuple[int, Blob]]:
    """Yield the id and blob of each of some pages, by ascending id; one that is not there is left out.

    A page that SQLite itself finds damaged comes with empty data, which no digest fits.
    """
    driver: Any = connection.connection.driver_connection
    for page_id, header, digest, data in _select_pages(connection, ids):
        yield page_id, Blob(header, digest, read_data(driver, "page", page_id) if data is None else data)


def _select_pages(connection: Connection, ids: Sequence[int]) -> list[Any]:
    try:
        return select_in(connection, _SELECT_PAGES, ids)
    except sqlite3.DataError:  # a header that is larger than any, of one of them
        if len(ids) == 1:
            return [(ids[0], b"", b"", b"")]
        return [row for page_id in ids for row in _select_pages(connection, [page_id])]


def read_data(driver: Any, table: str, row_id: int) -> bytes:
    """The data of a row that is too large for a column; empty where SQLite itself finds it damaged."""
    # A column is copied twice on its way here, an opened blob once.
    try:
        with driver.blobopen(table, "data", row_id, readonly=True) as blob:
            data: bytes = blob.read()
            return data
    except sqlite3.Error as error:
        if _is_damage(error):
            return b""
        raise


@contextmanager
def laid(connection: Connection, page_id: int) -> Iterator[Laid | None]:
    """A page while the block runs, its data read a part at a time where it is large; None where it is not there."""
    driver: Any = connection.connection.driver_connection
    found = _select_pages(connection, [page_id])
    if not found:
        yield None
        return
    _, header, digest, data = found[0]
    if data is not None:
        yield Moved(header, digest, data)
        return
    try:
        blob = driver.blobopen("page", "data", page_id, readonly=True)
    except sqlite3.Error as error:
        if not _is_damage(error):
            raise
        yield Moved(header, digest, b"")
        return
    with blob:
        row = _InRow(blob)
        yield Moved(header, digest, row[:] if len(row) <= _HUGE else row)


class _InRow:
    """The data of a row; what SQLite itself finds damaged is empty, which no digest fits."""

    __slots__ = ("_blob",)

    def __init__(self, blob: Any) -> None:
        self._blob = blob

    def __len__(self) -> int:
        return len(self._blob)

    def __getitem__(self, part: slice) -> bytes:
        try:
            found: bytes = self._blob[part]
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise
            return b""
        return found


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)


def insert_pages(connection: Connection, pages: Sequence[PageRow]) -> list[int]:
    """Insert pages, and index them; a hash that has a package keeps it. Returns the pages' ids."""
    if not pages:
        return []
    ids = [insert_page(connection, page) for page in pages]
    for page_id, page in zip(ids, pages, strict=True):
        recent_index.add(connection, page_id, page.hashes)
    recent_index.settle_if_many(connection)
    count_uses(connection, dict.fromkeys(ids, 0))
    return ids


def insert_page(connection: Connection, page: PageRow) -> int:
    """Insert a page alone, and return its id."""
    packed, size = page.packed, page.packed.nbytes
    alone = size >= _LARGE
    row = (page.op, page.n, page.nbytes, page.cost_ns, packed.header, packed.digest)
    sql, data = (_INSERT_ROOM, size) if alone else (_INSERT_PAGE, packed.joined().data)
    cursor: Any = connection.connection.cursor()
    page_id = int(cursor.execute(sql, (*row, data)).lastrowid)
    if alone:
        # Each array goes from where it is to its place; as a value all of them would be copied three times on the way.
        with cursor.connection.blobopen("page", "data", page_id) as blob:
            for piece in chain.from_iterable(map(pieces, packed.parts)):
                blob.write(piece)
    return page_id


def update_page(connection: Connection, page_id: int, page: PageRow) -> None:
    """Put a page in the place of one that is there; index rows and access counts stay."""
    blob = page.packed.joined()
    row = (page.op, page.n, page.nbytes, page.cost_ns, blob.header, blob.digest, blob.data, page_id)
    connection.exec_driver_sql(_UPDATE_PAGE, row)


def count_uses(connection: Connection, uses: Mapping[int, int]) -> None:
    """Add to the counts by which eviction goes."""
    if uses:
        now = int(time.time())
        connection.exec_driver_sql(_UPSERT_ACCESS, [(page_id, now, count) for page_id, count in uses.items()])


def delete_index(connection: Connection, rows: Iterable[tuple[int, int]]) -> None:
    """Delete index rows, given as (hash, page_id)."""
    if rows := list(rows):
        recent_index.settle(connection)
        connection.exec_driver_sql(_DELETE_INDEX, rows)


def ops_of(connection: Connection) -> list[str]:
    """The ops that there are pages of, in order."""
    sql = "SELECT min(id) AS id, op FROM page GROUP BY op ORDER BY op"
    return [row.op for row in row_checks.rows(t.page, connection.exec_driver_sql(sql))]


def by_op(connection: Connection) -> dict[str, dict[str, int]]:
    """What the pages hold, by op: packages, pages, nbytes, and compute_ns, which is what a package cost on average."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in row_checks.rows(t.page, connection.exec_driver_sql("SELECT id, op, n, nbytes, cost_ns FROM page")):
        of = found[row.op]
        for place, value in enumerate((row.n, 1, row.nbytes, row.cost_ns)):
            of[place] += value
    return {
        op: {"packages": packages, "pages": pages, "nbytes": nbytes, "compute_ns": cost // max(packages, 1)}
        for op, (packages, pages, nbytes, cost) in sorted(found.items())
    }


def evicted(connection: Connection) -> dict[str, dict[str, int]]:
    """What left the store since it was made, by reason: pages, packages, nbytes, and when it last happened."""
    rows = connection.exec_driver_sql("SELECT reason, pages, packages, nbytes, last FROM eviction ORDER BY reason")
    return {
        row.reason: {name: getattr(row, name) for name in ("pages", "packages", "nbytes", "last")}
        for row in row_checks.rows(t.eviction, rows)
    }


def delete_pages(connection: Connection, ids: Sequence[int], reason: str) -> int:
    """Delete pages with their index rows and access counts, and count them; returns the number of index rows."""
    rows: list[tuple[int, int]] = []
    unreadable: list[int] = []
    recent_index.settle(connection)
    blobs = select_pages(connection, ids)
    for page_id, blob in blobs.items():
        try:
            _, arrays = unpack(blob, only=("keys",))
            rows += [(hashed, page_id) for hashed in hashes_of(arrays["keys"]).tolist()]
        except (CorruptPackageError, KeyError, ValueError, IndexError):
            unreadable.append(page_id)
    before = connection.exec_driver_sql("SELECT total_changes()").scalar_one()
    delete_index(connection, rows)
    # What a damaged page held is written nowhere but in the index, which has to be searched for it.
    for start in range(0, len(unreadable), LIST):
        part = unreadable[start : start + LIST]
        connection.exec_driver_sql(f"DELETE FROM package WHERE page_id IN ({_marks(part)})", tuple(part))
    deleted = connection.exec_driver_sql("SELECT total_changes()").scalar_one() - before
    each = [(page_id,) for page_id in ids]
    if each:
        connection.exec_driver_sql("DELETE FROM page WHERE id = ?", each)
        connection.exec_driver_sql("DELETE FROM page_access WHERE page_id = ?", each)
        parts: Iterable[Any] = (part for blob in blobs.values() for part in (blob.header, blob.data))
        nbytes = sum(len(part) for part in parts if isinstance(part, bytes))
        connection.exec_driver_sql(_UPSERT_EVICTION, (reason, len(blobs), int(deleted), nbytes, int(time.time())))
    return int(deleted)


def select_in(connection: Connection, sql: str, values: Sequence[int]) -> list[Any]:
    """The rows of a query that ends in IN, for values of any number."""
    # The driver's cursor gives plain tuples: a row object for each of 10,000 keys would be half the cost.
    rows: list[Any] = []
    for start in range(0, len(values), LIST):
        part = values[start : start + LIST]
        cursor = connection.connection.cursor()  # each has a bound on what it may take
        rows += cursor.execute(f"{sql} ({_marks(part)})", part).fetchall()
    return rows


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
