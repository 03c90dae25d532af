"""The memory tier: pages of another store, held in memory up to a number of bytes, least recently used out first."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from whiteboard.concurrency.at_fork import watch
from whiteboard.memory.room import tidy
from whiteboard.records.claims import Holder
from whiteboard.records.packages import MEMORY, MISS, Found, Page
from whiteboard.storage.base import Claim, PackageStore
from whiteboard.storage.cache.page_index import KEY_BYTES, PAGE_OVERHEAD, PageIndex, footprint
from whiteboard.storage.page.format import check_page
from whiteboard.storage.page.grouping import PAGE_BYTES, owned, take


class MemoryTier(PackageStore):
    """A `PackageStore` in front of another.

    Parameters
    ----------
    inner : PackageStore
        Where misses are looked up, and where packages are kept.
    memory_bytes : int
        Bound on the bytes held, with what the index and the objects cost; 0 holds nothing.
    keep : bool
        Whether `put` passes pages on to `inner`.
    """

    fork_rank = 0

    def __init__(self, inner: PackageStore, memory_bytes: int, *, keep: bool = True) -> None:
        self.inner = inner
        self.memory_bytes = memory_bytes
        self.keep = keep
        self._lock = threading.RLock()
        self.fork_locks = (self._lock,)
        self._index = PageIndex()
        self._touched: Counter[bytes] = Counter()
        self._evicted = 0
        # A page that filled the tier alone would push everything else out, so large ones are held in parts.
        self._most = max(memory_bytes // 16, min(PAGE_BYTES, memory_bytes // 4))
        watch(self)

    def find(self, keys: Sequence[bytes]) -> Found:
        if len(keys) == 1:
            return self._find_alone(keys)
        with self._lock:
            places = self._whole().places(keys)
            held = np.flatnonzero(places >= 0)
            found = self._held(keys, places, held)
        if len(held) < len(keys):
            missing = np.flatnonzero(places < 0)
            below = self.inner.find([keys[i] for i in missing.tolist()])
            found = _joined(found, below, missing) if len(held) else below
            self._hold_all(below.pages)
        return found

    def _find_alone(self, keys: Sequence[bytes]) -> Found:
        """As `find`, of one key."""
        if (place := self.find_one(keys[0])) is not None:
            return Found.one(*place, MEMORY)
        return self.find_below(keys[0])

    def find_below(self, key: bytes) -> Found:
        found = self.inner.find_below(key)
        if found.pages:
            if self.memory_bytes > PAGE_OVERHEAD:
                self._hold_all(found.pages)
            else:
                tidy()
        return found

    def find_one(self, key: bytes) -> tuple[Page, int] | None:
        if not self._index.pages:
            return None
        with self._lock:
            if (found := self._whole().use(key)) is not None:
                self._touched[key] += 1
        return found

    def put(self, page: Page) -> None:
        mine = owned(page)
        if self.keep:
            self.inner.put(mine)
        else:
            check_page(page)
        self._hold_all((mine,))

    def claim(self) -> Claim | None:
        return self.inner.claim() if self.keep else None

    def settle(self, pages: Sequence[Page], claim: Claim) -> None:
        self.inner.settle(pages, claim)
        self._hold_all(pages)

    def holders(self, keys: Sequence[bytes]) -> list[Holder]:
        return self.inner.holders(keys)

    def touch(self, keys: Sequence[bytes], counts: Sequence[int]) -> None:
        self.inner.touch(keys, counts)

    def flush(self) -> None:
        self._pass_on_uses()
        self.inner.flush()

    def close(self) -> None:
        self._pass_on_uses()
        self.inner.close()
        with self._lock:
            self._index = PageIndex()

    def reject(self, page: Page) -> None:
        with self._lock:
            self._index = PageIndex()  # it holds the page, or a part of it
        self.inner.reject(page)

    def forget(self) -> None:
        """Let all pages go: some of them were deleted below."""
        self._pass_on_uses()
        with self._lock:
            self._index = PageIndex()

    def stats(self) -> dict[str, float]:
        with self._lock:
            mine = {
                "bytes_memory": self._index.nbytes,
                "packages_memory": len(self._index),
                "evicted_memory": self._evicted,
            }
        return {**self.inner.stats(), **mine}

    def before_fork(self) -> None:
        """Nothing more than holding the lock."""

    def after_fork(self, *, child: bool) -> None:
        if child:
            self._touched.clear()

    def _whole(self) -> PageIndex:
        """The index; an empty one where an interrupt has torn it, as what it held can be found or computed again."""
        if self._index.torn:
            self._index = PageIndex()
        return self._index

    def _held(self, keys: Sequence[bytes], places: NDArray[np.int64], held: NDArray[np.intp]) -> Found:
        page = np.full(len(keys), -1, np.int64)
        slot = np.zeros(len(keys), np.int64)
        tier = np.full(len(keys), MISS, np.uint8)
        if not len(held):
            return Found([], page, slot, tier)
        numbers, rows = self._index.split(places[held])
        unique, first, inverse, counts = np.unique(numbers, return_index=True, return_inverse=True, return_counts=True)
        page[held], slot[held], tier[held] = inverse, rows, MEMORY
        pages = []
        for number, at, count in zip(unique.tolist(), held[first].tolist(), counts.tolist(), strict=True):
            self._index.pages.move_to_end(number)
            each = self._index.pages[number]
            pages.append(each)
            self._touched[keys[at]] += count
        return Found(pages, page, slot, tier)

    def _hold_all(self, pages: Sequence[Page]) -> None:
        with self._lock:
            for page in pages:
                self._hold(page)
        tidy()

    def _hold(self, page: Page) -> None:
        if self.memory_bytes <= PAGE_OVERHEAD:
            return
        # Provenance, and sources that are kept, are for who reads the file: a hit never needs them.
        bare, nbytes = _bare(page)
        n = len(page.keys)
        total = nbytes + PAGE_OVERHEAD + n * KEY_BYTES
        if not n or PAGE_OVERHEAD + total // n > self.memory_bytes:
            return
        if total <= self._most:
            parts = [bare]
        else:
            rows = max(1, n * self._most // total)
            parts = [take(bare, slice(start, start + rows)) for start in range(0, n, rows)]
        index = self._whole()
        for part in parts:
            if footprint(mine := owned(part)) <= self.memory_bytes:
                index.add(mine)
            while index.nbytes > self.memory_bytes:
                index.remove(next(iter(index.pages)))
                self._evicted += 1

    def _pass_on_uses(self) -> None:
        with self._lock:
            touched, self._touched = self._touched, Counter()
        if touched:
            self.inner.touch(list(touched), list(touched.values()))


def _bare(page: Page) -> tuple[Page, int]:
    """A page without provenance, and its bytes; of one package it has less of that than another page takes."""
    if len(page.keys) == 1 and page.alive is not None and page.src_ids is None and page.sources is None:
        return page, page.alive
    nbytes = page.keys.nbytes + sum([array.nbytes for array in page.arrays.values()])
    alive = nbytes if page.alive is not None and page.alive == page.nbytes else None  # no two columns share memory
    return Page(page.op, page.keys, page.arrays, page.cost_ns, alive=alive), nbytes


def _joined(held: Found, below: Found, missing: NDArray[np.intp]) -> Found:
    """Fill the gaps of `held` with what was found below."""
    page = held.page.copy()
    page[missing] = np.where(below.page >= 0, below.page + len(held.pages), -1)
    slot, tier = held.slot.copy(), held.tier.copy()
    slot[missing], tier[missing] = below.slot, below.tier
    return Found([*held.pages, *below.pages], page, slot, tier)
