"""Lookups of many keys: the way by pages finds what the way by index rows finds, whatever is missing or damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.storage.samples import assert_found, key_of, packages_at, page_of, transaction
from whiteboard.storage.cache import lookup
from whiteboard.storage.cache.packages import SqlitePackages
from whiteboard.storage.sql.rows import find


def _store(path: Path, sizes: list[int], bits: int) -> SqlitePackages:
    store = packages_at(path, hash_bits=bits)
    first = 0
    for size in sizes:
        store.put(page_of(range(first, first + size)))
        store.flush()
        first += size
    return store


@settings(max_examples=40)
@example(sizes=[1, 18], numbers=[0, 0, 0, 19, 19, 19, 19, 22], bits=9, sampled=(8, 2), damaged=[])
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.lists(st.integers(0, 300), min_size=1, max_size=200),
    st.sampled_from([63, 9]),
    st.sampled_from([(8, 2), (64, 16), (10_000, 1)]),
    st.lists(st.integers(1, 8), max_size=2),
)
def test_both_ways_agree(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    numbers: list[int],
    bits: int,
    sampled: tuple[int, int],
    damaged: list[int],
) -> None:
    """Keys in any order, twice, missing, of one hash, in damaged pages: answers are right, and what can be is found."""
    path = tmp_path_factory.mktemp("reading") / "a.db"
    store = _store(path, sizes, bits)
    with transaction(store.database) as connection:
        for page_id in damaged:
            connection.exec_driver_sql("UPDATE page SET data = x'00' WHERE id = ?", (page_id,))
    keys = [key_of(number) for number in numbers]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "_SAMPLED", 10_000)
        by_index = store.find(keys)
        patch.setattr(lookup, "_SAMPLED", sampled[0])
        patch.setattr(lookup, "_SAMPLE", sampled[1])
        found = store.find(keys)
    assert_found(found, numbers, lambda _: False)
    assert (found.page >= 0)[by_index.page >= 0].all()
    if bits == 63:
        assert ((found.page >= 0) == (by_index.page >= 0)).all()
    if bits == 63 and not damaged:
        assert_found(found, numbers, lambda number: number < sum(sizes))
    store.close()


def test_many_keys_are_found_by_their_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of keys that were computed together, a sample alone is looked up in the index; each page is read once."""
    store = _store(tmp_path / "a.db", [500] * 6, 63)
    asked: list[int] = []
    read: list[int] = []

    def counted(connection: Any, hashes: Any, seen: Any) -> Any:
        asked.append(len(hashes))
        index, new, pages = find(connection, hashes, seen)
        read.extend(new)
        return index, new, pages

    monkeypatch.setattr("whiteboard.storage.cache.lookup.find", counted)
    assert_found(store.find([key_of(i) for i in range(3000)]), range(3000), lambda _: True)
    assert sum(asked) < 1000
    assert sorted(read) == list(range(1, 7))
    store.close()
