"""The rows of packages in PostgreSQL's SQL: lists go as one array, and many rows as one statement or one pipeline.

Index rows are inserted by ascending hash: in any other order, writers at the same time would wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from whiteboard.storage.page.digests import Laid
from whiteboard.storage.page.format import Blob, Moved, Packed
from whiteboard.storage.postgres.connecting import Numbers
from whiteboard.storage.sql import page_row
from whiteboard.storage.sql.backend import Connection
from whiteboard.storage.sql.page_row import PageRow
from whiteboard.storage.sql.rows import count_uses, index_array

if TYPE_CHECKING:
    from whiteboard.storage.postgres.transaction import Awaited, Transaction

INDEXED: Final = "SELECT page_id FROM package"
"""The pages in which some package is found."""

AS_COLUMN: Final = "data"
"""The data of a row, however large."""

TO_CHANGE: Final = " FOR UPDATE"
"""What ends a query for rows that the transaction changes: others wait with changing them."""

_PART_ROWS: Final = 50_000
_INDEX_PART = (
    "SELECT array_agg(hash), array_agg(page_id), array_agg(slot) FROM "
    "(SELECT hash, page_id, slot FROM package WHERE hash > %s ORDER BY hash LIMIT %s) AS part"
)
_FIND = (
    "SELECT page_id, hashes, slots, header, digest, data FROM (SELECT page_id, array_agg(hash) AS hashes, "
    "array_agg(slot) AS slots FROM package WHERE hash = ANY(%b) GROUP BY page_id) AS found "
    "LEFT JOIN page ON id = page_id AND id <> ALL(%b)"
)
_INSERT_PAGE = (
    "INSERT INTO page (op, n, nbytes, cost_ns, header, digest, data) VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id"
)
_UPDATE_PAGE = (
    "UPDATE page SET op = %s, n = %s, nbytes = %s, cost_ns = %s, header = %s, digest = %s, data = %s WHERE id = %s"
)
_INSERT_PART = "INSERT INTO page_part (page_id, number, data) VALUES (%s, %s, %s)"
_INSERT_INDEX = "INSERT INTO package (hash, page_id, slot) SELECT * FROM unnest(%b, %b, %b) ON CONFLICT DO NOTHING"
_DELETE_INDEX = (
    "DELETE FROM package USING unnest(%b, %b) AS gone(hash, page_id) "
    "WHERE package.hash = gone.hash AND package.page_id = gone.page_id"
)
_ADVANCE = "UPDATE system SET head = %s WHERE name = %s AND uuid = %s AND head = %s RETURNING id"
_ADVANCE_AS_WRITER = (
    "WITH mine AS (SELECT name FROM writer WHERE name = %s AND token = %s FOR UPDATE) UPDATE system SET head = %s "
    "FROM mine WHERE system.name = mine.name AND system.name = %s AND uuid = %s AND head = %s RETURNING id"
)
_INSERT_NODE_PAGE = (
    "INSERT INTO node_page (system_id, number, part, header, digest, data) VALUES (%s, %s, %s, %s, %s, %s)"
)


def is_empty(connection: Connection) -> bool:  # noqa: ARG001
    """False, without a question: to look things up is one too."""
    return False


def count_packages(connection: Connection) -> int:
    """Packages that can be found."""
    return int(connection.exec_driver_sql("SELECT count(*) FROM package").scalar_one())


def select_in(connection: Connection, sql: str, values: Sequence[int]) -> list[Any]:
    """The rows of a query that ends in IN, for values of any number."""
    if not len(values):
        return []
    wanted = Numbers(np.asarray(values, np.int64))
    return _run(connection, f"{sql.removesuffix('IN')}= ANY(%b)", (wanted,)).fetchall()


def select_index(connection: Connection, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index rows (hash, page_id, slot) of the given hashes, ascending and each there once, (m, 3)."""
    rows = index_array(select_in(connection, "SELECT hash, page_id, slot FROM package WHERE hash IN", hashes.tolist()))
    return rows[np.argsort(rows[:, 0])]


def index_parts(connection: Connection) -> Iterator[NDArray[np.int64]]:
    """All rows of the table by ascending hash, some at a time."""
    last = -(2**63)
    while True:
        hashes, pages, slots = _run(connection, _INDEX_PART, (last, _PART_ROWS)).fetchone()
        if hashes is None:
            return
        yield np.column_stack([hashes, pages, slots])
        last = int(hashes[-1])


def read_pages(connection: Connection, ids: Sequence[int]) -> Iterator[tuple[int, Blob]]:
    """Yield the id and blob of each of some pages, by ascending id; one that is not there is left out."""
    rows = select_in(connection, "SELECT id, header, digest, data FROM page WHERE id IN", ids)
    for page_id, *parts in sorted(rows, key=lambda row: int(row[0])):
        yield page_id, _blob(connection, page_id, *parts)


def find(
    connection: Connection, hashes: NDArray[np.int64], seen: Collection[int]
) -> tuple[NDArray[np.int64], list[int], list[tuple[int, Blob]]]:
    """Look hashes up, and read the pages that they lead to, but those that were seen: in one statement."""
    known = Numbers(np.fromiter(seen, np.int64, len(seen)))
    found = _run(connection, _FIND, (Numbers(hashes), known)).fetchall()
    parts = [np.column_stack([hashed, np.full(len(hashed), page_id), slots]) for page_id, hashed, slots, *_ in found]
    index = np.concatenate([np.empty((0, 3), np.int64), *parts])
    new = sorted(int(page_id) for page_id, *_ in found if page_id not in seen)
    pages = {int(at): _blob(connection, int(at), *blob) for at, _, _, *blob in found if blob[0] is not None}
    return index[np.argsort(index[:, 0])], new, sorted(pages.items())


def read_data(connection: Connection, table: str, row_id: int, header: object) -> bytes:  # noqa: ARG001
    """The data of a row."""
    found: tuple[bytes] = _run(connection, f"SELECT data FROM {table} WHERE id = %s", (row_id,)).fetchone()
    return found[0]


def _blob(connection: Connection, page_id: int, header: bytes, digest: bytes, data: bytes) -> Blob:
    """A page from its row, and from those of its parts where there may be some."""
    if len(data) == page_row.MOST_DATA:
        sql = "SELECT data FROM page_part WHERE page_id = %s ORDER BY number"
        data = b"".join([data, *(part for (part,) in _run(connection, sql, (page_id,)).fetchall())])
    return Blob(header, digest, data)


@contextmanager
def laid(connection: Connection, page_id: int) -> Iterator[Laid | None]:
    """A page while the block runs; None where it is not there."""
    found = dict(read_pages(connection, [page_id])).get(page_id)
    yield None if found is None else Moved(found.header, found.digest, found.data)


def insert_pages(connection: Connection, pages: Sequence[PageRow]) -> list[int]:
    """Insert pages, and index them; a hash that has a package keeps it. Returns the pages' ids."""
    if not pages:
        return []
    parted = [_parts(page.packed) for page in pages]
    rows = [_values(page, parts[0]) for page, parts in zip(pages, parted, strict=True)]
    ids = [int(found[0]) for found in _run(connection, _INSERT_PAGE, rows).sets()]
    for page_id, parts in zip(ids, parted, strict=True):
        _insert_parts(connection, page_id, parts)
    hashes = np.concatenate([page.hashes for page in pages])
    held = np.repeat(ids, [len(page.hashes) for page in pages])
    slots = np.concatenate([np.arange(len(page.hashes)) for page in pages])
    hashes, first = np.unique(hashes, return_index=True)  # ascending; of two alike, the first counts
    if len(hashes):
        _run(connection, _INSERT_INDEX, (Numbers(hashes), Numbers(held[first]), Numbers(slots[first])))
    count_uses(connection, dict.fromkeys(ids, 0))
    return ids


def insert_page(connection: Connection, page: PageRow) -> int:
    """Insert a page alone, and return its id."""
    parts = _parts(page.packed)
    page_id = int(_run(connection, _INSERT_PAGE, _values(page, parts[0])).fetchone()[0])
    _insert_parts(connection, page_id, parts)
    return page_id


def update_page(connection: Connection, page_id: int, page: PageRow) -> None:
    """Put a page in the place of one that is there."""
    parts = _parts(page.packed)
    _run(connection, "DELETE FROM page_part WHERE page_id = %s", (page_id,))
    _run(connection, _UPDATE_PAGE, (*_values(page, parts[0]), page_id))
    _insert_parts(connection, page_id, parts)


def insert_node_page(connection: Connection, row: tuple[int, int, int], page: Packed) -> None:
    """Insert a node page of a system, commit and part."""
    blob = page.joined()
    _run(connection, _INSERT_NODE_PAGE, (*row, blob.header, blob.digest, blob.data))


def advance(connection: Connection, system: tuple[str, str], number: int, token: str | None) -> int | None:
    """Move a system's head on by one commit, in one statement.

    Parameters
    ----------
    connection : Connection
    system : (str, str)
        Name and uuid.
    number : int
        Of the commit, which follows the head.
    token : str, optional
        Of its writer, who stays it until the transaction ends; None where nobody has claimed it.

    Returns
    -------
    int or None
        The system's id; None where its head, uuid or writer is another, or it has no commit of its own yet.
    """
    moved = (number, *system, number - 1)
    given = (_ADVANCE, moved) if token is None else (_ADVANCE_AS_WRITER, (system[0], token, *moved))
    found = _run(connection, *given).fetchone()
    return None if found is None else int(found[0])


def delete_index(connection: Connection, rows: Iterable[tuple[int, int]]) -> int:
    """Delete index rows, given as (hash, page_id); returns how many there were."""
    gone = np.array(sorted(rows), np.int64).reshape(-1, 2)
    if not len(gone):
        return 0
    return int(_run(connection, _DELETE_INDEX, (Numbers(gone[:, 0]), Numbers(gone[:, 1]))).rowcount)


def settle(connection: Connection) -> None:
    """Nothing: every package has a row of its own."""


def lately(connection: Connection) -> NDArray[np.int64]:  # noqa: ARG001
    """No rows: every package has one of its own."""
    return np.empty((0, 3), np.int64)


def _values(page: PageRow, data: bytes | memoryview) -> tuple[Any, ...]:
    return page.op, page.n, page.nbytes, page.cost_ns, page.packed.header, page.packed.digest, data


def _parts(page: Packed) -> list[bytes | memoryview]:
    """The data of a page in parts that a value can be."""
    whole = page.joined().data
    if len(whole) <= page_row.MOST_DATA:
        return [whole]
    view = memoryview(whole)
    return [view[at : at + page_row.MOST_DATA] for at in range(0, len(view), page_row.MOST_DATA)]


def _insert_parts(connection: Connection, page_id: int, parts: Sequence[bytes | memoryview]) -> None:
    for number, part in enumerate(parts[1:], 1):
        _run(connection, _INSERT_PART, (page_id, number, part))


def _run(connection: Connection, statement: str, values: Any) -> Awaited:
    return cast("Transaction", connection).run(statement, values)
