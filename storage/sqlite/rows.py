"""The rows of packages in SQLite's SQL: index rows by hash, and pages by id, large ones through opened blobs."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError
from whiteboard.memory.room import Room
from whiteboard.storage.page import one_row, stacking
from whiteboard.storage.page.digests import Laid, most_bytes
from whiteboard.storage.page.format import Blob, Moved, Packed
from whiteboard.storage.page.landing import Landed
from whiteboard.storage.sql import page_row
from whiteboard.storage.sql.backend import Connection
from whiteboard.storage.sql.page_row import PageRow, distinct, firsts
from whiteboard.storage.sql.rows import count_uses, index_array
from whiteboard.storage.sqlite import gathered_index, known_hashes, recent_index
from whiteboard.storage.sqlite.opened_data import InRow, fill, first_bytes, is_damage, reading

LIST: Final = 900
"""Most values in one SQL list: longer ones are slower, and older SQLite refuses them."""

_PART_ROWS: Final = 50_000
LARGE: Final = 64 * 1024
"""Data of so many bytes is read by itself, not as a column."""

_LANDS: Final = 128 * 1024
"""Arrays of so many bytes go where they are wanted, though they are so compressed that they are read as a column."""

_CACHE_KIB: Final = 1024
"""SQLite's cache has so much more than the data of a large page, where that is less than it may have: what is written
stays in the processor's cache then until it is in the log, and no zeros go there that are about to be overwritten."""

_MUCH, _MUCH_KIB = 2**20, 256
"""Of so many bytes that are read at once SQLite's cache holds but so much, which stays in the processor's."""

_HUGE: Final = 4 * 2**20
"""Data of more bytes is not in memory as a whole where that can be helped."""

INDEXED: Final = (
    "SELECT page_id FROM package UNION SELECT page_id FROM recent "
    "UNION SELECT id FROM page WHERE id >= (SELECT min(page_id) FROM gathered)"
)
"""The pages in which some package is found, and, where packages wait for rows, some that are as new."""

# With a condition it goes row by row, 40 ns each; without one SQLite counts page by page, which nothing can stop: in a
# file whose pages are said to hold one another, to no end.
COUNT_PACKAGES: Final = (
    "SELECT (SELECT count(*) FROM package WHERE hash >= 0) + (SELECT coalesce(sum(length(hashes)), 0) / 8 FROM recent)"
    " + (SELECT coalesce(sum(length(hashes)), 0) / 8 FROM gathered)"
)


AS_COLUMN: Final = f"CASE WHEN length(data) < {LARGE} THEN data END"
"""The data of a row in SQL, NULL where it is larger."""

TO_CHANGE: Final = ""
"""What ends a query for rows that the transaction changes: here nobody else writes meanwhile."""

_SELECT_PAGES = f"SELECT id, header, digest, {AS_COLUMN} FROM page WHERE id IN"
_INSERT: Final = {
    "page": "INSERT INTO page (op, n, nbytes, cost_ns, header, digest, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
    "node_page": "INSERT INTO node_page (system_id, number, part, header, digest, data) VALUES (?, ?, ?, ?, ?, ?)",
}
_INSERT_ROOM: Final = {table: sql.removesuffix("?)") + "zeroblob(?))" for table, sql in _INSERT.items()}
_UPDATE_ROOM = (
    "UPDATE page SET op = ?, n = ?, nbytes = ?, cost_ns = ?, header = ?, digest = ?, data = zeroblob(?) WHERE id = ?"
)
_DELETE_INDEX = (
    "DELETE FROM package WHERE hash = ? AND (page_id = ? OR typeof(page_id) <> 'integer' OR typeof(slot) <> 'integer')"
)


def is_empty(connection: Connection) -> bool:
    """Return whether there is no package at all."""
    sql = "SELECT EXISTS (SELECT 1 FROM package) OR EXISTS (SELECT 1 FROM recent) OR EXISTS (SELECT 1 FROM gathered)"
    return not connection.exec_driver_sql(sql).scalar_one()


def count_packages(connection: Connection) -> int:
    """Packages that can be found; of two pages written lately that hold the same one, both count."""
    return int(connection.exec_driver_sql(COUNT_PACKAGES).scalar_one())


def select_index(connection: Connection, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index rows (hash, page_id, slot) of the given hashes, ascending and each there once: one row a hash, (m, 3).

    A damaged row, with text where a number should be, comes as one of page -1, which there never is.
    """
    hashes = distinct(hashes)
    likely = known_hashes.likely(connection, hashes) if len(hashes) >= known_hashes.MANY else hashes
    found = select_in(connection, "SELECT hash, page_id, slot FROM package WHERE hash IN", likely.tolist())
    others = [each.find(connection, hashes) for each in (gathered_index, recent_index)]
    rows = np.concatenate([index_array(found), *others])
    return rows[firsts(rows[:, 0])]


def index_parts(connection: Connection) -> Iterator[NDArray[np.int64]]:
    """All rows of the table, some at a time."""
    cursor = connection.connection.cursor().execute("SELECT hash, page_id, slot FROM package")
    while rows := cursor.fetchmany(_PART_ROWS):
        yield index_array(rows)


def read_pages(connection: Connection, ids: Sequence[int]) -> Iterator[tuple[int, Blob]]:
    """Yield the id and blob of each of some pages, by ascending id; one that is not there is left out.

    A page that SQLite itself finds damaged comes with empty data, which no digest fits.
    """
    for page_id, header, digest, data in _select_pages(connection, ids):
        yield page_id, Blob(header, digest, read_data(connection, "page", page_id, header) if data is None else data)


def _read_stacked(connection: Connection, ids: Sequence[int]) -> Iterator[tuple[int, Laid | Landed]]:
    """As `read_pages`, arrays of one name one behind the other in memory where they are large."""
    rows = _select_pages(connection, ids)
    told = [_told(header, digest, data) for _, header, digest, data in rows]
    pages = [said.form.arrays for said in told if said is not None and said.form.arrays is not None]
    if sum(page.end for page in pages) >= _MUCH:
        connection.connection.cache(_MUCH_KIB)
    rooms = stacking.stacked(pages)
    for (page_id, header, digest, data), said in zip(rows, told, strict=True):
        if said is not None:
            yield page_id, _landed(connection, page_id, said, next(rooms), data) or Blob(header, digest, b"")
        else:
            data = read_data(connection, "page", page_id, header) if data is None else data
            yield page_id, Blob(header, digest, data)


def _told(header: object, digest: object, data: object) -> one_row.Said | None:
    """What the header of a page says whose arrays can go where they are wanted; None of another one, or a small one."""
    try:
        said = one_row.told(header, digest) if type(header) is type(digest) is bytes else None
    except CorruptPackageError:
        return None
    arrays = None if said is None else said.form.arrays
    if arrays is None or (data is not None and (type(data) is not bytes or arrays.nbytes < _LANDS)):
        return None
    return said


def _landed(
    connection: Connection, page_id: int, said: one_row.Said, rooms: Sequence[Room | None], data: bytes | None
) -> Landed | None:
    """The arrays of a page that was told of; None where they are not what was written."""
    raw = connection.connection
    try:
        if data is not None:
            return said.landed(data, rooms)
        with raw.blobopen("page", "data", page_id, readonly=True) as blob:
            if len(blob) != page_row.MOST_DATA:
                return said.landed(blob, rooms)
        with reading(raw, "page", page_id) as row:
            return said.landed(row, rooms)
    except CorruptPackageError:
        return None
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        return None


def _select_pages(connection: Connection, ids: Sequence[int]) -> list[Any]:
    try:
        return select_in(connection, _SELECT_PAGES, ids)
    except sqlite3.DataError:  # a header that is larger than any, of one of them
        if len(ids) == 1:
            return [(ids[0], b"", b"", b"")]
        return [row for page_id in ids for row in _select_pages(connection, [page_id])]


def find(
    connection: Connection, hashes: NDArray[np.int64], seen: Collection[int]
) -> tuple[NDArray[np.int64], list[int], Iterator[tuple[int, Laid | Landed]]]:
    """Look hashes up, and read the pages that they lead to, but those that were seen."""
    index = select_index(connection, hashes)
    new = [page_id for page_id in distinct(index[:, 1]).tolist() if page_id not in seen]
    return index, new, _read_stacked(connection, new)


def read_data(connection: Connection, table: str, row_id: int, header: object) -> bytes | memoryview:
    """The data of a row that is too large for a column; empty where SQLite itself finds it damaged.

    Of data that is more than its header has digests for, a byte too many: then none of it is a page's.
    """
    # A column is copied twice on its way here, an opened blob once.
    try:
        with reading(connection.connection, table, row_id) as row:
            most = most_bytes(header)
            return row[:] if len(row) <= most else row[: most + 1]
    except sqlite3.Error as error:
        if is_damage(error):
            return b""
        raise


@contextmanager
def laid(connection: Connection, page_id: int) -> Iterator[Laid | None]:
    """A page while the block runs, its data read a part at a time where it is large; None where it is not there."""
    found = _select_pages(connection, [page_id])
    if not found:
        yield None
        return
    _, header, digest, data = found[0]
    if data is not None:
        yield Moved(header, digest, data)
        return
    with ExitStack() as opened:
        try:
            row = opened.enter_context(reading(connection.connection, "page", page_id))
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            row = InRow()
        yield Moved(header, digest, row[:] if len(row) <= _HUGE else row)


def insert_pages(connection: Connection, pages: Sequence[PageRow]) -> list[int]:
    """Insert pages, and index them; a hash that has a package keeps it. Returns the pages' ids."""
    if not pages:
        return []
    ids = [insert_page(connection, page) for page in pages]
    connection.connection.cache()
    for page_id, page in zip(ids, pages, strict=True):
        recent_index.add(connection, page_id, page.hashes)
    recent_index.settle_if_many(connection)
    count_uses(connection, dict.fromkeys(ids, 0))
    return ids


def insert_page(connection: Connection, page: PageRow) -> int:
    """Insert a page alone, and return its id."""
    return _insert(connection, "page", (page.op, page.n, page.nbytes, page.cost_ns), page.packed)


def advance(
    connection: Connection,  # noqa: ARG001
    system: tuple[str, str],  # noqa: ARG001
    number: int,  # noqa: ARG001
    token: str | None,  # noqa: ARG001
) -> int | None:
    """Leave it to several statements, which cost nothing here, and see more of a damaged file."""
    return None


def delete_index(connection: Connection, rows: Iterable[tuple[int, int]]) -> int:
    """Delete index rows, given as (hash, page_id); returns how many there were."""
    if not (rows := list(rows)):
        return 0
    recent_index.move_on(connection)
    waited = gathered_index.remove(connection, rows)
    return waited + int(connection.exec_driver_sql(_DELETE_INDEX, rows).rowcount)


def insert_node_page(connection: Connection, row: tuple[int, int, int], page: Packed) -> None:
    """Insert a node page of a system, commit and part; what lies in a file is never in memory as a whole."""
    _insert(connection, "node_page", row, page)


def _insert(connection: Connection, table: str, values: tuple[Any, ...], page: Packed) -> int:
    size = page.nbytes
    alone = size >= LARGE
    sql, data = (_INSERT_ROOM[table], first_bytes(table, size)) if alone else (_INSERT[table], page.joined().data)
    if alone:
        _narrow(connection, size)
    cursor: Any = connection.connection.cursor()
    row_id = int(cursor.execute(sql, (*values, page.header, page.digest, data)).lastrowid)
    if alone:
        fill(cursor.connection, table, row_id, page)
    return row_id


def _narrow(connection: Connection, nbytes: int) -> None:
    # No more than nine tenths of a cache may wait to be written.
    connection.connection.cache(_CACHE_KIB + nbytes // 1024 * 8 // 7)


def update_page(connection: Connection, page_id: int, page: PageRow) -> None:
    """Put a page in the place of one that is there."""
    packed = page.packed
    _narrow(connection, packed.nbytes)
    cursor: Any = connection.connection.cursor()
    cursor.execute("DELETE FROM page_part WHERE page_id = ?", (page_id,))
    row = (page.op, page.n, page.nbytes, page.cost_ns, packed.header, packed.digest)
    cursor.execute(_UPDATE_ROOM, (*row, first_bytes("page", packed.nbytes), page_id))
    fill(cursor.connection, "page", page_id, packed)


def lately(connection: Connection) -> NDArray[np.int64]:
    """Index rows, (m, 3), of packages that have no row of their own yet; of one hash, the first counts."""
    return np.concatenate([gathered_index.index(connection), recent_index.index(connection)])


settle = recent_index.settle


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
