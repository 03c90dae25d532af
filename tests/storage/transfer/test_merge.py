"""Merge: the union of stores, conflicts told and never taken, other histories beside, and twice is once."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tests.processes import run_code
from tests.storage.moving import EACH, PAGES, assert_whole, filled, held, killed, numbers_held, other_bits, rows
from tests.storage.samples import Model, page_of
from whiteboard.errors import ConflictError, SchemaError, StoreError
from whiteboard.records.systems import CommitRecord
from whiteboard.storage import open_store
from whiteboard.storage.page.digests import digest_of
from whiteboard.storage.transfer.merge import merge


def test_the_union_of_packages(tmp_path: Path) -> None:
    """Stores that overlap in half a page give each package once, and all of them."""
    half = EACH // 2
    stores = [filled(tmp_path / f"{i}.db", first=i * (EACH * PAGES - half), systems=(), ops=("mul",)) for i in range(3)]
    into = tmp_path / "into.db"
    first, second, third = merge(into, stores)
    assert [one.packages.added for one in (first, second, third)] == [240, 240 - half, 240 - half]
    assert [one.packages.present for one in (first, second, third)] == [0, half, half]
    assert numbers_held(into, range(800)) == set(range(3 * 240 - 2 * half))
    assert_whole(into)


def test_merging_twice_changes_nothing(tmp_path: Path) -> None:
    """The second merge writes no row, suffixed systems and conflicts included."""
    one, other = filled(tmp_path / "a.db"), filled(tmp_path / "b.db", first=200)
    _another_history(tmp_path / "c.db", "a")
    other_bits(tmp_path / "c.db", [1, 2, 3])
    sources = [other, tmp_path / "c.db"]
    merge(one, sources)
    before = rows(one)
    again = merge(one, sources)
    assert [(m.packages.added, m.systems.commits) for m in again] == [(0, 0), (0, 0)]
    assert [m.packages.conflicts for m in again] == [0, 3]
    assert again[1].systems.renamed == {"a": "a~1"}
    assert rows(one) == before
    assert_whole(one)


def _another_history(path: Path, name: str, seed: int = 5, steps: int = 3) -> Path:
    with open_store(path) as stores:
        model = Model(name, 7, seed)
        model.record = replace(model.record, uuid=f"another uuid of {name}, {seed}", spec={"seed": 0})
        for _ in range(steps):
            commit, changed = model.step()
            commit = replace(commit, digest=f"{seed:016x}{commit.number:016x}")
            stores.versions.append(model.record, commit, changed, model.columns)
    return path


def test_conflicts_are_described_and_the_first_stays(tmp_path: Path) -> None:
    """A conflict names op, key, sources, versions and the distance; the package in the target stays."""
    other_bits(tmp_path / "a.db", [7])
    with open_store(tmp_path / "b.db") as stores:
        stores.packages.put(page_of(range(5, 10)))
    (done,) = merge(tmp_path / "a.db", [tmp_path / "b.db"])
    (conflict,) = done.packages.described
    assert (conflict.op, conflict.sources, conflict.versions) == ("mul", (7,), (8,))
    assert (conflict.kept_sources, conflict.array, conflict.ulps) == ((7,), "y", 1)
    assert (done.packages.added, done.packages.conflicts) == (4, 1)
    (back,) = merge(tmp_path / "b.db", [tmp_path / "a.db"])
    assert (back.packages.added, back.packages.conflicts) == (0, 1)
    assert numbers_held(tmp_path / "b.db", range(5, 10)) == set(range(5, 10))


def test_histories_of_one_name(tmp_path: Path) -> None:
    """The same history is one system, a longer one goes on, and others stand beside under a suffix each."""
    into = filled(tmp_path / "a.db", steps=5)
    longer = filled(tmp_path / "b.db", steps=8)
    shorter = filled(tmp_path / "c.db", steps=4)
    others = [_another_history(tmp_path / f"{seed}.db", "a", seed) for seed in (5, 6)]
    done = merge(into, [longer, shorter, *others])
    assert [(m.systems.created, m.systems.extended) for m in done] == [
        ([], ["a"]),
        ([], []),
        (["a~1"], []),
        (["a~2"], []),
    ]
    after = held(into)
    assert list(after) == ["a", "a forked", "a~1", "a~2"]
    assert after["a"] == held(longer)["a"]
    assert after["a~1"] == held(others[0])["a"]
    assert after["a~2"] == held(others[1])["a"]
    assert_whole(into)


def test_merging_both_ways_again_and_again_changes_nothing(tmp_path: Path) -> None:
    """Two stores with a system of one name and other histories hold both after each has been merged, and no more."""
    a, b = _another_history(tmp_path / "a.db", "s", 5), _another_history(tmp_path / "b.db", "s", 6)
    for store in (a, b):
        merge(store, [a if store is b else b])
    states = {path: held(path) for path in (a, b)}
    assert [sorted(state) for state in states.values()] == [["s", "s~1"]] * 2
    assert (states[a]["s"], states[a]["s~1"]) == (states[b]["s~1"], states[b]["s"])
    before = [rows(path) for path in (a, b)]
    for into, source in [(a, b), (b, a)] * 3:
        (done,) = merge(into, [source])
        assert (done.systems.created, done.systems.extended, done.systems.commits) == ([], [], 0)
    assert [rows(path) for path in (a, b)] == before


def test_a_suffixed_system_can_be_forked_and_gone_on_with(tmp_path: Path) -> None:
    """A fork of a system that got a suffix goes on from the suffixed one; both can be written further."""
    into = _another_history(tmp_path / "a.db", "a")
    source = filled(tmp_path / "b.db")
    (done,) = merge(into, [source])
    assert done.systems.renamed == {"a": "a~1"}
    after, before = held(into), held(source)
    assert after["a forked"][1] == ("a~1", 2)
    assert after["a forked"][2:] == before["a forked"][2:]
    with open_store(into) as stores:
        for name in ("a~1", "a forked"):
            record = stores.versions.system(name)
            assert record is not None
            state = stores.versions.state(name)
            commit = CommitRecord(state.commit.number + 1, state.commit.number, 0, None, None, "00")
            stores.versions.append(record, commit, [], lambda state=state: state.columns)  # type: ignore[misc]
    assert_whole(into)


def test_the_same_history_of_another_uuid(tmp_path: Path) -> None:
    """Two runs that did the same are one history, and the longer one's commits are sealed again for the shorter."""
    into = filled(tmp_path / "a.db", steps=2)
    longer = filled(tmp_path / "b.db", steps=3)
    with sqlite3.connect(longer) as connection:
        assert connection.execute("SELECT count(*) FROM system").fetchone() == (1,)
    connection.close()
    with open_store(tmp_path / "c.db") as stores:
        model = Model("a", 12)
        model.record = replace(model.record, uuid="uuid of nobody")
        for step in range(3):
            rows = slice(step % 3, None, 3) if step else slice(None)
            stores.versions.append(model.record, *model.step(rows), model.columns)
    (done,) = merge(into, [tmp_path / "c.db"])
    assert done.systems.extended == ["a"]
    assert held(into)["a"] == held(longer)["a"]
    assert_whole(into)


def test_a_killed_merge_goes_on(tmp_path: Path) -> None:
    """Killed at any step, the target is whole, and the next call ends with what an undisturbed one has."""
    source, base = filled(tmp_path / "a.db"), _another_history(tmp_path / "base.db", "a")
    merge(base, [])
    code = (
        "from whiteboard.storage.transfer import merge, merge_packages, merge_systems\n"
        "merge_packages.BATCH_BYTES = 1; merge_systems.BATCH_BYTES = 1\n"
        "merge.merge(sys.argv[1], sys.argv[2:], progress=progress)"
    )
    for at in range(1, 9):
        target = tmp_path / f"{at}.db"
        _another_history(target, "a")
        assert killed(code, at, str(target), str(source)).returncode == -9
        assert_whole(target)
        merge(target, [source])
        assert list(held(target)) == ["a", "a forked", "a~1"]
        assert held(target)["a~1"] == held(source)["a"]
        assert numbers_held(target, range(240)) == set(range(240))


def test_damage_in_a_source_stays_there(tmp_path: Path) -> None:
    """A damaged page and all from a damaged commit on are counted and left out; the target verifies clean."""
    source = filled(tmp_path / "b.db")
    with sqlite3.connect(source) as connection:
        connection.execute("UPDATE page SET data = zeroblob(length(data)) WHERE id = 2")
        connection.execute("UPDATE node_page SET data = zeroblob(length(data)) WHERE system_id = 1 AND number = 2")
    connection.close()
    (done,) = merge(tmp_path / "a.db", [source])
    assert (done.damaged, done.packages.added) == (1, 200)
    assert [(name, number) for name, number, _ in done.systems.damaged] == [("a", 2), ("a forked", 3)]
    assert [commit.number for commit in held(tmp_path / "a.db")["a"][2]] == [0, 1]
    assert_whole(tmp_path / "a.db")


def test_damage_in_the_target_is_repaired(tmp_path: Path) -> None:
    """Packages whose page in the target is damaged are taken from the source."""
    source, into = filled(tmp_path / "b.db", systems=()), filled(tmp_path / "a.db", systems=())
    with sqlite3.connect(into) as connection:
        connection.execute("UPDATE page SET data = zeroblob(length(data)) WHERE id IN (2, 3)")
        connection.execute("DELETE FROM page WHERE id = 5")
    connection.close()
    (done,) = merge(into, [source])
    assert done.packages.added == 120
    assert numbers_held(into, range(240)) == set(range(240))


def test_a_system_in_use_is_not_touched(tmp_path: Path) -> None:
    """While a living process writes a system that would go on, the merge is refused and the system stands."""
    into, longer = filled(tmp_path / "a.db", steps=3), filled(tmp_path / "b.db", steps=5)
    with open_store(into) as stores:
        stores.writers.claim("a")
        with pytest.raises(ConflictError, match="is written by"):
            merge(into, [longer])
        assert len(stores.versions.commits("a")) == 3
    assert merge(into, [longer])[0].systems.extended == ["a"]


def test_wrong_sources_write_nothing(tmp_path: Path) -> None:
    """The target itself, a file that is not there and a foreign one are refused before anything is made."""
    into = tmp_path / "into.db"
    store = filled(tmp_path / "a.db")
    (tmp_path / "text").write_text("text")
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE x (y)")
    connection.close()
    for sources, kind in (
        ([store, tmp_path / "none.db"], StoreError),
        ([into], StoreError),
        ([tmp_path / "text"], StoreError),
        ([tmp_path / "other.db"], SchemaError),
        ([":memory:"], StoreError),
    ):
        with pytest.raises(kind):
            merge(into, sources)
        assert not into.exists()


def test_a_store_that_is_cut_short_or_newer_writes_nothing(tmp_path: Path) -> None:
    """A truncated source, and one of a schema that is not known, are refused before anything is written."""
    into, source = filled(tmp_path / "a.db"), filled(tmp_path / "b.db", first=1000, systems=())
    before, whole = rows(into), source.read_bytes()
    for length in (len(whole) // 2, len(whole) - 5000, 100, 10):
        source.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"truncated|not a SQLite file"):
            merge(into, [source])
    source.write_bytes(whole)
    with sqlite3.connect(source) as connection:
        connection.execute("UPDATE whiteboard_alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(SchemaError, match="newer"):
        merge(into, [source])
    assert rows(into) == before


def test_a_forged_page_in_a_source_stays_there(tmp_path: Path) -> None:
    """A page whose digest fits but whose header lies is counted and left out, and the others arrive."""
    source = filled(tmp_path / "b.db", systems=())
    with sqlite3.connect(source) as connection:
        header, data = connection.execute("SELECT header, data FROM page WHERE id = 3").fetchone()
        forged = header.replace(b"<f8", b"|O8", 1)
        connection.execute("UPDATE page SET header = ?, digest = ? WHERE id = 3", (forged, digest_of(forged, data)))
    connection.close()
    (done,) = merge(tmp_path / "a.db", [source])
    assert (done.damaged, done.packages.added) == (1, 200)
    assert_whole(tmp_path / "a.db")


def test_a_full_disk_half_way(tmp_path: Path) -> None:
    """Where the target may not grow, the error is one line, it is whole, and with room the same call ends."""
    source, into = filled(tmp_path / "a.db"), filled(tmp_path / "b.db", first=1000, systems=())
    code = (
        "import resource, sys\n"
        "from whiteboard.errors import StoreError\n"
        "from whiteboard.storage.transfer import merge, merge_packages\n"
        "merge_packages.BATCH_BYTES = 1\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))\n"
        "try: merge.merge(sys.argv[1], [sys.argv[2]])\n"
        "except StoreError as error: sys.exit(str(error))"
    )
    done = run_code(code, str(into), str(source))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert_whole(into)
    assert 40 <= len(numbers_held(into, range(1240))) < 480
    merge(into, [source])
    assert held(into) == held(source)
    assert numbers_held(into, range(1240)) == {*range(240), *range(1000, 1240)}
    assert_whole(into)
