"""The index of pages written lately: their hashes page by page, until there are enough for a place of their own each.

A hash is random, so a row for each package of a small flush would change as many pages of the index as there are
packages. Here a flush adds one row a page; what has come together then goes into ``package``, in its order, or, where
that is so large that even this would change all of it, some to where it waits for more (`gathered_index`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.storage.page.row_checks import MOST_ROWS
from whiteboard.storage.sql.backend import Connection
from whiteboard.storage.sqlite import gathered_index, known_hashes
from whiteboard.storage.sqlite.connection import Held

_MOST_HASHES: Final = 49_152
_MOST_PAGES: Final = 96
"""All of it is read by each lookup after a flush: pages of one package each make no more than so many rows, pages of
many a row more for each 512 packages. 96 rows of one hash are looked through in 0.06 ms, 49,152 hashes of 192 rows in
0.44 ms for one, in 1.3 ms for 10,000."""

_MOST_BYTES: Final = 64 * 2**20
"""No transaction adds more: what is there beyond it was not put there by a store, and is not read."""

ODD: Final = f"typeof(hashes) <> 'blob' OR length(hashes) % 8 OR length(hashes) > {8 * MOST_ROWS}"
"""Rows, in SQL, that no store writes."""

_COUNT: Final = "SELECT count(*) FROM package WHERE hash BETWEEN 0 AND ?"

_FIRST_BITS: Final = 16
_REST_BITS: Final = 63 - _FIRST_BITS

_PART_WAITS: Final = 1 / 8
"""A part of a large index gets rows once so many wait for it, as a part of those that it has."""

_OFTEN: Final = 100
"""To sort all hashes takes as long as to look so many up one by one."""

_COUNTED: Final = 1024
"""What part of all hashes is counted to know about how many there are: they are spread evenly."""

_INSERT_ROWS: Final = 300
"""Rows of one statement: older SQLite takes 999 values in one."""


def add(connection: Connection, page_id: int, hashes: NDArray[np.int64]) -> None:
    """Index a page that was just written: package i has hash i."""
    connection.connection.cursor().execute(
        "INSERT INTO recent VALUES (?, ?)", (page_id, hashes.astype("<i8").tobytes())
    )


def settle_if_many(connection: Connection) -> None:
    """Move all rows on once there are many."""
    sql = "SELECT count(*), sum(length(hashes)) FROM recent"
    pages, nbytes = connection.connection.cursor().execute(sql).fetchone()
    hashes = (nbytes or 0) // 8
    if pages > _MOST_PAGES + hashes * _MOST_PAGES // _MOST_HASHES or hashes > _MOST_HASHES:
        move_on(connection)


def move_on(connection: Connection) -> None:
    """Move all rows into ``package``, or those of most parts to where they wait; hashes that have a row keep it."""
    rows = index(connection)
    if not len(rows):
        return
    connection.exec_driver_sql("DELETE FROM recent")
    due = _due(connection, len(rows))
    if due is not None:
        now = np.isin(gathered_index.part_of(rows[:, 0]), due)
        gathered_index.add(connection, rows[~now])
        rows = rows[now]
    _insert(connection, np.concatenate([gathered_index.take(connection, due), rows]), large=due is not None)


def settle(connection: Connection) -> None:
    """Give every hash its row in ``package``."""
    rows = np.concatenate([gathered_index.take(connection, None), index(connection)])
    if len(rows):
        connection.exec_driver_sql("DELETE FROM recent")
        _insert(connection, rows, large=False)


def _due(connection: Connection, more: int) -> list[int] | None:
    """The parts of the index that get rows now that so many more have come, those first that most wait for.

    None: all, as they are small.
    """
    (counted,) = connection.connection.cursor().execute(_COUNT, (2**63 // _COUNTED,)).fetchone()
    parts = gathered_index.PARTS
    count = math.ceil(parts * more / max(1.0, _PART_WAITS * _COUNTED * counted))
    if count >= parts:
        return None
    waiting = gathered_index.waiting(connection)
    return sorted(range(parts), key=lambda part: -waiting.get(part, 0))[:count]


def _insert(connection: Connection, rows: NDArray[np.int64], *, large: bool) -> None:
    """Insert index rows (hash, page_id, slot) into ``package``; of one hash the first counts."""
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    insert(connection, rows)
    known_hashes.add(connection, rows, make=large)


def insert(connection: Connection, rows: NDArray[np.int64]) -> None:
    """Insert index rows by ascending hash."""
    # A statement for many rows: after each one the interpreter would be given up, and had again only when the threads
    # that compute let go of it, while other processes wait for this transaction.
    cursor = connection.connection.cursor()
    for start in range(0, len(rows), _INSERT_ROWS):
        part = rows[start : start + _INSERT_ROWS]
        places = ",".join(["(?, ?, ?)"] * len(part))
        cursor.execute(f"INSERT OR IGNORE INTO package VALUES {places}", part.reshape(-1).tolist())


def find(connection: Connection, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index rows (hash, page_id, slot) of some hashes, ascending and each there once; shape (m, 3)."""
    recent = _Columns.read(connection)
    if not (len(recent.hashes) and len(wanted)):
        return np.empty((0, 3), np.int64)
    # Most are none of those wanted: their first bits tell, for less than a search costs.
    likely = np.flatnonzero(_first_bits(wanted)[recent.hashes >> _REST_BITS])
    hashes = recent.hashes[likely]
    at = np.searchsorted(wanted, hashes).clip(max=len(wanted) - 1)
    return recent.rows(likely[wanted[at] == hashes])


def _first_bits(hashes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which first bits some of the hashes have."""
    begins = np.zeros(2**_FIRST_BITS, np.bool_)
    begins[hashes >> _REST_BITS] = True
    return begins


def place_of(cursor: Any, hashed: int) -> tuple[int, int] | None:
    """The page and slot of a hash without a row of its own; the connection keeps the table until it changes."""
    raw: Held = cursor.connection
    version = raw.version_by(cursor)
    if raw.seen is None or raw.seen[0] != version:
        (gathered,) = cursor.execute("SELECT EXISTS (SELECT 1 FROM gathered)").fetchone()
        raw.seen = version, (gathered, _Places(_Columns.of(cursor)))
    gathered, places = raw.seen[1]
    return (gathered_index.place_of(cursor, hashed) if gathered else None) or places.of(hashed)


def kept(raw: Held, hashed: int) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Of what version of the file the connection keeps the table, None if it cannot tell, and where that has a hash."""
    if raw.seen is None:
        return None, None
    version, (gathered, places) = raw.seen
    return (None, None) if gathered else (version, places.of(hashed))


def index(connection: Connection) -> NDArray[np.int64]:
    """All rows as index rows (hash, page_id, slot), by ascending page; a damaged one is left out."""
    recent = _Columns.read(connection)
    return recent.rows(np.arange(len(recent.hashes)))


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """The table: pages, ascending, where the hashes of each start, and all hashes, page after page."""

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    hashes: NDArray[np.int64]

    @classmethod
    def read(cls, connection: Connection) -> _Columns:
        return cls.of(connection.connection.cursor())

    @classmethod
    def of(cls, cursor: Any) -> _Columns:
        sound: list[tuple[int, bytes]] = []
        left = _MOST_BYTES
        for page_id, blob in cursor.execute(f"SELECT page_id, hashes FROM recent WHERE NOT ({ODD}) ORDER BY page_id"):
            left -= len(blob)
            if left < 0:
                break
            sound.append((page_id, blob))
        counts = np.array([len(blob) // 8 for _, blob in sound], np.int64)
        return cls(
            np.array([page_id for page_id, _ in sound], np.int64),
            np.cumsum(counts) - counts,
            np.frombuffer(b"".join(blob for _, blob in sound), "<i8").astype(np.int64, copy=False),
        )

    def rows(self, at: NDArray[np.intp]) -> NDArray[np.int64]:
        """Index rows of the hashes at some places."""
        page = np.searchsorted(self.starts, at, side="right") - 1
        return np.stack([self.hashes[at], self.ids[page], at - self.starts[page]], axis=1)


class _Places:
    """The table, for one hash after another: in order once that pays."""

    __slots__ = ("_asked", "_begins", "_columns", "_hashes", "_ids", "_slots")

    def __init__(self, columns: _Columns) -> None:
        self._columns = columns
        self._asked = 0
        self._begins: memoryview | None = None

    def of(self, hashed: int) -> tuple[int, int] | None:
        """The page and slot of a hash, the first that there is."""
        begins = self._begins
        if begins is None:
            hashes = self._columns.hashes
            if not len(hashes):
                return None
            self._asked += 1
            if self._asked < _OFTEN:
                at = int((hashes == hashed).argmax())
                if hashes[at] != hashed:
                    return None
                ((_, page_id, slot),) = self._columns.rows(np.array([at])).tolist()
                return page_id, slot
            begins = self._sort()
        first = hashed >> _REST_BITS
        for at in range(begins[first], begins[first + 1]):
            if self._hashes[at] == hashed:
                return self._ids[at], self._slots[at]
        return None

    def _sort(self) -> memoryview:
        """Put the table in order; returns where the hashes begin of all that have the same first bits."""
        rows = self._columns.rows(np.argsort(self._columns.hashes, kind="stable"))
        rows = rows[rows[:, 0] >= 0]  # others no key has, whoever wrote them
        counts = np.bincount(rows[:, 0] >> _REST_BITS, minlength=2**_FIRST_BITS)
        # Python looks for one hash in these in a tenth of the time that NumPy takes.
        self._hashes, self._ids, self._slots = (np.ascontiguousarray(column).data for column in rows.T)
        self._begins = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32).data
        return self._begins
