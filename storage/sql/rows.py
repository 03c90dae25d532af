"""The rows of packages in SQL: what is the same whichever backend a connection is of.

What differs between them is a module each, of the shape of `backend.Rows`, and is asked for by the connection here.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError
from whiteboard.storage.page import page_checks, row_checks
from whiteboard.storage.page.digests import Laid, opened
from whiteboard.storage.page.format import Blob, Moved, unpack
from whiteboard.storage.page.landing import Landed
from whiteboard.storage.sql import tables as t
from whiteboard.storage.sql.backend import Connection, rows_of
from whiteboard.storage.sql.page_row import PageRow, hashes_of

_UPSERT_ACCESS = (
    "INSERT INTO page_access VALUES (?, ?, ?) ON CONFLICT(page_id) DO UPDATE SET "
    "last_use = excluded.last_use, hits = page_access.hits + excluded.hits"
)

_UPSERT_EVICTION = (
    "INSERT INTO eviction AS so_far VALUES (?, ?, ?, ?, ?) ON CONFLICT(reason) DO UPDATE SET "
    "pages = so_far.pages + excluded.pages, packages = so_far.packages + excluded.packages, "
    "nbytes = so_far.nbytes + excluded.nbytes, last = excluded.last"
)

PART_BYTES: Final = 24 * 2**20
"""Pages of so many bytes are written in one transaction: what SQLite has no room for in its cache it writes twice."""


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

    @classmethod
    def parts(cls, pages: Iterable[PageRow], broken: Broken, uses: Counter[int]) -> Iterator[Batch]:
        """Yield pages in parts, for a transaction each, as soon as these are encoded; nothing of none."""
        rows: list[PageRow] = []
        room = PART_BYTES
        for row in pages:
            room -= (nbytes := row.nbytes)
            if rows and room < 0:
                yield cls(rows, broken, Counter())
                rows, room = [], PART_BYTES - nbytes
            rows.append(row)
        if rows or uses:
            yield cls(rows, broken, uses)

    def write(self, connection: Connection) -> None:
        """Write pages, index rows and access counts."""
        self.insert(connection)
        count_uses(connection, self.uses)

    def insert(self, connection: Connection) -> list[int]:
        """Write pages and index rows; returns the pages' ids."""
        if self.rows and (self.broken.pages or self.broken.hashes):
            index = select_index(connection, np.concatenate([row.hashes for row in self.rows]))
            delete_index(
                connection,
                (
                    (hashed, page_id)
                    for hashed, page_id, _ in index.tolist()
                    if page_id in self.broken.pages or hashed in self.broken.hashes
                ),
            )
        return insert_pages(connection, self.rows)


def indexed(connection: Connection) -> str:
    """A query for the pages in which some package is found."""
    return rows_of(connection).INDEXED


def is_empty(connection: Connection) -> bool:
    """Return whether there is no package at all."""
    return rows_of(connection).is_empty(connection)


def count_packages(connection: Connection) -> int:
    """Packages that can be found; of two pages written lately that hold the same one, both count."""
    return rows_of(connection).count_packages(connection)


def select_index(connection: Connection, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index rows (hash, page_id, slot) of the given hashes, ascending and each there once: one row a hash, (m, 3).

    A damaged row, with text where a number should be, comes as one of page -1, which there never is.
    """
    return rows_of(connection).select_index(connection, hashes)


def index_parts(connection: Connection) -> Iterator[NDArray[np.int64]]:
    """All rows (hash, page_id, slot) of their own that packages have, (m, 3) each time, damaged ones as of page -1."""
    return rows_of(connection).index_parts(connection)


def read_pages(connection: Connection, ids: Sequence[int]) -> Iterator[tuple[int, Blob]]:
    """Yield the id and blob of each of some pages, by ascending id; one that is not there is left out.

    A page that the database itself finds damaged comes with empty data, which no digest fits.
    """
    return rows_of(connection).read_pages(connection, ids)


def find(
    connection: Connection, hashes: NDArray[np.int64], seen: Collection[int]
) -> tuple[NDArray[np.int64], Sequence[int], Iterable[tuple[int, Laid | Landed]]]:
    """Look hashes up, and read the pages that they lead to.

    Returns
    -------
    index : ndarray of int64, shape (m, 3)
        As `select_index` has it.
    ids : sequence of int
        The pages that it names, but those that were `seen`.
    pages : iterable of (int, Laid or Landed)
        Those of them that are there, as `read_pages` has them, or their arrays alone, all of it in memory.
    """
    return rows_of(connection).find(connection, hashes, seen)


def laid(connection: Connection, page_id: int) -> AbstractContextManager[Laid | None]:
    """A page while the block runs, its data read a part at a time where it is large; None where it is not there."""
    return rows_of(connection).laid(connection, page_id)


def insert_pages(connection: Connection, pages: Sequence[PageRow]) -> list[int]:
    """Insert pages, and index them; a hash that has a package keeps it. Returns the pages' ids."""
    return rows_of(connection).insert_pages(connection, pages)


def insert_page(connection: Connection, page: PageRow) -> int:
    """Insert a page alone, and return its id."""
    return rows_of(connection).insert_page(connection, page)


def delete_index(connection: Connection, rows: Iterable[tuple[int, int]]) -> int:
    """Delete index rows, given as (hash, page_id); returns how many there were."""
    return rows_of(connection).delete_index(connection, rows)


def settle(connection: Connection) -> None:
    """Give every package its own row in the index, where packages that were written lately have none."""
    rows_of(connection).settle(connection)


def lately(connection: Connection) -> NDArray[np.int64]:
    """Index rows, (m, 3), of packages that have no row of their own yet."""
    return rows_of(connection).lately(connection)


def select_in(connection: Connection, sql: str, values: Sequence[int]) -> list[Any]:
    """The rows of a query that ends in IN, for values of any number."""
    return rows_of(connection).select_in(connection, sql, values)


def reached(connection: Connection, page_id: int, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The rows of a page that the index leads to, ascending: others were stored elsewhere first, and are nobody's."""
    hashes = hashes_of(keys)
    index = select_index(connection, hashes)
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


def update_page(connection: Connection, page_id: int, page: PageRow) -> None:
    """Put a page in the place of one that is there; index rows and access counts stay."""
    rows_of(connection).update_page(connection, page_id, page)


def count_uses(connection: Connection, uses: Mapping[int, int]) -> None:
    """Add to the counts by which eviction goes."""
    if uses:
        now = int(time.time())
        connection.exec_driver_sql(_UPSERT_ACCESS, [(page_id, now, count) for page_id, count in sorted(uses.items())])


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


def _each_laid(connection: Connection, ids: Sequence[int]) -> Iterator[tuple[int, Laid]]:
    """Yield the id of each of some pages and the page, large ones where they lie."""
    large = {row[0] for row in select_in(connection, f"SELECT id FROM page WHERE nbytes > {PART_BYTES} AND id IN", ids)}
    yield from read_pages(connection, [page_id for page_id in ids if page_id not in large])
    for page_id in sorted(large):
        with laid(connection, page_id) as page:
            if page is not None:
                yield page_id, page


def _keys(page: Laid) -> NDArray[np.uint8]:
    if isinstance(page, Blob):
        return unpack(page, only=("keys",))[1]["keys"]
    _, arrays = page_checks.entries(Moved(page.header, page.digest, opened(page)))
    return arrays["keys"].rows(0, arrays["keys"].shape[0])


def delete_pages(connection: Connection, ids: Sequence[int], reason: str) -> int:
    """Delete pages with their index rows and access counts, and count them; returns the number of index rows."""
    rows: list[tuple[int, int]] = []
    unreadable: list[int] = []
    pages = nbytes = 0
    for page_id, page in _each_laid(connection, ids):
        pages += 1
        parts: tuple[Any, ...] = (page.header, page.data)
        nbytes += sum(len(part) for part in parts if hasattr(part, "__len__") and not isinstance(part, str))
        try:
            rows += [(hashed, page_id) for hashed in hashes_of(_keys(page)).tolist()]
        except (CorruptPackageError, KeyError, ValueError, IndexError):
            unreadable.append(page_id)
    deleted = delete_index(connection, rows)
    # What a damaged page held is written nowhere but in the index, which has to be searched for it.
    if unreadable:
        settle(connection)
        some = ",".join(map(str, unreadable))
        deleted += connection.exec_driver_sql(f"DELETE FROM package WHERE page_id IN ({some})").rowcount
    each = [(page_id,) for page_id in ids]
    if each:
        connection.exec_driver_sql("DELETE FROM page WHERE id = ?", each)
        connection.exec_driver_sql("DELETE FROM page_access WHERE page_id = ?", each)
        connection.exec_driver_sql(_UPSERT_EVICTION, (reason, pages, deleted, nbytes, int(time.time())))
    return deleted
