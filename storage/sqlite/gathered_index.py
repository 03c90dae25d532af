"""Index rows that wait, by parts of the hashes' range, until a part has enough of them for a change of its pages.

In a large index 50,000 hashes lie on as many pages, so to give them rows at once would write the whole of it. Here they
add a row a part; then the parts that wait with most go into ``package``, each into pages that lie together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.storage.page.row_checks import MOST_ROWS
from whiteboard.storage.sql.backend import Connection
from whiteboard.storage.sqlite.connection import Held

PARTS: Final = 64
_PART_BITS: Final = 57
"""Bits of a hash, which has 63, below those that name its part."""

_NUMBER_BITS: Final = 40
"""A row's id is its part, and its last page, or a higher number: no id comes again, and the first come first."""

_MOST_BYTES: Final = 256 * 2**20
"""What is there beyond it was not put there by a store, and is not read."""

ODD: Final = (
    "typeof(hashes) <> 'blob' OR typeof(places) <> 'blob' OR length(hashes) % 8 "
    f"OR length(places) <> 2 * length(hashes) OR length(hashes) > {8 * MOST_ROWS} OR typeof(page_id) <> 'integer'"
)
"""Rows, in SQL, that no store writes."""

_AFTER = "SELECT coalesce(max(id) + 1, ?) FROM gathered WHERE id BETWEEN ? AND ?"
_IDS = f"SELECT id, length(hashes) / 8, page_id FROM gathered WHERE NOT ({ODD}) ORDER BY id"
_MARKED_IDS = (
    "SELECT id, length(hashes) / 8, substr(hashes, 1, 8), substr(hashes, -8) "
    f"FROM gathered WHERE NOT ({ODD}) ORDER BY id"
)
_HASHES = f"SELECT id, hashes FROM gathered WHERE id BETWEEN ? AND ? AND NOT ({ODD}) ORDER BY id"
_CHANGE = "UPDATE gathered SET page_id = ?, hashes = ?, places = ? WHERE id = ?"
_ROWS = f"SELECT hashes, places FROM gathered WHERE id BETWEEN ? AND ? AND NOT ({ODD}) ORDER BY id"


def part_of(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The part, from 0, that each hash lies in."""
    return (hashes >> _PART_BITS) & (PARTS - 1)


def bounds_of(part: int) -> tuple[int, int]:
    """The first and the last hash of a part."""
    return part << _PART_BITS, ((part + 1) << _PART_BITS) - 1


def add(connection: Connection, rows: NDArray[np.int64]) -> None:
    """Let index rows (hash, page_id, slot) wait."""
    cursor = connection.connection.cursor()
    parts = part_of(rows[:, 0])
    for part in np.unique(parts).tolist():
        low, high = _ids(part)
        mine = rows[parts == part]
        (after,) = cursor.execute(_AFTER, (low, low, high)).fetchone()
        row_id = max(after, min(low + max(0, int(mine[:, 1].max())), high))
        cursor.execute("INSERT INTO gathered VALUES (?, ?, ?, ?)", (row_id, *_packed(mine)))


def waiting(connection: Connection) -> dict[int, int]:
    """How many rows wait in each part that has some."""
    sql = f"SELECT id >> {_NUMBER_BITS}, sum(length(hashes)) / 8 FROM gathered GROUP BY 1"
    return {part: n for part, n in connection.connection.cursor().execute(sql) if 0 <= part < PARTS}


def take(connection: Connection, parts: Iterable[int] | None) -> NDArray[np.int64]:
    """Take all rows of some parts, or of all, out, the oldest first, of each part."""
    found = [np.empty((0, 3), np.int64)]
    cursor = connection.connection.cursor()
    if cursor.execute("SELECT 1 FROM gathered LIMIT 1").fetchone() is None:
        return found[0]
    for part in range(PARTS) if parts is None else parts:
        found += [_unpacked(*each) for each in cursor.execute(_ROWS, _ids(part))]
        cursor.execute(f"DELETE FROM gathered WHERE id BETWEEN ? AND ? AND NOT ({ODD})", _ids(part))
    return np.concatenate(found)


def index(connection: Connection) -> NDArray[np.int64]:
    """All rows by part, the oldest first; a damaged one is left out."""
    cursor = connection.connection.cursor()
    found = [_unpacked(*each) for each in _bounded(cursor.execute(_ROWS, (0, 2**63 - 1)))]
    return np.concatenate([np.empty((0, 3), np.int64), *found])


def find(connection: Connection, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of some hashes, which are ascending; of several of one hash, the oldest comes first."""
    raw: Held = connection.connection
    waiting = _Hashes.of(raw)
    if not len(waiting.hashes):
        return np.empty((0, 3), np.int64)
    low = np.searchsorted(waiting.hashes, wanted)
    held = waiting.hashes[low.clip(max=len(waiting.hashes) - 1)] == wanted
    high = np.searchsorted(waiting.hashes, wanted[held], side="right")
    hits = [np.arange(*each) for each in zip(low[held].tolist(), high.tolist(), strict=True)]
    return waiting.rows(raw, np.concatenate([np.empty(0, np.int64), *hits]))


def place_of(cursor: Any, hashed: int) -> tuple[int, int] | None:
    """The page and slot of one hash."""
    for row_id, blob in cursor.execute(_HASHES, _ids((hashed >> _PART_BITS) & (PARTS - 1))).fetchall():
        at = np.flatnonzero(np.frombuffer(blob, "<i8") == hashed)
        if len(at):
            ((hashes, places),) = cursor.execute(_ROWS, (row_id, row_id))
            _, page_id, slot = _unpacked(hashes, places)[at[0]].tolist()
            return page_id, slot
    return None


@dataclass(slots=True, eq=False)
class _Hashes:
    """All hashes that wait, ascending, and as they lie in the table, row after row.

    Kept by a connection, and read again where the table has changed.
    """

    version: tuple[int, int]
    ids: tuple[tuple[Any, ...], ...]
    hashes: NDArray[np.int64]
    laid: NDArray[np.int64]
    order: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, raw: Held) -> _Hashes:
        # A row that stands never changes but by becoming shorter; what this connection wrote may have been rolled back,
        # which no version tells, and its id come again, with other hashes.
        version: tuple[int, int] = raw.version
        kept: _Hashes | None = raw.gathered
        if kept is not None and kept.version == version and not raw.total_changes:
            return kept
        ids = tuple(raw.cursor().execute(_MARKED_IDS if raw.total_changes else _IDS))
        if kept is not None and kept.ids == ids:
            kept.version = version
        else:
            rows = _bounded(raw.cursor().execute(_HASHES, (0, 2**63 - 1)))
            laid = np.concatenate([np.empty(0, np.int64), *(np.frombuffer(blob, "<i8") for _, blob in rows)])
            kept = raw.gathered = cls(version, ids, np.sort(laid), laid)
        return kept

    def rows(self, raw: Held, hits: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index rows of the hashes at some places, which are ascending; of one hash the oldest comes first."""
        if not len(hits):
            return np.empty((0, 3), np.int64)
        starts = np.cumsum([0, *(n for _, n, *_ in self.ids)])
        if self.order is None:  # to sort all of them with their places takes three times as long as without
            self.order = np.argsort(self.laid)
        at = self.order[hits]
        at = at[np.lexsort((at, self.hashes[hits]))]
        found = np.empty((len(hits), 3), np.int64)
        numbers = np.searchsorted(starts, at, side="right") - 1
        for number in np.unique(numbers).tolist():
            row_id = self.ids[number][0]
            of = _unpacked(*raw.cursor().execute(_ROWS, (row_id, row_id)).fetchone())
            mine = numbers == number
            found[mine] = of[at[mine] - starts[number]]
        return found


def remove(connection: Connection, rows: Collection[tuple[int, int]]) -> int:
    """Delete rows, given as (hash, page_id); returns how many there were."""
    gone = set(rows)
    hashes = np.unique(np.array([hashed for hashed, _ in gone], np.int64))
    cursor = connection.connection.cursor()
    deleted = 0
    for part in np.unique(part_of(find(connection, hashes)[:, 0])).tolist():
        for (row_id,) in cursor.execute("SELECT id FROM gathered WHERE id BETWEEN ? AND ?", _ids(part)).fetchall():
            found = [_unpacked(*each) for each in cursor.execute(_ROWS, (row_id, row_id)).fetchall()]
            for each in found:
                stays = ~np.isin(each[:, 0], hashes)
                likely = np.flatnonzero(~stays)
                stays[likely] = [(hashed, page_id) not in gone for hashed, page_id, _ in each[likely].tolist()]
                deleted += int(np.count_nonzero(~stays))
                if not stays.any():
                    cursor.execute("DELETE FROM gathered WHERE id = ?", (row_id,))
                elif not stays.all():
                    cursor.execute(_CHANGE, (*_packed(each[stays]), row_id))
    return deleted


def _ids(part: int) -> tuple[int, int]:
    return part << _NUMBER_BITS, ((part + 1) << _NUMBER_BITS) - 1


def _packed(rows: NDArray[np.int64]) -> tuple[int, bytes, bytes]:
    """The lowest page, all hashes, and all places, of index rows."""
    return int(rows[:, 1].min()), rows[:, 0].astype("<i8").tobytes(), rows[:, 1:].astype("<i8").tobytes()


def _unpacked(hashes: bytes, places: bytes) -> NDArray[np.int64]:
    columns = np.frombuffer(hashes, "<i8")[:, None], np.frombuffer(places, "<i8").reshape(-1, 2)
    return np.concatenate(columns, axis=1).astype(np.int64, copy=False)


def _bounded(rows: Iterable[Any]) -> Iterator[Any]:
    """Rows, up to so many bytes in their second columns."""
    left = _MOST_BYTES
    for row in rows:
        left -= len(row[1])
        if left < 0:
            return
        yield row
