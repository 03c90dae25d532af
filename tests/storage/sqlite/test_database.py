"""Connections: their pragmas, the lock file, a full disk, forks, and what is written when."""

from __future__ import annotations

import errno
import random
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.storage.samples import (
    Model,
    assert_found,
    assert_state,
    database_of,
    key_of,
    page_of,
    run_python,
    transaction,
)
from whiteboard.errors import ClosedError, ReadOnlyError, StoreError, UnknownCommitError, UnknownSystemError
from whiteboard.records.packages import DISK, Page
from whiteboard.storage import Stores, open_store
from whiteboard.storage.base import Durability
from whiteboard.storage.cache.memory import MemoryTier
from whiteboard.storage.cache.packages import SqlitePackages
from whiteboard.storage.sqlite import database, holders, pool, wal
from whiteboard.storage.sqlite.write_queue import WriteLock
from whiteboard.storage.upkeep.verify import verify


def test_pragmas(stores: Stores) -> None:
    """The connection is set up as the design says."""
    expected = {
        "application_id": 0x57424F44,
        "user_version": 3,
        "busy_timeout": 60_000,
        "page_size": 8192,
        "auto_vacuum": 2,
        "journal_mode": "wal",
        "synchronous": 1,
        "wal_autocheckpoint": 0,
        "journal_size_limit": 64 * 2**20,
        "secure_delete": 0,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "foreign_keys": 1,
    }
    assert {name: database_of(stores).pragma(name) for name in expected} == expected


@pytest.mark.parametrize(("durability", "level"), [("normal", 1), ("full", 2)])
def test_durability(tmp_path: Path, durability: Durability, level: int) -> None:
    """Only commits are synced to the disk, and only when asked; packages never are."""
    model = Model("a", 3)
    with open_store(tmp_path / "a.db", durability=durability) as stores:
        stores.versions.append(model.record, *model.step(), model.columns)
        assert database_of(stores).pragma("synchronous") == level
        stores.packages.put(page_of([1]))
        stores.packages.flush()
        assert database_of(stores).pragma("synchronous") == 1


def test_readers_do_not_wait_for_a_writer(stores: Stores) -> None:
    """A write transaction that is open keeps nobody from reading what was there before it."""
    stores.packages.put(page_of([1]))
    stores.packages.flush()
    with transaction(stores.database) as connection:
        connection.exec_driver_sql("DELETE FROM page")
        with stores.database.read() as reader:
            assert reader.exec_driver_sql("SELECT count(*) FROM page").scalar() == 1
        connection.connection.rollback()


def test_no_read_transaction_stays_open(stores: Stores) -> None:
    """After reads have returned, the log can be cut to nothing: nobody holds it."""
    stores.packages.put(page_of(range(50)))
    stores.packages.flush()
    assert_found(stores.packages.find([key_of(i) for i in range(50)]), range(50), lambda _: True)
    stores.versions.systems()
    database_of(stores).checkpoint()
    assert Path(f"{stores.path}-wal").stat().st_size == 0


def test_a_reader_that_has_opened_many_blobs_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver keeps a little of each until then: whoever asks for one key after another takes no more memory."""
    monkeypatch.setattr(pool, "_MOST_BLOBS", 7)
    keys = [key_of(i) for i in range(50)]
    with open_store(tmp_path / "a.db", memory_bytes=0) as stores:
        stores.packages.put(
            Page(
                "f",
                np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16),
                {"y": np.random.default_rng(0).normal(size=(50, 999))},
            )
        )
        stores.packages.flush()
        made = database_of(stores)._pool._made
        for key in keys:
            assert stores.packages.find([key]).tier[0] == DISK
        assert 1 < sum(raw.blobs for raw in made if not raw.is_shut) <= 7 + 1


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that a reader keeps from being started anew grows without an error, and is cut when the reader is done."""
    monkeypatch.setattr(wal, "_CUT_BYTES", 300_000)
    monkeypatch.setattr(wal, "_MOST_BYTES", 300_000)
    monkeypatch.setattr(wal, "_BURST_BYTES", 300_000)
    monkeypatch.setattr(wal, "_CUT_AGAIN_BYTES", 100_000)
    monkeypatch.setattr(wal, "_WAIT_MS", 1)
    path = tmp_path / "a.db"
    log = Path(f"{path}-wal")
    with open_store(path) as stores:

        def write(first: int) -> None:
            stores.packages.put(page_of(range(first, first + 50), size=100))
            stores.packages.flush()

        with stores.database.read() as reader:
            assert reader.exec_driver_sql("SELECT count(*) FROM page").scalar() == 0
            for first in range(0, 500, 50):
                write(first)
            assert log.stat().st_size > 900_000
            assert reader.exec_driver_sql("SELECT count(*) FROM page").scalar() == 0
        for first in range(500, 1500, 50):
            write(first)
        assert log.stat().st_size < 500_000
        assert_found(stores.packages.find([key_of(i) for i in range(1500)]), range(1500), lambda _: True, size=100)


def test_the_log_is_moved_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is in the file itself a moment later, without another write."""
    monkeypatch.setattr(wal, "_CUT_BYTES", 100_000)
    monkeypatch.setattr(wal, "_CUT_AFTER_SECONDS", 0.01)
    path = tmp_path / "a.db"
    with open_store(path) as stores:
        before = path.stat().st_size
        stores.packages.put(page_of(range(200), size=100))
        stores.packages.flush()
        assert _is_moved(path, before)


def _is_moved(path: Path, before: int) -> bool:
    for _ in range(1000):
        if path.stat().st_size > before + 100_000 and not Path(f"{path}-wal").stat().st_size:
            return True
        threading.Event().wait(0.01)
    return False


def test_the_log_is_moved_once_nobody_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is in the way when it should be moved puts that off, and no further write is needed."""
    monkeypatch.setattr(wal, "_CUT_BYTES", 100_000)
    monkeypatch.setattr(wal, "_CUT_AFTER_SECONDS", 0.01)
    path, tried, cut = tmp_path / "a.db", threading.Event(), wal.LogKeeper._cut

    def seen(keeper: wal.LogKeeper, wait_ms: int) -> bool:
        done = cut(keeper, wait_ms)
        tried.set()
        return done

    monkeypatch.setattr(wal.LogKeeper, "_cut", seen)
    with open_store(path) as stores:
        before = path.stat().st_size
        with stores.database.read() as reader:
            assert reader.exec_driver_sql("SELECT count(*) FROM page").scalar() == 0
            stores.packages.put(page_of(range(200), size=100))
            stores.packages.flush()
            assert tried.wait(60)
            assert Path(f"{path}-wal").stat().st_size > 100_000
        assert _is_moved(path, before)


def test_threads_share_a_store(stores: Stores) -> None:
    """Threads that put, find and commit at once get right answers and no errors."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            model = Model(f"s{number}", 5, seed=number)
            mine = range(number * 100, number * 100 + 60)
            for start in mine[::10]:
                stores.packages.put(page_of(range(start, start + 10)))
                stores.versions.append(model.record, *model.step(), model.columns)
                assert_found(stores.packages.find([key_of(i) for i in mine]), mine, lambda i: i < start + 10)  # noqa: B023
            assert_state(stores.versions.state(f"s{number}"), *model.kept[-1])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("reads", [True, False])
def test_a_store_that_cannot_queue_is_closed(tmp_path: Path, reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the lock file takes no place in the queue, and what was written is there."""
    path = tmp_path / "a.db"

    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_store(path) as stores:
        stores.packages.put(page_of(range(3)))
        stores.packages.flush()
        if reads:
            stores.packages.stats()
        monkeypatch.setattr(WriteLock, "_wait", full)
    assert stores.database.closed
    assert holders.holders(path).startswith("in a process that")  # none
    monkeypatch.undo()
    with open_store(path) as stores:
        assert isinstance(stores.database, database.Database)
        stores.database.alone(lambda: None)
        assert_found(stores.packages.find([key_of(i) for i in range(3)]), range(3), lambda _: True)


@pytest.mark.parametrize("claims", [False, True])
def test_a_close_that_finds_no_room_keeps_what_waits(tmp_path: Path, claims: bool) -> None:
    """Once there is room another call writes it; what says so in between is one line."""
    path = tmp_path / "a.db"
    stores = open_store(path)
    if claims:
        stores.writers.claim("s")
    stores.packages.put(page_of(range(2000)))
    pages = stores.database.write(
        lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1").scalar_one()
    )  # no less than it has
    for _ in range(2):
        with pytest.raises(StoreError, match="no room left on its disk"):
            stores.close()
    assert stores.packages.stats()["bytes_pending"]
    stores.database.write(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 9999}"))
    stores.close()
    assert stores.database.closed
    with open_store(path) as again:
        again.writers.claim("s")
        assert_found(again.packages.find([key_of(i) for i in range(2000)]), range(2000), lambda _: True)


def test_a_closed_store(tmp_path: Path) -> None:
    """A store that was closed refuses everything with a `ClosedError`, and leaves no log behind."""
    stores = open_store(tmp_path / "a.db")
    stores.packages.put(page_of([1]))
    stores.close()
    stores.close()
    model = Model("a", 1)
    calls: list[Callable[[], object]] = [
        lambda: stores.packages.find([key_of(1)]),
        lambda: stores.versions.systems(),
        lambda: stores.versions.append(model.record, *model.step(), model.columns),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="is closed"):
            call()
    assert not Path(f"{tmp_path / 'a.db'}-wal").exists()


def test_damage_in_the_file_is_a_miss(tmp_path: Path) -> None:
    """Bytes that SQLite itself cannot read are misses for a lookup, and counted."""
    path = tmp_path / "a.db"
    with open_store(path) as stores:
        stores.packages.put(page_of(range(3000)))
    with sqlite3.connect(path) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'package'").fetchone()
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * 8192)
        file.write(b"\xff" * 8192)
    with open_store(path) as stores:
        found = stores.packages.find([key_of(i) for i in range(10)])
        assert (found.page == -1).all()
        assert isinstance(stores.packages, MemoryTier)
        assert isinstance(stores.packages.inner, SqlitePackages)
        assert stores.packages.inner.counters.corrupt == 1


def test_a_damaged_cache_keeps_no_commit_back(tmp_path: Path) -> None:
    """Where SQLite cannot write packages, for damage in their index, commits are written all the same."""
    path = tmp_path / "a.db"
    model = Model("a", 5)
    with open_store(path) as stores:
        stores.packages.put(page_of(range(3000)))
        stores.versions.append(model.record, *model.step(), model.columns)
    with sqlite3.connect(path) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'package'").fetchone()
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * 8192)
        file.write(b"\xff" * 8192)
    stores = open_store(path)
    stores.packages.put(page_of(range(5000, 5010)))
    stores.versions.append(model.record, *model.step(), model.columns)
    with pytest.raises(StoreError, match="damaged"):
        stores.close()
    with open_store(path) as stores:
        assert_state(stores.versions.state("a"), *model.kept[-1])


def test_a_file_that_is_removed(tmp_path: Path) -> None:
    """A store whose file was removed under it says so."""
    path = tmp_path / "a.db"
    stores = open_store(path)
    path.unlink()
    stores.packages.put(page_of([1]))
    with pytest.raises(StoreError, match="was moved, removed or replaced"):
        stores.packages.flush()
    with pytest.raises(StoreError, match="was moved, removed or replaced"):
        stores.close()


def test_flipped_bits_are_never_an_answer(tmp_path: Path) -> None:
    """With bits flipped anywhere in the file, every answer is right or an error of the store."""
    whole = tmp_path / "whole.db"
    model = Model("a", 40)
    with open_store(whole) as stores:
        for first in range(0, 300, 50):
            stores.packages.put(page_of(range(first, first + 50), size=20))
            stores.packages.flush()
        for _ in range(8):
            rows = slice(7) if model.kept else slice(None)
            stores.versions.append(model.record, *model.step(rows), model.columns)
    content = whole.read_bytes()
    chance = random.Random(0)
    keys = [key_of(i) for i in range(300)]
    for number in range(25):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 4, 40])):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path = tmp_path / f"{number}.db"
        path.write_bytes(damaged)
        with suppress(StoreError), open_store(path) as stores:
            with suppress(StoreError):
                assert_found(stores.packages.find(keys), range(300), lambda _: False, size=20)
            with suppress(StoreError, UnknownSystemError, UnknownCommitError):
                assert_state(stores.versions.state("a"), *model.kept[-1])
            with suppress(StoreError, UnknownSystemError):
                assert stores.versions.commits("a") == [commit for commit, _ in model.kept]
            verify(stores.database, repair=True)
            stores.packages.put(page_of(range(300), size=20))
            stores.packages.flush()
            assert_found(stores.packages.find(keys), range(300), lambda _: False, size=20)


_DISK_FULL = """
import resource, signal, sys
import numpy as np
from tests.storage.samples import Model, assert_found, assert_state, database_of, key_of, page_of
from whiteboard.errors import StoreError
from whiteboard.storage import open_store

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model = Model("a", 20)
with open_store(sys.argv[1]) as stores:
    stores.versions.append(model.record, *model.step(), model.columns)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    stores.packages.put(page_of(range(500), size=100))
    for attempt in range(2):
        try:
            stores.packages.flush()
        except StoreError as error:
            assert sys.argv[1] in str(error) and "\\n" not in str(error), error
        else:
            raise SystemExit("there was room")
    # A commit needs less room than the packages, and does not wait for theirs.
    stores.versions.append(model.record, *model.step(), model.columns)
    before = model.kept[-1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    commit, changed = model.step()
    try:
        stores.versions.append(model.record, commit, changed, model.columns)
    except StoreError:
        pass
    else:
        raise SystemExit("there was room")
    assert_state(stores.versions.state("a"), *before)
    assert_found(stores.packages.find([key_of(i) for i in range(500)]), range(500), lambda _: True, size=100)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    stores.versions.append(model.record, commit, changed, model.columns)
with open_store(sys.argv[1]) as stores:
    assert_state(stores.versions.state("a"), *model.kept[-1])
    assert_found(stores.packages.find([key_of(i) for i in range(500)]), range(500), lambda _: True, size=100)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on file size")
def test_a_full_disk(tmp_path: Path) -> None:
    """No room: one clear error, nothing committed is lost, and the same store works when there is room again."""
    done = run_python(_DISK_FULL, str(tmp_path / "a.db"))
    assert done.returncode == 0, done.stderr


def test_what_a_script_leaves_open_is_flushed(tmp_path: Path) -> None:
    """Packages of a store that nobody closed are on disk when its process has ended."""
    path = tmp_path / "a.db"
    code = (
        "import sys; from tests.storage.samples import page_of; from whiteboard.storage import open_store\n"
        "stores = open_store(sys.argv[1]); stores.packages.put(page_of([1]))"
    )
    done = run_python(code, str(path))
    assert (done.returncode, done.stderr) == (0, "")
    with open_store(path, readonly=True) as stores:
        assert_found(stores.packages.find([key_of(1)]), [1], lambda _: True)


def test_a_file_that_could_not_be_written_for_a_moment_is_opened_again(tmp_path: Path) -> None:
    """SQLite opens for reading what it cannot open for writing: one write fails, and the next one goes through."""
    with open_store(tmp_path / "a.db") as stores:
        database = database_of(stores)
        database._pool.close_all()
        held = database._pool.held()
        held.execute("PRAGMA query_only=ON")  # as SQLite refuses what it has opened for reading
        stores.packages.put(page_of([1]))
        with pytest.raises(ReadOnlyError, match="cannot be written"):
            stores.packages.flush()
        assert held.is_shut
        stores.packages.flush()
    with open_store(tmp_path / "a.db") as stores:
        assert_found(stores.packages.find([key_of(1)]), [1], lambda _: True)
