"""Packages in SQLite: write-behind, collisions, damage that a recomputed package replaces, admission."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.storage.samples import assert_found, key_of, keys_of, packages_at, page_of, sql, transaction
from whiteboard.errors import StoreError
from whiteboard.records.packages import DISK, MEMORY, Page
from whiteboard.storage.cache.admission import Admission
from whiteboard.storage.cache.packages import SqlitePackages
from whiteboard.storage.cache.write_behind import WriteBehind
from whiteboard.storage.page import format, grouping
from whiteboard.storage.sql.location import locate
from whiteboard.storage.sqlite import recent_index, schema
from whiteboard.storage.sqlite.database import Database
from whiteboard.storage.sqlite.rows import COUNT_PACKAGES


@pytest.fixture
def store(path: Path) -> Iterator[SqlitePackages]:
    store = packages_at(path)
    yield store
    store.close()


def _put_each(store: SqlitePackages, n: int) -> None:
    for number in range(n):
        store.put(page_of([number]))


def _on_disk(path: Path) -> int:
    ((n,),) = sql(path, COUNT_PACKAGES)
    return int(n)


def test_tiers(store: SqlitePackages) -> None:
    """What is pending is found in memory, what was flushed on disk, in one batch."""
    store.put(page_of(range(5)))
    store.flush()
    store.put(page_of(range(5, 8)))
    assert store.find(keys_of(range(8))).tier.tolist() == [DISK] * 5 + [MEMORY] * 3


@pytest.mark.parametrize(
    "bounds", [WriteBehind(rows=100, seconds=600), WriteBehind(nbytes=60_000, seconds=600)], ids=["rows", "bytes"]
)
def test_bounds_on_what_is_pending(path: Path, bounds: WriteBehind) -> None:
    """At so many packages, or so many bytes, the put that reaches the bound writes all."""
    store = packages_at(path, bounds)
    most = 0
    for start in range(0, 1000, 20):
        store.put(page_of(range(start, start + 20)))
        most = max(most, int(store.stats()["bytes_pending"]))
    assert _on_disk(path) >= 800
    assert most < 60_000
    store.close()
    assert _on_disk(path) == 1000


def test_a_bound_in_seconds(path: Path) -> None:
    """Packages reach the disk some seconds after they were put, though nothing else is put."""
    store = packages_at(path, WriteBehind(seconds=0.05))
    store.put(page_of(range(3)))
    for _ in range(200):
        if _on_disk(path):
            break
        time.sleep(0.02)
    assert _on_disk(path) == 3
    store.close()


def test_many_small_pages_become_few(store: SqlitePackages, path: Path) -> None:
    """Pending pages of one signature are written as one, others apart."""
    for number in range(300):
        store.put(page_of([number], size=4 if number % 2 else 8))
    store.flush()
    assert store.stats()["pages"] == 2
    assert_found(store.find(keys_of(range(0, 300, 2))), range(0, 300, 2), lambda _: True)
    assert_found(store.find(keys_of(range(1, 300, 2))), range(1, 300, 2), lambda _: True, size=4)


def test_what_is_stored_is_not_stored_again(path: Path) -> None:
    """Two stores that computed the same packages write them once."""
    first, second = packages_at(path), packages_at(path)
    first.put(page_of(range(100)))
    second.put(page_of(range(50, 150)))
    first.flush()
    second.flush()
    stats = second.stats()
    assert (stats["packages"], stats["pages"]) == (150, 2)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT sum(n) FROM page").fetchone() == (150,)
    connection.close()
    first.close()
    second.close()


def test_large_batches(store: SqlitePackages) -> None:
    """Batches longer than SQL's lists, with every third key known, answer each key in its place."""
    store.put(page_of(range(0, 6000, 3), size=2))
    store.flush()
    assert_found(store.find(keys_of(range(6000))), range(6000), lambda i: i % 3 == 0, size=2)


def test_collisions_are_counted_misses(path: Path) -> None:
    """Where two keys have one hash, the first has its package and the second is a miss that is counted."""
    store = packages_at(path, hash_bits=4)
    for number in range(64):
        store.put(page_of([number]))
        store.flush()
    held = store.stats()["packages"]
    assert held <= 16
    found = store.find(keys_of(range(64)))
    assert (found.page >= 0).sum() == held
    for i in np.flatnonzero(found.page >= 0).tolist():
        assert found.pages[found.page[i]].keys[found.slot[i]].tobytes() == key_of(i)
    assert store.stats()["collisions"] == 64 - held
    assert store.stats()["corrupt"] == 0
    store.close()


DAMAGE = {
    "data": "UPDATE page SET data = zeroblob(length(data))",
    "four bytes": "UPDATE page SET data = substr(data, 1, 99) || zeroblob(4) || substr(data, 104)",
    "short": "UPDATE page SET data = substr(data, 2)",
    "header": "UPDATE page SET header = x'7b7d'",
    "digest": "UPDATE page SET digest = zeroblob(16)",
    "types": "UPDATE page SET data = 'text', header = 'text'",
    "no page": "DELETE FROM page",
    "slot": "UPDATE package SET slot = slot + 1",
    "slot outside": "UPDATE package SET slot = 10000",
    "slot < 0": "UPDATE package SET slot = -1",
    "slot is text": "UPDATE package SET slot = 'x'",
    "another page": "UPDATE package SET page_id = page_id + 1000",
    "recent: other hashes": "UPDATE recent SET hashes = zeroblob(length(hashes))",
    "recent: half a hash": "UPDATE recent SET hashes = substr(hashes, 5)",
    "recent: hashes out of order": "UPDATE recent SET hashes = CAST(substr(hashes, 9) || substr(hashes, 1, 8) AS BLOB)",
    "recent: text": "UPDATE recent SET hashes = 'text'",
    "recent: another page": "UPDATE recent SET page_id = page_id + 1000",
    "gathered: other hashes": "UPDATE gathered SET hashes = zeroblob(length(hashes))",
    "gathered: text": "UPDATE gathered SET hashes = 'text'",
    "gathered: other places": "UPDATE gathered SET places = zeroblob(length(places))",
}


@pytest.mark.parametrize("statement", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_a_miss_and_is_replaced(path: Path, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged page or index row is a miss; the package that is computed again takes its place."""
    store = packages_at(path)
    store.put(page_of(range(20)))
    store.flush()
    if "UPDATE package" in statement:
        with transaction(store.database) as connection:
            recent_index.settle(connection)
    if "gathered" in statement:
        monkeypatch.setattr(recent_index, "_due", lambda *_: [])
        with transaction(store.database) as connection:
            recent_index.move_on(connection)
    store.close()
    sql(path, statement)
    store = packages_at(path)
    found = store.find(keys_of(range(20)))
    assert (found.page == -1).all()
    # Hashes that are gone lead to nothing that could be seen to be wrong.
    lost = "SET hashes" in statement and statement != DAMAGE["recent: hashes out of order"]
    assert (store.stats()["corrupt"] >= 1) is not lost
    store.put(page_of(range(20)))
    store.close()
    store = packages_at(path)
    assert_found(store.find(keys_of(range(20))), range(20), lambda _: True)
    assert store.stats()["corrupt"] == 0
    store.close()


def test_pages_that_changed_places(path: Path) -> None:
    """Two pages exchanged whole, each with a digest that fits, are misses: the key in the page is another."""
    store = packages_at(path)
    store.put(page_of(range(10), size=4))
    store.put(page_of(range(10, 20), size=8))
    store.close()
    sql(path, "UPDATE page SET id = -id")
    sql(path, "UPDATE page SET id = 3 + id")
    store = packages_at(path)
    assert (store.find(keys_of(range(20))).page == -1).all()
    assert store.stats()["corrupt"] == 20
    store.close()


def test_packages_that_are_too_large(store: SqlitePackages, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package beyond SQLite's limit is not stored; it is counted and told once, and no error for who put it."""
    monkeypatch.setattr(grouping, "MOST_BYTES", 1000)
    with pytest.warns(RuntimeWarning, match=r"op 'mul'.*larger than 64 GB"):
        store.put(page_of([1], size=100))
    store.put(page_of([2], size=10))
    assert store.stats()["oversized"] == 1
    assert_found(store.find(keys_of(range(1, 3))), range(1, 3), lambda i: i == 2, size=10)


def test_sources_that_are_too_large_are_left_out(store: SqlitePackages, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that could not be stored with its sources is stored without them."""
    monkeypatch.setattr(grouping, "MOST_BYTES", 1000)
    page = page_of([1], size=30)
    store.put(replace(page, sources=(page.arrays["y"], page.arrays["g0"])))
    store.flush()
    assert store.stats()["oversized"] == 0
    assert_found(store.find([key_of(1)]), [1], lambda _: True, size=30)


def test_a_flush_that_nobody_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses, put goes on, what it cannot keep is counted, and flush says why."""
    store = packages_at(path, WriteBehind(nbytes=20_000))

    def refuse(*_: object, **__: object) -> None:
        message = "no room"
        raise StoreError(message)

    with monkeypatch.context() as patch:
        patch.setattr(store.database, "write", refuse)
        with pytest.warns(RuntimeWarning, match="kept in memory, as they cannot be written: no room"):
            _put_each(store, 400)
        with pytest.raises(StoreError, match="no room"):
            store.flush()
    stats = store.stats()
    assert stats["bytes_pending"] < 3 * 20_000
    assert stats["puts"] + stats["dropped"] == 400
    kept = int(stats["puts"])
    store.flush()
    assert _on_disk(path) == kept
    assert_found(store.find(keys_of(range(400))), range(400), lambda i: i < kept)
    store.close()


def test_uses_are_counted_in_bulk(store: SqlitePackages, path: Path) -> None:
    """Hits, here and in a tier above, reach the access counts with the next flush."""
    store.put(page_of(range(10)))
    store.flush()
    store.find(keys_of(range(4)))
    store.touch([key_of(9), key_of(77)], [5, 1])
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT hits FROM page_access").fetchall() == [(0,)]
        store.flush()
        assert connection.execute("SELECT hits FROM page_access").fetchall() == [(9,)]
    connection.close()


def test_admission_by_cost(path: Path) -> None:
    """With admission, packages cheaper to compute than to load stay off the disk, once both costs are known."""
    admission = Admission()
    database = Database(locate(path))
    schema.ensure(database)
    store = SqlitePackages(database, admission=admission)
    store.put(page_of(range(10), op="cheap", cost_ns=1))
    store.put(page_of(range(10, 20), op="dear", cost_ns=10**9))
    store.put(page_of(range(20, 30), op="unknown", cost_ns=0))
    store.flush()
    assert _on_disk(path) == 30, "until loading was measured, all is kept"
    store.put(page_of(range(30, 40), op="cheap", cost_ns=1))
    store.put(page_of(range(40, 50), op="dear", cost_ns=10**9))
    store.put(page_of(range(50, 60), op="unknown", cost_ns=0))
    store.flush()
    assert_found(store.find(keys_of(range(60))), range(60), lambda i: not 30 <= i < 40)
    assert store.stats()["refused"] == 10
    figures = {entry["op"]: entry for entry in admission.info()}
    assert [figures[op]["refused"] for op in ("cheap", "dear", "unknown")] == [10, 0, 0]
    assert all(entry["load_ns"] > 0 for entry in figures.values())
    assert figures["dear"]["compute_ns"] == 1e9
    assert figures["cheap"]["arrays"] == {"y": "<f8[8]", "g0": "<f8[8]", "g1": "<f8[8]"}
    store.close()


def test_the_same_key_twice_in_a_page(store: SqlitePackages) -> None:
    """A page may name a key twice, as a bin with equal jobs does; one of the equal rows answers."""
    page = page_of([1, 2, 1])
    store.put(page)
    for _ in range(2):
        assert_found(store.find(keys_of(range(1, 3))), range(1, 3), lambda _: True)
        store.flush()


def test_provenance_is_stored(store: SqlitePackages, path: Path) -> None:
    """Source ids and versions are in the file for audits, though no hit decodes them."""
    store.put(page_of(range(3)))
    store.flush()
    assert store.find([key_of(1)]).pages[0].src_ids is None
    with sqlite3.connect(path) as connection:
        row = connection.execute("SELECT header, digest, data FROM page").fetchone()
    connection.close()
    back = format.decode_page(format.Blob(*row), provenance=True)
    np.testing.assert_array_equal(back.src_ids, np.arange(3)[:, None])


def test_a_page_without_packages_of_its_own(store: SqlitePackages) -> None:
    """A page whose every key is pending already adds nothing."""
    store.put(page_of([1, 2]))
    store.put(page_of([2, 1]))
    store.put(Page("op", np.zeros((0, 16), np.uint8), {"y": np.zeros((0, 3))}))
    store.flush()
    assert (store.stats()["packages"], store.stats()["pages"]) == (2, 1)
