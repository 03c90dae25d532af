"""The memory tier: its bound, its order of eviction, and what it tells the store below."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.storage.samples import assert_found, key_of, keys_of, page_of
from whiteboard.records.packages import DISK, MEMORY, MISS, Found, Page
from whiteboard.storage import open_store
from whiteboard.storage.base import PackageStore
from whiteboard.storage.cache.memory import MemoryTier
from whiteboard.storage.cache.page_index import footprint


class _Below(PackageStore):
    """A store that makes the page of any number below a limit, and notes what it is told."""

    def __init__(self, limit: int, size: int, rows: int) -> None:
        self.numbers = {key_of(number): number for number in range(limit)}
        self.size = size
        self.rows = rows
        self.touched: dict[bytes, int] = {}
        self.got: list[Page] = []

    def find(self, keys: Sequence[bytes]) -> Found:
        pages: list[Page] = []
        page, slot, tier = np.full(len(keys), -1), np.zeros(len(keys), np.int64), np.zeros(len(keys), np.uint8)
        at: dict[int, int] = {}
        for i, key in enumerate(keys):
            number = self.numbers.get(key)
            if number is not None:
                first = number // self.rows * self.rows
                if first not in at:
                    at[first] = len(pages)
                    pages.append(page_of(range(first, first + self.rows), self.size))
                page[i], slot[i], tier[i] = at[first], number - first, DISK
        return Found(pages, page, slot, tier)

    def put(self, page: Page) -> None:
        self.got.append(page)

    def touch(self, keys: Sequence[bytes], counts: Sequence[int]) -> None:
        self.touched.update(zip(keys, counts, strict=True))

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def stats(self) -> dict[str, float]:
        return {"corrupt": 0}


def test_a_batch_over_both_tiers() -> None:
    """One batch with keys in memory, below and nowhere has each answer and each tier in its place."""
    tier = MemoryTier(_Below(40, 8, 10), 2**20)
    tier.find(keys_of(range(10)))
    numbers = [50, 3, 25, 3, 39, 9, 41, 20]
    found = tier.find(keys_of(numbers))
    assert_found(found, numbers, lambda i: i < 40)
    assert found.tier.tolist() == [MISS, MEMORY, DISK, MEMORY, DISK, MEMORY, MISS, DISK]
    assert set(tier.find(keys_of(range(20, 40))).tier.tolist()) == {MEMORY}


def test_the_page_used_longest_ago_goes_first() -> None:
    """A full tier lets go of the page that was not asked for the longest."""
    tier = MemoryTier(_Below(1000, 8, 10), 8 * footprint(page_of(range(10))))
    for start in range(0, 80, 10):
        tier.find(keys_of([start]))
    tier.find(keys_of([0]))
    tier.find(keys_of([80]))
    assert tier.find(keys_of([0, *range(20, 90, 10)])).tier.tolist() == [MEMORY] * 8
    assert tier.find(keys_of([10])).tier.tolist() == [DISK]
    assert tier.stats()["evicted_memory"] == 2


@pytest.mark.parametrize(
    ("size", "rows", "count"), [(1, 50, 12_000), (64, 256, 12_000), (4096, 4, 1_200), (8, 1, 6_000)]
)
def test_resident_bytes_hold_the_bound(size: int, rows: int, count: int) -> None:
    """Whatever is read, the memory that the tier keeps is at most 1.2 times its bound, small packages too."""
    bound = 2**20
    below = _Below(0, size, rows)
    tier = MemoryTier(below, bound)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for start in range(0, count, rows):
        numbers = range(start, start + rows)
        below.numbers = {key_of(number): number for number in numbers}
        tier.find(list(below.numbers)[: max(1, rows // 2)])
        below.numbers = {}
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    held = tier.stats()["bytes_memory"]
    assert tier.stats()["evicted_memory"] > 0
    assert held <= bound
    assert after - before <= 1.2 * bound
    assert held <= 1.5 * (after - before), "the tier counts much more than it keeps"


def test_a_page_larger_than_the_tier() -> None:
    """A page that does not fit is held in parts, as far as they fit; nothing of it is kept alive besides."""
    tier = MemoryTier(_Below(0, 8, 1), 200_000)
    page = page_of(range(2000))
    assert footprint(page) > 200_000
    tier.put(page)
    found = tier.find(keys_of(range(2000)))
    assert_found(found, range(2000), lambda i: i > 1900)
    held = found.pages[found.page[1999]]
    assert held.arrays["y"].base is None
    assert held.n < 2000


def test_no_bytes_hold_nothing() -> None:
    """With a bound of 0, every answer comes from below."""
    tier = MemoryTier(_Below(10, 8, 10), 0)
    for _ in range(2):
        assert tier.find(keys_of(range(10))).tier.tolist() == [DISK] * 10
    assert tier.stats()["bytes_memory"] == 0


def test_uses_are_passed_on() -> None:
    """What was hit in memory is told to the store below at a flush, once."""
    below = _Below(100, 8, 10)
    tier = MemoryTier(below, 2**20)
    tier.find(keys_of(range(20)))
    tier.find(keys_of([1, 2, 3, 15]))
    tier.find(keys_of([1]))
    tier.flush()
    assert sum(below.touched.values()) == 5
    assert {below.numbers[key] // 10 for key in below.touched} == {0, 1}
    below.touched.clear()
    tier.flush()
    assert below.touched == {}


def test_never_persist(tmp_path: Path) -> None:
    """With persist="never" packages stay in memory, while what is in the file already is found."""
    path = tmp_path / "a.db"
    with open_store(path) as stores:
        stores.packages.put(page_of([1]))
    with open_store(path, persist="never") as stores:
        stores.packages.put(page_of([2]))
        assert_found(stores.packages.find(keys_of([1, 2])), [1, 2], lambda _: True)
    with open_store(path) as stores:
        assert_found(stores.packages.find(keys_of([1, 2])), [1, 2], lambda i: i == 1)


def test_auto_persist(tmp_path: Path) -> None:
    """With persist="auto" the figures of each op and shape are in `info`, and decide what goes to disk."""
    path = tmp_path / "a.db"
    with open_store(path, persist="auto") as stores:
        for start in (0, 10):
            stores.packages.put(page_of(range(start, start + 10), cost_ns=1))
            stores.packages.flush()
        assert_found(stores.packages.find(keys_of(range(20))), range(20), lambda _: True)
        (figures,) = stores.info()["admission"]
        assert (figures["op"], figures["kept"], figures["refused"]) == ("mul", 10, 10)
    with open_store(path) as stores:
        assert_found(stores.packages.find(keys_of(range(20))), range(20), lambda i: i < 10)
        assert stores.info()["admission"] == []
