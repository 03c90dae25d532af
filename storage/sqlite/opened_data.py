"""The data of rows through opened blobs: large data is read where it lies, a part at a time, and written the same way.

What has more than one value may hold lies in parts: the first in its page's row, the others in rows of ``page_part``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any, Final

from whiteboard.memory.room import LEAST_BYTES, room
from whiteboard.storage.page.digests import pieces
from whiteboard.storage.page.format import Packed
from whiteboard.storage.sql import page_row
from whiteboard.storage.sqlite.connection import Held

_PIECE_BYTES: Final = 128 * 1024
"""Of data that goes elsewhere so many bytes are read at a time: they are in the processor's cache then."""

_PARTS = "SELECT id FROM page_part WHERE page_id = ? ORDER BY number"
_SIZE = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
_INSERT_PART = "INSERT INTO page_part (page_id, number, data) VALUES (?, ?, zeroblob(?))"


class InRow:
    """The data of a row; what SQLite itself finds damaged is empty, which no digest fits."""

    __slots__ = ("_blobs", "_length")

    def __init__(self, *blobs: Any) -> None:
        self._blobs = blobs
        self._length = sum(map(len, blobs))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> bytes | memoryview:
        try:
            if part == slice(None):
                return self._whole()
            if len(self._blobs) == 1:
                one: bytes = self._blobs[0][part]
                return one
            start, end, _ = part.indices(self._length)
            return b"".join(self._read(start, end))
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            return b""

    def _whole(self) -> bytes | memoryview:
        """All of it, what is large in a room."""
        if self._length < LEAST_BYTES or (made := room(self._length)) is None:
            return b"".join([blob[:] for blob in self._blobs])
        into = made.into
        for at in range(0, self._length, _PIECE_BYTES):
            for piece in self._read(at, min(self._length, at + _PIECE_BYTES)):
                into[: len(piece)] = piece
                into = into[len(piece) :]
        return made.lent()

    def _read(self, start: int, end: int) -> Iterator[bytes]:
        for blob in self._blobs:
            size = len(blob)
            if start < size and end > 0:
                yield blob[max(0, start) : min(size, end)]
            start, end = start - size, end - size


@contextmanager
def reading(raw: Held, table: str, row_id: int) -> Iterator[InRow]:
    """The data of a row while the block runs."""
    with raw.blobopen(table, "data", row_id, readonly=True) as blob:
        if table != "page" or len(blob) != page_row.MOST_DATA:
            yield InRow(blob)
            return
        with ExitStack() as others:
            blobs = [blob]
            for (part_id,) in raw.execute(_PARTS, (row_id,)).fetchall():
                blobs.append(others.enter_context(raw.blobopen("page_part", "data", part_id, readonly=True)))
            # What a file says of its values costs memory, what it holds has a bound.
            (most,) = raw.execute(_SIZE).fetchone()
            yield InRow(*blobs) if sum(map(len, blobs)) <= most else InRow()


def fill(raw: Held, table: str, row_id: int, page: Packed) -> None:
    """Write the data of a page into a row that has room for it, or for its first part; the others get theirs here."""
    # Each array goes from where it is to its place; as a value all of them would be copied three times on the way.
    stream = (memoryview(piece) for piece in chain.from_iterable(map(pieces, page.parts)))
    rest = memoryview(b"")
    for place in _places(raw, table, row_id, page.nbytes):
        with raw.blobopen(*place) as blob:
            left = len(blob)
            while left:
                rest = rest or next(stream)
                blob.write(rest[:left])
                rest, left = rest[left:], left - min(left, len(rest))


def first_bytes(table: str, nbytes: int) -> int:
    """How many bytes of some data lie in its row."""
    return min(nbytes, page_row.MOST_DATA) if table == "page" else nbytes


def _places(raw: Held, table: str, row_id: int, nbytes: int) -> Iterable[tuple[str, str, int]]:
    """Where the parts of data go; rows of all but the first are inserted."""
    yield table, "data", row_id
    for number, size in enumerate(page_row.part_sizes(nbytes)[1:] if table == "page" else (), 1):
        yield "page_part", "data", int(raw.execute(_INSERT_PART, (row_id, number, size)).lastrowid or 0)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite has found a value damaged."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)
