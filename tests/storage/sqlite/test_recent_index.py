"""The index of pages written lately: found wherever its rows are by now, moved on once there is much of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.samples import assert_found, database_of, key_of, page_of, transaction
from whiteboard.records.packages import DISK, MISS, Page
from whiteboard.storage import Stores, open_store
from whiteboard.storage.sql.page_row import PageRow, hashes_of
from whiteboard.storage.sql.rows import count_packages, select_index
from whiteboard.storage.sqlite import gathered_index, known_hashes, one_package, recent_index, rows
from whiteboard.storage.upkeep.gc import gc
from whiteboard.storage.upkeep.verify import verify

KEYS = [key_of(i) for i in range(400)]
PARTS = (range(50), range(50, 100))


@pytest.fixture
def stores(path: Path) -> Iterator[Stores]:
    """Without a memory tier."""
    with open_store(path, memory_bytes=0) as stores:
        yield stores


def _put(stores: Stores, numbers: range) -> None:
    stores.packages.put(page_of(numbers))
    stores.packages.flush()


def _rows(stores: Stores) -> tuple[int, int]:
    """Index rows, and pages that have none yet."""
    with stores.database.read() as connection:
        run = connection.exec_driver_sql
        return tuple(run(f"SELECT count(*) FROM {name}").scalar_one() for name in ("package", "recent"))


@pytest.mark.parametrize("bound", ["_MOST_PAGES", "_MOST_HASHES"])
def test_much_is_settled(stores: Stores, bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages wait for their rows until there are too many of them, or of their packages; all are found at any time."""
    monkeypatch.setattr(recent_index, bound, 3 if bound == "_MOST_PAGES" else 160)
    seen = []
    for first in range(0, 400, 50):
        _put(stores, range(first, first + 50))
        seen.append(_rows(stores))
        assert_found(stores.packages.find(KEYS), range(400), lambda i: i < first + 50)  # noqa: B023
        assert stores.packages.stats()["packages"] == first + 50
    assert seen == [(0, 1), (0, 2), (0, 3), (200, 0), (200, 1), (200, 2), (200, 3), (400, 0)]
    assert verify(stores.database).ok


def test_a_large_flush_is_settled_at_once(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has rows enough for an order of its own does not wait."""
    monkeypatch.setattr(recent_index, "_MOST_HASHES", 100)
    _put(stores, range(300))
    assert _rows(stores) == (300, 0)


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 40), unique=True, min_size=1), min_size=1, max_size=5), st.data())
def test_settled_or_not_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], data: st.DataObject
) -> None:
    """Whenever rows are made, and of which parts, the first page that held a package is the one that answers for it."""
    first: dict[int, int] = {}
    due = st.none() | st.lists(st.integers(0, gathered_index.PARTS - 1), unique=True, max_size=40)
    with (
        pytest.MonkeyPatch.context() as patch,
        open_store(tmp_path_factory.mktemp("recent") / "a.db", memory_bytes=0) as stores,
    ):
        database = stores.database
        wanted = hashes_of(np.frombuffer(b"".join(map(key_of, range(41))), np.uint8).reshape(-1, 16))
        for page_id, numbers in enumerate(parts, 1):
            hashes = hashes_of(page_of(numbers).keys)
            with transaction(database) as connection:
                recent_index.add(connection, page_id, hashes)
                if data.draw(st.booleans()):
                    drawn = data.draw(due)
                    patch.setattr(recent_index, "_due", lambda *_: drawn)  # noqa: B023
                    recent_index.move_on(connection)
                index, cursor = select_index(connection, wanted), connection.connection.cursor()
            for slot, number in enumerate(numbers):
                first.setdefault(number, (page_id << 8) + slot)
            expected = {int(wanted[number]): place for number, place in first.items()}
            assert {h: (page << 8) + slot for h, page, slot in index.tolist()} == expected
            patch.setattr(recent_index, "_OFTEN", data.draw(st.integers(1, 9)))
            asked = [0, *expected, 2**63 - 1]
            places = {h: place for h in asked if (place := one_package.place_of(cursor, h)) is not None}
            assert places == {h: divmod(p, 256) for h, p in expected.items()}
        with transaction(database) as connection:
            recent_index.settle(connection)
            assert count_packages(connection) == len(first)


def test_parts_of_a_large_index_wait(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits by parts is found, counted, left out of no verification, and goes with its pages; parts take turns."""
    monkeypatch.setattr(recent_index, "_MOST_PAGES", 1)
    monkeypatch.setattr(recent_index, "_COUNTED", 200_000)  # as if there were so many times as many packages
    monkeypatch.setattr(recent_index, "_COUNT", "SELECT count(*) FROM package WHERE ? > 0")
    monkeypatch.setattr(known_hashes, "MANY", 1)
    with open_store(path, memory_bytes=0) as stores:
        _put(stores, range(40))
        _put(stores, range(40, 80))  # none had a row before, so all get theirs
        for first in range(80, 400, 40):
            _put(stores, range(first, first + 40))
        with stores.database.read() as connection:
            waiting, lately = gathered_index.waiting(connection), recent_index.index(connection)
            filters = connection.exec_driver_sql("SELECT count(*) FROM known").scalar_one()
        assert _rows(stores)[0] + sum(waiting.values()) + len(lately) == 400
        assert sum(waiting.values()) > 200
        assert filters > 2
        assert_found(stores.packages.find(KEYS), range(400), lambda _: True)
        assert verify(stores.database).ok
        assert stores.packages.stats()["packages"] == 400
        with transaction(stores.database) as connection:  # another process computed the same
            rows.insert_pages(connection, [PageRow.of(page_of(range(100, 150)))])
        assert gc(stores.database).unreferenced.pages == 1
        assert_found(stores.packages.find(KEYS), range(400), lambda _: True)
        report = gc(stores.database, max_bytes=0)
        assert (report.evicted.packages, report.bytes_after < report.bytes_before) == (400, True)
        assert (stores.packages.find(KEYS).page == -1).all()
        assert verify(stores.database).ok


def test_a_filter_keeps_whatever_has_a_row(stores: Stores) -> None:
    """Through all sizes that a filter has while its part grows; of hashes without a row it leaves a tenth at most."""
    hashes = np.random.default_rng(0).integers(0, 2**57, 12_000)  # of one part
    there, others = hashes[:8000], np.unique(hashes[8000:])
    index = np.stack([there, np.ones_like(there), np.arange(len(there))], axis=1)
    sizes = set()
    with transaction(stores.database) as connection:
        for start in range(0, len(index), 500):
            recent_index.insert(connection, index[start : start + 500])
            known_hashes.add(connection, index[start : start + 500], make=not start)
            sizes.add(connection.exec_driver_sql("SELECT length(bits) FROM known").scalar_one())
            seen = np.unique(there[: start + 500])
            assert np.array_equal(known_hashes.likely(connection, seen), seen)
        assert len(sizes) > 2
        assert len(known_hashes.likely(connection, others)) < len(others) / 10
        assert list(known_hashes.left_out(connection)) == []


def test_a_collection_of_what_is_recent(stores: Stores) -> None:
    """Pages go with their hashes, and what stays is still found."""
    for first in range(0, 400, 100):
        _put(stores, range(first, first + 100))
    report = gc(stores.database, max_bytes=0)
    assert (report.evicted.pages, report.evicted.packages) == (4, 400)
    assert _rows(stores) == (0, 0)
    _put(stores, range(100))
    assert_found(stores.packages.find(KEYS), range(400), lambda i: i < 100)
    assert verify(stores.database).ok


@pytest.mark.parametrize("where", ["another store", "the same one", "memory"])
def test_one_key_is_there_as_soon_as_it_is_written(where: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked alone, again and again, whoever writes it, settled or not, until it is deleted."""
    monkeypatch.setattr(recent_index, "_MOST_PAGES", 3)
    place = ":memory:" if where == "memory" else path
    with open_store(place, memory_bytes=0) as asking, open_store(place, memory_bytes=0) as other:
        writing = other if where == "another store" else asking

        def is_there(number: int) -> bool:
            return bool(asking.packages.find([KEYS[number]]).page[0] >= 0)

        for number in range(20):
            for _ in range(2):
                assert [is_there(each) for each in range(number + 2)] == [each < number for each in range(number + 2)]
            _put(writing, range(number, number + 1))
        with transaction(writing.database) as connection:
            for table in ("package", "recent", "page"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        assert not any(map(is_there, range(20)))


def test_what_was_rolled_back_waits_nowhere(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that a transaction let wait and looked for are gone with it, and others may take their place."""
    monkeypatch.setattr(recent_index, "_due", lambda *_: [])
    first, second = (np.stack([hashes_of(page_of(part).keys), *np.ones((2, 50), np.int64)], 1) for part in PARTS)
    for rows_of, fails in ((first, True), (second, False)):
        with contextlib.suppress(ZeroDivisionError), transaction(stores.database) as connection:
            gathered_index.add(connection, rows_of)
            assert len(select_index(connection, rows_of[:, 0])) == 50
            assert fails or not len(gathered_index.find(connection, np.sort(first[:, 0])))
            1 / (not fails)
    with stores.database.read() as connection:
        assert np.array_equal(select_index(connection, second[:, 0])[:, 0], np.sort(second[:, 0]))
        assert not len(select_index(connection, first[:, 0]))


def test_a_look_sees_what_others_write_and_move(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that looked before finds each package wherever its row is by now, and no other."""
    monkeypatch.setattr(recent_index, "_OFTEN", 3)
    hashes = hashes_of(np.frombuffer(b"".join(KEYS), np.uint8).reshape(-1, 16)).tolist()
    settled = range(0)

    def check(stores: Stores, there: int) -> None:
        for number in (*range(max(0, there - 30), there), *settled):
            found = stores.database.look(hashes[number], ())
            assert isinstance(found, tuple)
            assert found[1].keys.tobytes() == KEYS[number]
        assert all(stores.database.look(hashed, ()) is True for hashed in hashes[there : there + 30])

    with open_store(path, memory_bytes=0) as mine, open_store(path, memory_bytes=0) as others:
        check(mine, 0)
        for first in range(0, 240, 40):
            _put(others, range(first, first + 40))
            check(mine, first + 40)
            if first % 80:
                with transaction(others.database) as connection:
                    recent_index.settle(connection)
                settled = range(0, first, 17)
                check(mine, first + 40)
        with transaction(others.database) as connection:
            gathered_index.add(connection, recent_index.index(connection))
            connection.exec_driver_sql("DELETE FROM recent")
        check(mine, 240)


def test_a_look_beside_hashes_that_no_key_has(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever somebody wrote there, each package is found, of several of one hash the first."""
    monkeypatch.setattr(recent_index, "_OFTEN", 2)
    hashes = hashes_of(np.frombuffer(b"".join(KEYS), np.uint8).reshape(-1, 16)).tolist()
    with open_store(path, memory_bytes=0) as stores:
        _put(stores, range(40))
        with transaction(database_of(stores)) as connection:
            odd = np.array([-1, -(2**63), 2**63 - 1, 0, hashes[3]], np.int64)
            recent_index.add(connection, 10, odd)
        for number in range(40):
            found = database_of(stores).look(hashes[number], ())
            assert isinstance(found, tuple)
            assert found[1].keys.tobytes() == KEYS[number]
        for hashed in (0, 2**63 - 1):
            assert database_of(stores).look(hashed, ()) is False  # of a page that is not there


def test_a_look_is_of_one_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package whose row is moved between the two places that are asked is no miss."""
    hashed = int(hashes_of(np.frombuffer(KEYS[7], np.uint8).reshape(-1, 16))[0])
    kept = recent_index.kept
    with open_store(path, memory_bytes=0) as mine, open_store(path, memory_bytes=0) as others:
        _put(mine, range(40))
        assert mine.database.look(0, ()) is True  # what was written lately is kept from here on

        def moving(*given: Any) -> Any:
            with transaction(others.database) as connection:
                recent_index.settle(connection)
            return kept(*given)

        monkeypatch.setattr(recent_index, "kept", moving)
        found = mine.database.look(hashed, ())
        assert isinstance(found, tuple)
        assert found[1].keys.tobytes() == KEYS[7]


@pytest.mark.parametrize("width", [2, 300], ids=["in a column", "in an opened blob"])
def test_a_look_goes_by_no_place_of_before(path: Path, width: int) -> None:
    """A page that went, and whose number another got, has none of its packages any more, and all of the other's."""
    keys = np.frombuffer(b"".join(KEYS), np.uint8).reshape(-1, 16)
    hashes = hashes_of(keys).tolist()

    def put(stores: Stores, numbers: range) -> None:
        y = np.random.default_rng(numbers.start).normal(size=(len(numbers), width))
        stores.packages.put(Page("f", keys[list(numbers)], {"y": y}))
        stores.packages.flush()

    with open_store(path, memory_bytes=0) as mine, open_store(path, memory_bytes=0) as others:
        put(others, range(60))
        assert mine.database.look(hashes[60], ()) is True  # what was written lately is kept from here on
        assert isinstance(mine.database.look(hashes[3], ()), tuple)
        with transaction(others.database) as connection:
            for table in ("page", "recent"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        assert mine.database.look(hashes[3], ()) is True
        put(others, range(60))
        assert isinstance(mine.database.look(hashes[3], ()), tuple)
        put(others, range(60, 120))
        with transaction(others.database) as connection:
            connection.exec_driver_sql("DELETE FROM page WHERE id = 2")
            connection.exec_driver_sql("DELETE FROM recent WHERE page_id = 2")
            for table, name in (("page", "id"), ("recent", "page_id")):
                connection.exec_driver_sql(f"UPDATE {table} SET {name} = 2 WHERE {name} = 3")
        # as no store does, so that it is told by the key alone
        assert mine.packages.find([KEYS[4]]).tier.tolist() == [MISS]
        found = mine.packages.find([KEYS[64]])
        assert found.tier.tolist() == [DISK]
        assert found.pages[0].keys[found.slot[0]].tobytes() == KEYS[64]


@pytest.mark.parametrize("width", [2, 300], ids=["in a column", "in an opened blob"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "damaged"])
@pytest.mark.parametrize("settled", [True, False], ids=["settled", "lately"])
def test_a_look_leaves_nothing_under_way(path: Path, settled: bool, whole: bool, width: int) -> None:
    """Whatever it finds, and wherever, the log can be cut to nothing behind it, and the next one sees what is new."""
    hashes = hashes_of(np.frombuffer(b"".join(KEYS), np.uint8).reshape(-1, 16)).tolist()
    keys = np.frombuffer(b"".join(KEYS[:60]), np.uint8).reshape(-1, 16)
    with open_store(path, memory_bytes=0) as stores:
        database = database_of(stores)
        stores.packages.put(Page("f", keys, {"y": np.random.default_rng(0).normal(size=(60, width))}))
        stores.packages.flush()
        with transaction(database) as connection:
            if settled:
                recent_index.settle(connection)
            if not whole:
                connection.exec_driver_sql("UPDATE page SET digest = zeroblob(16)")
        for number in (3, 59, 3):
            found = database.look(hashes[number], ())
            assert isinstance(found, tuple) if whole else found is False
            database.checkpoint()
            assert Path(f"{path}-wal").stat().st_size == 0
            _put(stores, range(60 + number, 61 + number))
            found = database.look(hashes[60 + number], ())
            assert isinstance(found, tuple)
        database.look(hashes[3], ())
        (reader,) = database._pool.spare
        assert not reader.looks
        # of a row by its key nothing is left to end, so the next look has the same cursors
        assert (reader._looking is not None) is whole


@pytest.mark.parametrize("kept_bytes", [2**25, 2000, 0])
def test_a_filter_that_a_connection_keeps(stores: Stores, kept_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read again once it has more; who writes keeps none, as what it wrote may be rolled back."""
    monkeypatch.setattr(known_hashes, "_KEPT_BYTES", kept_bytes)
    hashes = np.random.default_rng(0).integers(0, 2**63 - 1, (4, 3000))
    index = np.stack([hashes, np.ones_like(hashes), np.full_like(hashes, 7)], axis=-1)

    def add(connection: Any, rows: Any, *, make: bool = False) -> None:
        recent_index.insert(connection, rows)
        known_hashes.add(connection, rows, make=make)

    def has(connection: Any, hashes: Any) -> bool:
        return bool(np.isin(hashes, known_hashes.likely(connection, np.sort(hashes))).all())

    with transaction(stores.database) as connection:
        add(connection, index[0], make=True)
    with contextlib.suppress(KeyboardInterrupt), transaction(stores.database) as connection:
        add(connection, index[1])
        assert has(connection, hashes[1])
        raise KeyboardInterrupt
    with stores.database.read() as connection:
        assert has(connection, hashes[0])
        assert not has(connection, hashes[2])
        assert bool(connection.connection.filters) == (kept_bytes > 0)
        nbytes = sum(len(bits) for _, bits in connection.connection.filters.values())
        assert nbytes <= kept_bytes
    with transaction(stores.database) as connection:
        add(connection, index[2])  # as many as were rolled back
        assert has(connection, hashes[2])
        assert not connection.connection.filters
    with stores.database.read() as connection:
        assert has(connection, hashes[0])
        assert has(connection, hashes[2])
        assert not has(connection, hashes[3])
        assert list(known_hashes.left_out(connection)) == []
