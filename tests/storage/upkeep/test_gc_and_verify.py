"""Collection and verification: what is old goes, what is damaged is named, node versions are never touched."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.storage.samples import Model, assert_found, assert_state, database_of, key_of, page_of, sql, transaction
from whiteboard.errors import ParamError, ReadOnlyError
from whiteboard.records.systems import SystemRecord
from whiteboard.storage import Stores, open_store
from whiteboard.storage.cache import eviction
from whiteboard.storage.sql import rows
from whiteboard.storage.sqlite import recent_index
from whiteboard.storage.upkeep.gc import gc
from whiteboard.storage.upkeep.verify import verify


@pytest.fixture
def stores(path: Path) -> Iterator[Stores]:
    """A store of ten pages, each used at another time, and one system."""
    with open_store(path, memory_bytes=0) as stores:
        for page in range(10):
            stores.packages.put(page_of(range(100 * page, 100 * page + 100), size=64))
            stores.packages.flush()
        model = Model("a", 10)
        for _ in range(3):
            stores.versions.append(model.record, *model.step(), model.columns)
        yield stores


@pytest.fixture
def settled(stores: Stores) -> Stores:
    """The same, with a row in ``package`` for each package."""
    with transaction(stores.database) as connection:
        recent_index.settle(connection)
    return stores


def _age(path: Path) -> None:
    """Page i was last used 10 - i hours ago."""
    sql(path, f"UPDATE page_access SET last_use = {int(time.time())} - 3600 * (11 - page_id)")


def _kept(stores: Stores) -> list[int]:
    """The pages that still answer."""
    found = stores.packages.find([key_of(100 * page) for page in range(10)])
    return [page for page in range(10) if found.page[page] >= 0]


def test_the_pages_used_longest_ago_go_first(stores: Stores, path: Path) -> None:
    """Collection stops at the bound, takes the oldest, and gives the space back to the file system."""
    _age(path)
    database_of(stores).checkpoint()
    before, size = stores.database.live_bytes(), path.stat().st_size
    report = gc(stores.database, max_bytes=before * 6 // 10)
    assert report.bytes_before == before
    assert report.bytes_after <= before * 6 // 10
    assert report.evicted.packages == 100 * report.evicted.pages
    assert _kept(stores) == list(range(report.evicted.pages, 10))
    assert 3 <= report.evicted.pages <= 6
    assert path.stat().st_size < size * 8 // 10
    assert not Path(f"{path}-wal").stat().st_size
    assert database_of(stores).pragma("freelist_count") == 0
    assert verify(stores.database).ok


def test_a_dry_run_takes_nothing(stores: Stores, path: Path) -> None:
    """A dry run reports what would go and leaves everything."""
    _age(path)
    target = stores.database.live_bytes() // 2
    planned = gc(stores.database, max_bytes=target, dry_run=True)
    assert planned.dry_run
    assert _kept(stores) == list(range(10))
    done = gc(stores.database, max_bytes=target)
    assert (done.evicted.pages, done.evicted.packages) == (planned.evicted.pages, planned.evicted.packages)


def test_older_than(stores: Stores, path: Path) -> None:
    """Only pages that were not used for so long go, whatever the bound says."""
    _age(path)
    report = gc(stores.database, older_than=6.5 * 3600)
    assert report.evicted.pages == 4
    assert _kept(stores) == list(range(4, 10))
    assert gc(stores.database, max_bytes=0, older_than=6.5 * 3600).evicted.pages == 0


def test_a_use_that_is_dated_in_the_future_keeps_no_page_for_ever(stores: Stores, path: Path) -> None:
    """After a clock was set back, what is dated ahead of it counts as used now, and grows old from there."""
    _age(path)
    ahead = int(time.time()) + 400 * 24 * 3600
    sql(path, f"UPDATE page_access SET last_use = {ahead} WHERE page_id <= 3")
    target = stores.database.live_bytes() * 8 // 10
    planned = gc(stores.database, max_bytes=target, dry_run=True)
    assert gc(stores.database, older_than=60.0, max_bytes=target).evicted.pages == planned.evicted.pages
    assert {0, 1, 2, 8, 9} < set(_kept(stores))
    assert sql(path, "SELECT max(last_use) FROM page_access")[0][0] <= time.time()
    sql(path, f"UPDATE page_access SET last_use = {ahead} WHERE page_id > 7")
    with open_store(path) as other:
        other.packages.find([key_of(900)])
        other.packages.flush()
    assert sql(path, "SELECT last_use FROM page_access WHERE page_id = 10")[0][0] <= time.time()


def test_a_use_keeps_a_page(stores: Stores, path: Path) -> None:
    """A page that was read, from memory too, is no longer the oldest."""
    _age(path)
    with open_store(path) as other:
        other.packages.find([key_of(0)])
        other.packages.flush()
        _age(path)
        other.packages.find([key_of(1)])
    gc(stores.database, max_bytes=stores.database.live_bytes() * 7 // 10)
    assert 0 in _kept(stores)


def test_node_versions_are_never_evicted(stores: Stores) -> None:
    """With a bound of nothing, all packages go and every commit stays."""
    kept = [stores.versions.state("a", number) for number in range(3)]
    report = gc(stores.database, max_bytes=0)
    assert report.evicted.pages == 10
    assert _kept(stores) == []
    for state in kept:
        assert_state(stores.versions.state("a", state.commit.number), state.commit, state.columns)


def test_others_write_between_the_steps(stores: Stores, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eviction is several transactions: another writer's commit comes in between."""
    monkeypatch.setattr(eviction, "STEP_PAGES", 2)
    seen: list[int] = []

    def watched(connection: Any, ids: Any, reason: str) -> int:
        seen.append(len(ids))
        return rows.delete_pages(connection, ids, reason)

    monkeypatch.setattr(eviction, "delete_pages", watched)
    gc(stores.database, max_bytes=0)
    assert seen == [2] * 5


def test_a_bound_on_the_file(path: Path) -> None:
    """With max_bytes, the file stays under it however much is put; what is evicted is counted; commits stay."""
    model = Model("a", 50)
    with open_store(path, max_bytes=600_000, memory_bytes=0) as stores:
        for start in range(0, 3000, 50):
            stores.packages.put(page_of(range(start, start + 50), size=64))
            if start % 500 == 0:
                stores.versions.append(model.record, *model.step(), model.columns)
        stores.packages.flush()
        assert stores.database.live_bytes() <= 600_000
        assert path.stat().st_size <= 660_000
        stats = stores.packages.stats()
        assert stats["evicted_packages"] > 1000
        assert stats["evicted_packages"] + stats["packages"] == 3000
        assert stats["evicted_bytes"] > 1_000_000
        for commit, columns in model.kept:
            assert_state(stores.versions.state("a", commit.number), commit, columns)
        assert_found(stores.packages.find([key_of(2999)]), [2999], lambda _: True, size=64)
        assert verify(stores.database).ok


def test_what_left_is_counted_for_good(settled: Stores, path: Path) -> None:
    """Each eviction is in the store's totals by its reason, for whoever opens it later."""
    sql(path, "DELETE FROM package WHERE page_id = 3")
    sql(path, "UPDATE page SET data = zeroblob(length(data)) WHERE id = 2")
    verify(settled.database, repair=True)
    report = gc(settled.database, max_bytes=0)
    with open_store(path, readonly=True) as reader:
        evicted = reader.info()["evicted"]
    counted = {reason: (row["pages"], row["packages"]) for reason, row in evicted.items()}
    assert counted == {"damaged": (1, 100), "gc": (8, 800), "unreferenced": (1, 0)}
    assert report.evicted.packages == 800
    assert evicted["gc"]["nbytes"] == pytest.approx(report.evicted.nbytes, rel=0.5)
    with open_store(path, max_bytes=200_000) as bounded:
        for start in range(0, 1000, 50):
            bounded.packages.put(page_of(range(start, start + 50), size=64))
            bounded.packages.flush()
        stats, row = bounded.packages.stats(), bounded.info()["evicted"]["max_bytes"]
    assert (row["pages"], row["packages"]) == (stats["evicted_pages"], stats["evicted_packages"])


def test_pages_that_no_key_leads_to(settled: Stores, path: Path) -> None:
    """A page whose packages another page answers is dropped by a collection."""
    sql(path, "DELETE FROM package WHERE page_id = 3")
    report = gc(settled.database)
    assert report.unreferenced.pages == 1
    assert report.evicted.pages == 0
    assert sql(path, "SELECT count(*) FROM page WHERE id = 3") == [(0,)]


def test_a_whole_store_verifies(stores: Stores) -> None:
    """A store that nobody damaged is found whole, all of it and in samples."""
    report = verify(stores.database)
    assert report.ok
    assert (report.pages, report.packages) == (10, 1000)
    assert [(system.name, system.commits, system.last_whole) for system in report.systems] == [("a", 3, 2)]
    assert verify(stores.database, sample=0.3).pages == 3
    assert verify(stores.database, sample=0).pages == 0
    with pytest.raises(ParamError, match="between 0 and 1"):
        verify(stores.database, sample=2)


def test_damage_is_named_and_repaired(settled: Stores, path: Path) -> None:
    """Damaged pages and wrong index rows are named; repair drops just those, and they are computed again."""
    sql(path, "UPDATE page SET data = zeroblob(length(data)) WHERE id = 2")
    sql(path, "DELETE FROM page WHERE id = 5")
    sql(path, "UPDATE package SET slot = slot + 1 WHERE page_id = 7 AND slot >= 95")
    for repair in (False, True):
        report = verify(settled.database, repair=repair)
        assert [(page.page_id, page.op, page.packages) for page in report.damaged] == [(2, "mul", 100)]
        assert "digest" in report.damaged[0].why
        assert (report.dangling, report.misplaced, report.ok) == (100, 5, False)
    assert verify(settled.database).ok
    assert _kept(settled) == [0, 2, 3, 5, 6, 7, 8, 9]
    settled.packages.put(page_of([*range(100, 200), *range(400, 500)], size=64))
    settled.packages.flush()
    assert _kept(settled) == list(range(10))


def test_repair_drops_a_page_whose_keys_cannot_be_read(stores: Stores, path: Path) -> None:
    """Index rows of a damaged page go with it, and no others."""
    sql(path, "UPDATE page SET header = 'no header' WHERE id = 2")
    verify(stores.database, repair=True)
    assert sql(path, "SELECT count(*), count(DISTINCT page_id) FROM package") == [(900, 9)]


def test_damaged_commits_are_named_and_kept(stores: Stores, path: Path) -> None:
    """Repair changes no node version; the last commit that can be read is named, for forks as well."""
    stores.versions.fork(SystemRecord("b", "ub", None, ("a", 2)))
    model = Model("c", 10)
    stores.versions.append(model.record, *model.step(), model.columns)
    for _ in range(4):
        stores.versions.append(model.record, *model.step(slice(1)), model.columns)
    sql(path, "UPDATE node_page SET data = x'00' WHERE number = 1")
    before = sql(path, "SELECT * FROM node_page ORDER BY id")
    report = verify(stores.database, repair=True)
    assert not report.ok
    # Commits of "a" are keyframes each; those of "c" need all since the first.
    assert [(s.name, s.last_whole, [number for number, _ in s.damaged]) for s in report.systems] == [
        ("a", 2, [1]),
        ("b", 2, [1]),
        ("c", 0, [1]),
    ]
    assert sql(path, "SELECT * FROM node_page ORDER BY id") == before
    assert_state(stores.versions.state("c", 0), *model.kept[0])


def test_structure_that_sqlite_cannot_read(path: Path) -> None:
    """Damage in SQLite's own pages is reported, not raised."""
    with open_store(path) as stores:
        stores.packages.put(page_of(range(3000)))
    (root,) = sql(path, "SELECT rootpage FROM sqlite_master WHERE name = 'package'")[0]
    with path.open("r+b") as file:
        file.seek((root - 1) * 8192)
        file.write(b"\xff" * 8192)
    with open_store(path) as stores:
        report = verify(stores.database)
    assert not report.ok
    assert report.structure


def test_a_readonly_store(stores: Stores, path: Path) -> None:
    """A store opened for reading can be verified, and neither repaired nor collected."""
    stores.packages.flush()
    with open_store(path, readonly=True) as reader:
        assert verify(reader.database).ok
        with pytest.raises(ReadOnlyError):
            gc(reader.database, max_bytes=0)
    assert gc(stores.database).evicted.pages == 0


@pytest.mark.parametrize("others", ["same process", "another"])
def test_a_reader_that_stays_keeps_no_writer_waiting(stores: Stores, path: Path, others: str) -> None:
    """A collection beside an old read transaction (a shell, a stopped process) ends, and others write meanwhile."""
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM page").fetchall()
    stores.packages.put(page_of(range(2000, 2100), size=64))
    stores.packages.flush()
    with open_store(path) as other, ThreadPoolExecutor(1) as pool:
        collected = pool.submit(gc, (stores if others == "same process" else other).database, max_bytes=200_000)
        waits = []
        number = 3000
        while not collected.done():
            before = time.monotonic()
            stores.packages.put(page_of([number]))
            stores.packages.flush()
            waits.append(time.monotonic() - before)
            number += 1
        assert collected.result().evicted.pages > 0
    assert max(waits) < 20, "as long as the log was waited for"
    assert reader.execute("SELECT count(*) FROM page").fetchone() == (10,)
    reader.close()
    gc(stores.database)
    assert not Path(f"{path}-wal").stat().st_size
