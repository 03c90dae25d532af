"""A page as its row is made, and the hashes by which the index has its packages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.records.packages import Page
from whiteboard.storage.page.codec import DEFAULT, Encoding
from whiteboard.storage.page.format import Packed, encode_page

HASH_BITS: Final = 63
"""Bits of a key that the index holds: the most that a non-negative SQLite integer has."""

MOST_DATA: Final = 256 * 2**20
"""Data of more bytes lies in parts of so many: the first in its page's row, the others in rows of ``page_part``.

A value of SQLite's has 1 GB at most, as one of PostgreSQL's, which is held several times on its way there.
"""


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


def part_sizes(nbytes: int) -> list[int]:
    """Bytes of each part of data that has so many."""
    whole, rest = divmod(nbytes, MOST_DATA)
    return [*[MOST_DATA] * whole, *([rest] if rest or not whole else [])]


def hashes_of(keys: NDArray[np.uint8], bits: int = HASH_BITS) -> NDArray[np.int64]:
    """The first `bits` bits of each row of an (n, 16) array of keys."""
    words = np.ascontiguousarray(keys).view(">u8")[:, 0].astype(np.uint64)
    return (words >> np.uint64(64 - bits)).astype(np.int64)


# For both there is `np.unique`, which imports numpy.ma at its first call: 10 ms of a process that asks for one package.


def distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The different ones of some values, ascending."""
    ordered = np.sort(values)
    return ordered[_starts(ordered)]


def firsts(values: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where each of the different ones of some values stands first, by ascending value."""
    order = np.argsort(values, kind="stable")
    return order[_starts(values[order])]


def _starts(ordered: NDArray[np.int64]) -> NDArray[np.bool_]:
    new = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return new
