"""What a lookup reads: pages by id, decoded in threads where that pays, and the `Found` they are gathered in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.concurrency.parallel import overlapped
from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import MISS, Found, Page
from whiteboard.storage.page.codec import BLOSC2
from whiteboard.storage.page.digests import Laid
from whiteboard.storage.page.format import decode_page
from whiteboard.storage.page.one_row import only
from whiteboard.storage.page.spread import Spread
from whiteboard.storage.sql.backend import Connection
from whiteboard.storage.sql.page_row import firsts, hashes_of
from whiteboard.storage.sql.rows import find

_MANY: Final = 4
"""From so many pages on, they may be decoded in threads."""

# To look at the digests of less takes no longer than to hand it over to a thread, and then the interpreter back.
_LARGE: Final = 2**20
_CHUNK: Final = f'"{BLOSC2}"'.encode()

# Keys that were computed together lie together: of many, a few lead to the pages of most.
_SAMPLED: Final = 1024
_SAMPLE: Final = 128
_FEW: Final = 0.25
"""Of pages more than so many a key, a sample leads to some of many."""


class Gathering:
    """A `Found` of n keys in the making."""

    def __init__(self, n: int) -> None:
        self._pages: list[Page] = []
        self._page = np.full(n, -1, np.int64)
        self._slot = np.zeros(n, np.int64)
        self._tier = np.full(n, MISS, np.uint8)

    def add(self, page: Page, rows: NDArray[np.intp], slots: NDArray[np.int64], tier: int) -> None:
        """Say that the keys at `rows` are in the slots of a page."""
        self._page[rows] = len(self._pages)
        self._slot[rows] = slots
        self._tier[rows] = tier
        self._pages.append(page)

    def done(self) -> Found:
        """Return what was found."""
        return Found(self._pages, self._page, self._slot, self._tier)


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """Keys that are looked up: full, shape (n, 16), and the hashes that the index has of them."""

    keys: NDArray[np.uint8]
    hashes: NDArray[np.int64]

    @classmethod
    def of(cls, keys: Sequence[bytes], bits: int) -> Wanted:
        """The columns of some keys."""
        columns = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)
        return cls(columns, hashes_of(columns, bits))


@dataclass(slots=True, eq=False)
class Lookup:
    """What one batch of wanted keys finds in the file, all of it read in one transaction.

    Attributes
    ----------
    pages : dict of int to Page or None
        Every page that was read; None for one that is damaged, or not there.
    hits : list of (Page, rows, slots)
        Which of the wanted keys a page holds, and where.
    uses : Counter of int
        By page id, how many of them.
    collided, wrong : ndarray of intp
        Keys whose index row leads to another key of the same hash, and to nothing that it should.
    """

    wanted: Wanted
    bits: int
    pages: dict[int, Page | None]
    hits: list[tuple[Page, NDArray[np.intp], NDArray[np.int64]]]
    uses: Counter[int]
    collided: NDArray[np.intp]
    wrong: NDArray[np.intp]

    @property
    def broken(self) -> frozenset[int]:
        """Pages that are damaged, or not there."""
        return frozenset(page_id for page_id, page in self.pages.items() if page is None)

    @classmethod
    def run(cls, connection: Connection, wanted: Wanted, bits: int) -> Lookup:
        """Look up all keys."""
        none = np.empty(0, np.intp)
        lookup = cls(wanted, bits, {}, [], Counter(), none, none)
        rest = lookup._by_page(connection, np.argsort(wanted.hashes, kind="stable"))
        if len(rest):
            lookup._by_index(connection, rest)
        return lookup

    def _by_page(self, connection: Connection, rest: NDArray[np.intp]) -> NDArray[np.intp]:
        """Find keys in the pages that a sample of them leads to, for as long as these hold most; returns the others."""
        while len(rest) >= _SAMPLED:
            sample = self.wanted.hashes[rest[:: len(rest) // _SAMPLE]]
            _, new, rows = find(connection, sample, self.pages)
            if len(new) > _FEW * len(sample) and not isinstance(rows, Sequence):
                break  # of few packages each, they are better read with all others, and are not read yet
            self._open(new, rows)
            before = len(rest)
            rest = self._matched(new, rest)
            if 2 * len(rest) > before:
                break
        return rest

    def _matched(self, ids: Sequence[int], rest: NDArray[np.intp]) -> NDArray[np.intp]:
        """Find keys in some pages; returns those that are not there."""
        pages = [(page_id, page) for page_id in ids if (page := self.pages[page_id]) is not None and page.n]
        if not pages:
            return rest
        stored = np.concatenate([page.keys for _, page in pages])
        hashes = hashes_of(stored, self.bits)
        order = np.argsort(hashes)
        at = order[np.searchsorted(hashes[order], self.wanted.hashes[rest]).clip(max=len(order) - 1)]
        there = (stored[at] == self.wanted.keys[rest]).all(axis=1)
        starts = np.cumsum([0, *(page.n for _, page in pages)])
        rows, at = rest[there], at[there]
        which = np.searchsorted(starts, at, side="right") - 1
        for number, mine in _grouped(which):
            self._hit(*pages[number], rows[mine], at[mine] - starts[number])
        others: NDArray[np.intp] = rest[~there]
        return others

    def _by_index(self, connection: Connection, rest: NDArray[np.intp]) -> None:
        """Find each key where its index row says."""
        index = self._read(connection, self.wanted.hashes[rest])
        if not len(index):
            return
        hashes = self.wanted.hashes[rest]
        at = np.searchsorted(index[:, 0], hashes).clip(max=len(index) - 1)
        there = index[at, 0] == hashes
        rest, page_of, slot_of = rest[there], index[at[there], 1], index[at[there], 2]
        collided, wrong = [self.collided], [self.wrong]
        for number, mine in _grouped(page_of):
            page, rows, slots = self.pages[number], rest[mine], slot_of[mine]
            if page is None:
                continue
            inside = (slots >= 0) & (slots < page.n)
            stored = page.keys[np.where(inside, slots, 0)] if page.n else np.zeros((len(rows), 16), np.uint8)
            right = inside & (stored == self.wanted.keys[rows]).all(axis=1)
            other = inside & ~right & (hashes_of(stored, self.bits) == self.wanted.hashes[rows])
            collided.append(rows[other])
            wrong.append(rows[~right & ~other])
            if right.any():
                self._hit(number, page, rows[right], slots[right])
        self.collided, self.wrong = np.concatenate(collided), np.concatenate(wrong)

    def _hit(self, page_id: int, page: Page, rows: NDArray[np.intp], slots: NDArray[np.int64]) -> None:
        self.hits.append((page, rows, slots))
        self.uses[page_id] += len(rows)

    def _read(self, connection: Connection, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Read the pages that hashes lead to and that were not read yet; returns index rows."""
        index, new, rows = find(connection, hashes, self.pages)
        self._open(new, rows)
        return index

    def _open(self, ids: Sequence[int], rows: Iterable[tuple[int, Laid]]) -> None:
        self.pages |= dict.fromkeys(ids)
        self.pages |= map(_opened, rows) if len(ids) < _MANY else _opened_all(rows)


def _opened_all(pages: Iterable[tuple[int, Laid]]) -> Iterable[tuple[int, Page | None]]:
    """Open many pages: by the first of them, in threads or one after another."""
    rows = iter(pages)
    for page_id, blob in rows:
        opened = overlapped if len(blob.data) >= _LARGE or _CHUNK in blob.header else map
        return opened(_opened, chain([(page_id, blob)], rows))
    return ()


def _opened(row: tuple[int, Laid]) -> tuple[int, Page | None]:
    page_id, laid = row
    try:
        # Of small data, which is bytes, it would cost as much to ask; what is of other types was not written so.
        large = isinstance(laid.data, memoryview | Spread) and type(laid.header) is type(laid.digest) is bytes
        alone = only(laid) if large else None
        return page_id, decode_page(laid) if alone is None else alone
    except CorruptPackageError:
        return page_id, None


def _grouped(values: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each value, ascending, and the places where it stands."""
    if not len(values):
        return
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = firsts(ordered)
    yield from zip(ordered[starts].tolist(), np.split(order, starts[1:]), strict=True)
