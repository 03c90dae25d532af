"""Rows of pages: merging and cutting keep every package, with all that lies beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.samples import key_of, page_of, value_of
from whiteboard.records.packages import Page
from whiteboard.storage import open_store
from whiteboard.storage.page.grouping import alive_bytes, cuts, merged, owned, row_bytes, take


def with_sources(page: Page) -> Page:
    """A page that keeps its sources, and a cotangent."""
    y = page.arrays["y"]
    return replace(page, sources=(y + 1, y * 3, y[:, :1].copy()))


@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from([4, 8]), st.sampled_from(["a", "b"])), max_size=12),
    st.sampled_from([300, 2048, 512 * 7, 512 * 1024]),
)
def test_merging_keeps_every_package(parts: list[tuple[int, int, str]], nbytes: int) -> None:
    """Merged pages hold exactly the packages and the cost that went in, in pages of one signature and bounded size."""
    put, first = [], 0
    for n, size, op in parts:
        put.append(page_of(range(first, first + n), size, op))
        first += n
    got = list(merged(put, nbytes))
    assert sum(page.cost_ns for page in got) == sum(page.cost_ns for page in put)
    seen = {}
    for page in got:
        assert 1 <= page.n <= 1.5 * max(1, nbytes // 512)
        for row in range(page.n):
            seen[page.keys[row].tobytes()] = (page.op, page.arrays["y"][row].tobytes())
            assert page.src_ids is not None
            assert key_of(int(page.src_ids[row, 0])) == page.keys[row].tobytes()
    numbers = iter(range(first))
    wanted = {}
    for n, size, op in parts:
        for number in [next(numbers) for _ in range(n)]:
            wanted[key_of(number)] = (op, value_of(number, size).tobytes())
    assert seen == wanted


@given(st.integers(0, 5000), st.integers(1, 700))
def test_what_was_cut_stays_as_it_is(n: int, limit: int) -> None:
    """Rows are cut into parts that are neither cut nor joined again, or not at all where they are few."""
    edges = cuts(n, limit)
    parts = np.diff(edges).tolist()
    assert (edges == []) == (2 * n <= limit)
    assert not parts or (edges[0], sum(parts)) == (0, n)
    assert all(cuts(part, limit) == [0, part] for part in parts)


def test_owned_pages_keep_no_larger_buffer() -> None:
    """A page that is cut from a larger one is copied, one that is whole is not; both become read-only."""
    page = page_of(range(100))
    assert owned(page).arrays["y"] is page.arrays["y"]
    part = owned(take(page, slice(10, 20)))
    for array in (part.keys, *part.arrays.values()):
        assert array.base is None
        assert not array.flags.writeable
    assert part.cost_ns == 10 * 1000
    column = Page("op", page.keys, {"y": np.zeros((5, 100)).T})
    assert owned(column).arrays["y"].flags.c_contiguous


@pytest.mark.parametrize("width", [1000, 300_000])
def test_what_was_read_is_not_copied(tmp_path: Path, width: int) -> None:
    """A page that is held shares what it was read into, which it cannot write, and says how much memory that is."""
    with open_store(tmp_path / "a.db") as stores:
        page = Page("f", np.arange(16, dtype="u1")[None], {"y": np.random.default_rng(0).normal(size=(1, width))}, 1)
        stores.packages.put(page)
    with open_store(tmp_path / "a.db", memory_bytes=0) as stores:
        read = stores.packages.find([page.keys.tobytes()]).pages[0]
    mine = owned(read)
    assert np.shares_memory(mine.arrays["y"], read.arrays["y"])
    assert 8 * width <= alive_bytes(mine) <= 1.1 * 8 * width
    y = take(read, slice(0, 1)).arrays["y"]
    assert not owned(Page("f", read.keys, {"y": y[:, : width // 2]}, 1)).arrays["y"].flags.writeable
    assert not np.shares_memory(owned(Page("f", read.keys, {"y": y[:, : width // 2]}, 1)).arrays["y"], y)


def test_sources_go_with_their_packages() -> None:
    """Joined, cut and taken, a package keeps its sources; with those that have none it is not joined."""
    parts = [page_of(range(first, first + 40), 64) for first in range(0, 200, 40)]
    pages = list(merged([*map(with_sources, parts), page_of(range(200, 240), 64)], 64 * 1024))
    assert sum(page.n for page in pages) == 240
    assert {page.sources is None for page in pages} == {True, False}
    for page in pages:
        if page.sources is None:
            assert page.keys[0].tobytes() == key_of(200)
            continue
        y = page.arrays["y"]
        for got, wanted in zip(page.sources, (y + 1, y * 3, y[:, :1]), strict=True):
            np.testing.assert_array_equal(got, wanted)
        assert row_bytes(page) > row_bytes(page_of([1], 64)) * 1.5


def test_owned_sources_are_nobody_elses() -> None:
    """Sources that are a part of something larger are copied, and none can be written."""
    large = np.zeros((100, 8))
    page = replace(page_of(range(10)), sources=(large[:10],))
    (kept,) = owned(page).sources or ()
    assert (kept.base, kept.flags.writeable) == (None, False)
