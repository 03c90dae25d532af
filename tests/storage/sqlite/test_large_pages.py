"""Large pages on their way into the log: each byte goes there once, and the cache is whole when others need it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.storage.samples import packages_at, sql
from whiteboard.concurrency import parallel
from whiteboard.records.packages import DISK, MISS, Page
from whiteboard.storage.cache.packages import SqlitePackages
from whiteboard.storage.sql import rows
from whiteboard.storage.sql.backend import Connection
from whiteboard.storage.sql.page_row import PageRow
from whiteboard.storage.sqlite import recent_index
from whiteboard.storage.sqlite import rows as sqlite_rows
from whiteboard.storage.sqlite.database import Database
from whiteboard.storage.sqlite.location import wal_bytes

RNG = np.random.default_rng(0)


def page(nbytes: int) -> Page:
    """A page of one package of so many bytes."""
    key = RNG.integers(0, 256, (1, 16), dtype=np.uint8)
    return Page("f", key, {"y": (y := RNG.normal(size=(1, nbytes // 16))), "g0": -y}, 1000)


def cache_kib(store: SqlitePackages) -> int:
    """What SQLite's cache of the writer may have."""
    assert isinstance(store.database, Database)
    return -int(store.database.pragma("cache_size"))


@pytest.mark.parametrize("sizes", [[24 * 2**20], [8 * 2**20] * 3, [400_000] * 60, [100_000, 5_000_000, 70_000, 10**6]])
def test_nothing_is_written_twice(tmp_path: Path, sizes: list[int]) -> None:
    """The log is as long as what was put, whatever SQLite has no room for meanwhile, and holds it."""
    store = packages_at(tmp_path / "a.db")
    pages = [page(size) for size in sizes]
    for each in pages:
        store._pending.add(each)
    before = wal_bytes(tmp_path / "a.db")
    store.flush()
    assert wal_bytes(tmp_path / "a.db") - before < 1.03 * sum(sizes) + 400_000
    found = store.find([each.keys.tobytes() for each in pages])
    assert found.tier.tolist() == [DISK] * len(pages)
    for each, number in zip(pages, found.page.tolist(), strict=True):
        assert found.pages[number].arrays["g0"].tobytes() == each.arrays["g0"].tobytes()
    store.close()
    assert sql(tmp_path / "a.db", "PRAGMA integrity_check") == [("ok",)]


def test_the_index_has_the_whole_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a large page is written the cache is small, and what follows in the transaction has all of it."""
    store = packages_at(tmp_path / "a.db")
    whole, seen = cache_kib(store), []
    settle = recent_index.settle_if_many

    def settled(connection: Connection) -> None:
        seen.append(cache_kib(store))
        settle(connection)

    monkeypatch.setattr(recent_index, "settle_if_many", settled)
    store.put(page(400_000))
    store.flush()
    assert seen == [whole]
    store.close()


@pytest.mark.parametrize(("nbytes", "kib"), [(400_000, 1470), (24 * 2**20, 29110), (64 * 2**20, 32768)])
def test_the_cache_holds_one_page(tmp_path: Path, nbytes: int, kib: int) -> None:
    """While a page is written the cache has room for it and little more, and never more than it may have."""
    store = packages_at(tmp_path / "a.db")
    seen: list[int] = []

    def work(connection: Connection) -> None:
        rows.insert_page(connection, PageRow.of(page(nbytes)))
        seen.append(cache_kib(store))

    store.database.write(work)
    store.database.write(lambda _: seen.append(cache_kib(store)))
    assert seen == [pytest.approx(kib, abs=2), 32768]
    store.close()


@pytest.mark.parametrize(
    ("nbytes", "smooth", "apart"),
    [(600_000, False, 0), (600_000, True, 5), (6_000_000, False, 6), (6_000_000, True, 6)],
)
def test_who_encodes(tmp_path: Path, nbytes: int, smooth: bool, apart: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that stay raw are encoded by who flushes; once one came out smaller, and large ones, by threads."""
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    store = packages_at(tmp_path / "a.db")
    for each in (page(nbytes) for _ in range(6)):
        if smooth:
            for array in each.arrays.values():
                array[:] = np.linspace(0, RNG.random(), array.shape[1])
        store._pending.add(each)
    encode, mine = PageRow.of, []

    def encoded(each: Page, *, bits: int) -> PageRow:
        mine.append(threading.current_thread() is threading.main_thread())
        return encode(each, bits=bits)

    monkeypatch.setattr(PageRow, "of", encoded)
    store.flush()
    assert mine.count(False) == apart
    assert len(mine) == 6
    store.close()


def test_what_follows_is_encoded_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error between two parts of a flush leaves no thread, and all of it is written the next time."""
    store = packages_at(tmp_path / "a.db")
    pages = [page(6_000_000) for _ in range(10)]
    for each in pages:
        store._pending.add(each)
    write, threads = store.database.write, threading.active_count()

    def interrupted(*given: object, **options: object) -> object:
        if cache_kib(store) and sql(tmp_path / "a.db", "SELECT count(*) FROM page") != [(0,)]:
            raise KeyboardInterrupt
        return write(*given, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(store.database, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.flush()
    assert threading.active_count() == threads
    store.flush()
    assert sql(tmp_path / "a.db", "SELECT count(*) FROM page") == [(10,)]
    assert store.find([each.keys.tobytes() for each in pages]).tier.tolist() == [DISK] * 10
    store.close()


@pytest.mark.parametrize(("count", "kib"), [(1, 2048), (4, 256)])
def test_who_reads_much_keeps_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, kib: int) -> None:
    """While many bytes are read at once the reader's cache is small; who reads next has all of it."""
    store = packages_at(tmp_path / "a.db")
    pages = [page(400_000) for _ in range(count)]
    for each in pages:
        store.put(each)
    store.flush()
    seen: list[int] = []
    landed = sqlite_rows._landed

    def watched(connection: Connection, *given: Any) -> Any:
        seen.append(-connection.connection.execute("PRAGMA cache_size").fetchone()[0])
        return landed(connection, *given)

    monkeypatch.setattr(sqlite_rows, "_landed", watched)
    found = store.find([each.keys.tobytes() for each in [*pages, page(16)]])
    assert found.tier.tolist() == [DISK] * count + [MISS]
    assert seen == [kib] * count
    with store.database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA cache_size").scalar_one() == -2048
    store.close()
