"""Which hashes ``package`` may have, by part, in some bits each: a Bloom filter, for who asks for thousands at a time.

In a large index each of them lies on a page of its own, so that to learn that none is there costs as many reads. What a
filter says is not there was not; where a part has none, all may be. A filter has every hash of its part that has a row,
whoever gave it, and is made only once a part is large.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.storage.sql.backend import Connection
from whiteboard.storage.sqlite.connection import Held
from whiteboard.storage.sqlite.gathered_index import PARTS, bounds_of, part_of

MANY: Final = 2048
"""From so many hashes on a filter costs less than it saves."""

_PROBES: Final = 3
_LEAST: Final = 5
"""Bits a hash, at least: it errs for 9 of 100 then, with 10 for two, and with 20 for none of 300. When a filter is made
it has up to twice as many as its part has at least, which is from 5 to 10: so that not all are made at one time."""

_FEWEST_BITS, _MOST_BITS = 2**13, 2**28

_HASHES = "SELECT hash FROM package WHERE hash BETWEEN ? AND ?"
_TEXT = "SELECT coalesce(group_concat(hash, ' '), '') FROM package WHERE hash BETWEEN ? AND ?"
_PIECES: Final = 16
"""As text, a piece of a part at a time, its hashes are read in two fifths of the time that rows take."""

_KEPT_BYTES: Final = 32 * 2**20
"""A connection keeps filters of so many bytes: to read those of 10,000,000 packages, 13 MB, takes 3 ms."""

ODD: Final = (
    f"part NOT BETWEEN 0 AND {PARTS - 1} OR typeof(packages) <> 'integer' OR typeof(bits) <> 'blob' "
    f"OR length(bits) NOT BETWEEN {_FEWEST_BITS // 8} AND {_MOST_BITS // 8}"
)
"""Rows, in SQL, that no store writes."""


def likely(connection: Connection, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of some ascending hashes that may have a row."""
    starts = np.searchsorted(part_of(hashes), np.arange(PARTS + 1)).tolist()
    keep = np.ones(len(hashes), np.bool_)
    raw: Held = connection.connection
    # What was written here may have been rolled back, and others have put as many in.
    kept = {} if raw.total_changes else raw.filters
    room = _KEPT_BYTES - sum(len(bits) for _, bits in kept.values())
    sql = f"SELECT part, packages, length(bits) FROM known WHERE NOT ({ODD})"
    for part, *said in raw.cursor().execute(sql).fetchall():
        if (start := starts[part]) == (stop := starts[part + 1]):
            continue
        had, bits = kept.get(part, (None, b""))
        if had != said:  # a filter has ever more packages, and one that is made anew more bits
            room += len(bits)
            kept.pop(part, None)
            bits = _bits(connection, part)
            if len(bits) <= room:
                kept[part] = said, bits
                room -= len(bits)
        if _is_filter(bits):
            keep[start:stop] = _has(np.frombuffer(bits, np.uint8), hashes[start:stop])
    return hashes[keep]


def add(connection: Connection, rows: NDArray[np.int64], *, make: bool) -> None:
    """Hear of hashes that have got rows (hash, page_id, slot): in parts that have a filter, or in all with `make`."""
    cursor = connection.connection.cursor()
    if not make and cursor.execute("SELECT 1 FROM known LIMIT 1").fetchone() is None:
        return
    parts = part_of(rows[:, 0])
    for part in np.unique(parts).tolist():
        found = cursor.execute(f"SELECT packages, bits FROM known WHERE part = ? AND NOT ({ODD})", (part,)).fetchone()
        if found is None and not make:
            continue
        hashes = rows[parts == part, 0]
        if found is None or not _is_filter(found[1]) or _least(part, found[0] + len(hashes)) > 8 * len(found[1]):
            _make(cursor, part)
        else:
            bits = np.frombuffer(found[1], np.uint8).copy()
            _set(bits, hashes)
            sql = "UPDATE known SET packages = ?, bits = ? WHERE part = ?"
            cursor.execute(sql, (found[0] + len(hashes), bits.tobytes(), part))


def left_out(connection: Connection) -> Iterator[tuple[int, int]]:
    """Parts whose filters say of hashes that they are not there, and of how many."""
    cursor = connection.connection.cursor()
    for part, bits in connection.connection.cursor().execute(f"SELECT part, bits FROM known WHERE NOT ({ODD})"):
        if _is_filter(bits):
            there = np.fromiter(chain.from_iterable(cursor.execute(_HASHES, bounds_of(part))), np.int64)
            if count := np.count_nonzero(~_has(np.frombuffer(bits, np.uint8), there)):
                yield part, int(count)


def _make(cursor: Any, part: int) -> None:
    low, high = bounds_of(part)
    edges = [low + piece * (high + 1 - low) // _PIECES for piece in range(_PIECES + 1)]
    texts = [cursor.execute(_TEXT, (start, stop - 1)).fetchone()[0] for start, stop in pairwise(edges)]
    hashes = np.concatenate([np.fromstring(text, np.int64, sep=" ") for text in texts])
    size = _FEWEST_BITS
    while size < _least(part, len(hashes)):
        size *= 2
    bits = np.zeros(size // 8, np.uint8)
    _set(bits, hashes)
    cursor.execute("INSERT OR REPLACE INTO known VALUES (?, ?, ?)", (part, len(hashes), bits.tobytes()))


def _bits(connection: Connection, part: int) -> bytes:
    """The filter of a part, in a fifth of the time that it takes as a column; empty where it cannot be read."""
    try:
        with connection.connection.blobopen("known", "bits", part, readonly=True) as blob:
            bits: bytes = blob.read()
            return bits
    except sqlite3.Error:  # of which the index itself, which is read then, has more to tell
        return b""


def _least(part: int, packages: int) -> float:
    return min(_LEAST * 2 ** (part / PARTS) * packages, _MOST_BITS)


def _is_filter(bits: bytes) -> bool:
    return len(bits) >= _FEWEST_BITS // 8 and len(bits) & (len(bits) - 1) == 0


def _has(bits: NDArray[np.uint8], hashes: NDArray[np.int64]) -> NDArray[np.bool_]:
    found = np.ones(len(hashes), np.bool_)
    for at in _places(bits, hashes):
        found &= (bits[at >> 3] >> (at & 7).astype(np.uint8)) & 1 == 1
    return found


def _set(bits: NDArray[np.uint8], hashes: NDArray[np.int64]) -> None:
    for at in _places(bits, hashes):
        np.bitwise_or.at(bits, at >> 3, np.uint8(1) << (at & 7).astype(np.uint8))


def _places(bits: NDArray[np.uint8], hashes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The bits of each hash: a first one, and others at steps that another part of the hash gives."""
    step = ((hashes >> 28) & (2**29 - 1)) | 1
    return [(hashes + probe * step) & (8 * len(bits) - 1) for probe in range(_PROBES)]
