"""What a lookup reads: pages by id, decoded in threads where that pays, and the `Found` they are gathered in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
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
from whiteboard.storage.page.landing import Landed
from whiteboard.storage.sql.backend import Connection
from whiteboard.storage.sql.page_row import distinct, hashes_of
from whiteboard.storage.sql.rows import find

_MANY: Final = 4
"""From so many pages on, they may be decoded in threads."""

# To look at the digests of less, or decode it, takes no longer than to hand it over to a thread, and then the
# interpreter back.
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
        self.add_all((page,), 0, rows, slots, tier)

    def add_all(
        self,
        pages: Sequence[Page],
        page: NDArray[np.int64] | int,
        rows: NDArray[np.intp],
        slots: NDArray[np.int64],
        tier: int,
    ) -> None:
        """Say in which of some pages the keys at `rows` are, and in which slots."""
        self._page[rows] = page + len(self._pages)
        self._slot[rows] = slots
        self._tier[rows] = tier
        self._pages += pages

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
    found : list of Page
        Those that hold some of the wanted keys.
    page, slot : ndarray of int64, shape (n,)
        Which of them holds a key, -1 for none, and where.
    uses : Counter of int
        By page id, how many keys it holds.
    collided, wrong : ndarray of intp
        Keys whose index row leads to another key of the same hash, and to nothing that it should.
    """

    wanted: Wanted
    bits: int
    pages: dict[int, Page | None]
    found: list[Page]
    page: NDArray[np.int64]
    slot: NDArray[np.int64]
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
        none, n = np.empty(0, np.intp), len(wanted.hashes)
        lookup = cls(wanted, bits, {}, [], np.full(n, -1, np.int64), np.zeros(n, np.int64), Counter(), none, none)
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
        held, starts, stored = self._stored(ids)
        if not len(stored):
            return rest
        hashes = hashes_of(stored, self.bits)
        order = np.argsort(hashes)
        at = order[np.searchsorted(hashes[order], self.wanted.hashes[rest]).clip(max=len(order) - 1)]
        there = (stored[at] == self.wanted.keys[rest]).all(axis=1)
        at = at[there]
        which = np.searchsorted(starts, at, side="right") - 1
        self._hit(held, which, rest[there], at - starts[which])
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
        rest, page_of, slot = rest[there], index[at[there], 1], index[at[there], 2]
        held, starts, stored = self._stored(distinct(page_of).tolist())
        if not len(held):
            return
        which = np.searchsorted(held, page_of).clip(max=len(held) - 1)
        here = held[which] == page_of
        rest, which, slot = rest[here], which[here], slot[here]
        inside = (slot >= 0) & (slot < np.diff(starts)[which])
        named = np.concatenate([stored, np.zeros((1, 16), np.uint8)])[np.where(inside, starts[which] + slot, -1)]
        right = inside & (named == self.wanted.keys[rest]).all(axis=1)
        other = inside & ~right & (hashes_of(named, self.bits) == self.wanted.hashes[rest])
        self.collided, self.wrong = rest[other], rest[~right & ~other]
        self._hit(held, which[right], rest[right], slot[right])

    def _stored(self, ids: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """Of some pages those that were read, where the keys of each begin, and the end; and the keys of all."""
        held = [page_id for page_id in ids if self.pages[page_id] is not None]
        keys = [page.keys for page_id in held if (page := self.pages[page_id]) is not None]
        stored = np.concatenate(keys) if keys else np.empty((0, 16), np.uint8)
        return np.array(held, np.int64), np.cumsum([0, *map(len, keys)]), stored

    def _hit(
        self, held: NDArray[np.int64], which: NDArray[np.intp], rows: NDArray[np.intp], slots: NDArray[np.int64]
    ) -> None:
        """Say in which of some pages keys are, and in which slots."""
        counts = np.bincount(which, minlength=len(held))
        self.page[rows] = (np.cumsum(counts > 0) - 1 + len(self.found))[which]
        self.slot[rows] = slots
        for page_id, count in zip(held.tolist(), counts.tolist(), strict=True):
            if count and (page := self.pages[page_id]) is not None:
                self.found.append(page)
                self.uses[page_id] += count

    def _read(self, connection: Connection, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Read the pages that hashes lead to and that were not read yet; returns index rows."""
        index, new, rows = find(connection, hashes, self.pages)
        self._open(new, rows)
        return index

    def _open(self, ids: Sequence[int], rows: Iterable[tuple[int, Laid | Landed]]) -> None:
        self.pages |= dict.fromkeys(ids)
        self.pages |= map(_opened, rows) if len(ids) < _MANY else _opened_all(rows)


def _opened_all(pages: Iterable[tuple[int, Laid | Landed]]) -> Iterable[tuple[int, Page | None]]:
    """Open many pages: by the first of them, in threads or one after another."""
    rows = iter(pages)
    for page_id, laid in rows:
        return (overlapped if _is_dear(laid) else map)(_opened, chain([(page_id, laid)], rows))
    return ()


def _is_dear(laid: Laid | Landed) -> bool:
    if isinstance(laid, Landed):
        return laid.arrays.has_chunks and laid.arrays.nbytes >= _LARGE
    return len(laid.data) >= _LARGE or _CHUNK in laid.header


def _opened(row: tuple[int, Laid | Landed]) -> tuple[int, Page | None]:
    page_id, laid = row
    try:
        return page_id, laid.page() if isinstance(laid, Landed) else decode_page(laid)
    except CorruptPackageError:
        return page_id, None
