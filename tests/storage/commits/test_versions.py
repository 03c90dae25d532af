"""Versions in SQLite: keyframes bound what is read, seals show what is missing, commits carry the packages."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.samples import Model, assert_found, assert_state, key_of, page_of, sql, transaction
from whiteboard.errors import ConflictError, CorruptPackageError
from whiteboard.records.systems import CommitRecord, NodeColumns, SystemRecord
from whiteboard.storage import Stores, open_store
from whiteboard.storage.commits import versions
from whiteboard.storage.sqlite.rows import COUNT_PACKAGES
from whiteboard.storage.upkeep.verify import verify


def _write(stores: Stores, model: Model, steps: int, rows: Any = slice(None)) -> None:
    for _ in range(steps):
        commit, changed = model.step(slice(None) if model.number < 0 else rows)
        stores.versions.append(model.record, commit, changed, model.columns)


def test_keyframes_bound_what_is_read(stores: Stores, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows since a keyframe stay under twice the system's, commits under the bound, and bytes under 1.5 times."""
    monkeypatch.setattr(versions, "KEYFRAME_COMMITS", 20)
    model = Model("a", 60)
    _write(stores, model, 1)
    for rows in (1, 7, 30, 59, 1, 60):
        _write(stores, model, 25, slice(rows))
    since = commits = written = changed = 0
    for keyframe, rows, count in sql(path, "SELECT keyframe, rows, changed FROM commit_log ORDER BY number"):
        since, commits = (0, 0) if keyframe else (since + rows, commits + 1)
        assert since < 2 * 60
        assert commits < 20
        written, changed = written + rows, changed + count
    assert written <= 1.5 * changed + 60 * (151 // 20)
    for commit, columns in model.kept[::7]:
        assert_state(stores.versions.state("a", commit.number), commit, columns)


def test_a_commit_of_every_row_is_a_keyframe(stores: Stores, path: Path) -> None:
    """Where each commit changes all rows, nothing is written twice and every commit is read alone."""
    _write(stores, Model("a", 10), 5)
    assert sql(path, "SELECT keyframe, rows FROM commit_log") == [(1, 10)] * 5


def test_keyframes_after_opening_again(path: Path) -> None:
    """The count of rows since a keyframe goes on where another process left it."""
    model = Model("a", 10)
    for _ in range(12):
        with open_store(path) as stores:
            _write(stores, model, 1, slice(6))
    assert sql(path, "SELECT number FROM commit_log WHERE keyframe = 1") == [(0,), (4,), (8,)]
    with open_store(path) as stores:
        assert_state(stores.versions.state("a"), *model.kept[-1])


def test_a_system_that_grows(stores: Stores) -> None:
    """Nodes that come later are in every state since, those of one commit in several parts too."""
    model = Model("a", 2)
    _write(stores, model, 1)
    for _ in range(6):
        n = len(model.ids)
        model.ids = np.arange(2 * n, dtype=np.int64) * 2
        model.versions = np.concatenate([model.versions, np.zeros(n, np.int64)])
        model.fixed = model.ids % 4 == 0
        model.values = np.concatenate([model.values, model.rng.normal(size=(n, 3))])
        _write(stores, model, 1, slice(n, None))
        _write(stores, model, 2, slice(n - 1, n + 1))
    for commit, columns in model.kept:
        assert_state(stores.versions.state("a", commit.number), commit, columns)


def test_large_arenas_are_cut(stores: Stores, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An arena larger than a part is written in several pages and read as one."""
    monkeypatch.setattr(versions, "_PART_BYTES", 1000)
    model = Model("a", 100)
    _write(stores, model, 2)
    assert sql(path, "SELECT count(*) FROM node_page WHERE number = 0") == [(5,)]
    assert_state(stores.versions.state("a"), *model.kept[-1])


def test_a_commit_carries_the_packages(stores: Stores, path: Path) -> None:
    """When append returns, the packages put before it are on disk with it; when it fails, neither is."""
    model = Model("a", 3)
    stores.packages.put(page_of(range(10)))
    _write(stores, model, 1)
    assert sql(path, COUNT_PACKAGES) == [(10,)]
    stores.packages.put(page_of(range(10, 20)))
    with pytest.raises(ConflictError):
        stores.versions.append(model.record, CommitRecord(9, 8, 0, None, None, ""), [], list)
    assert sql(path, COUNT_PACKAGES) == [(10,)]
    assert_found(stores.packages.find([key_of(i) for i in range(20)]), range(20), lambda _: True)
    _write(stores, model, 1)
    assert sql(path, COUNT_PACKAGES) == [(20,)]


def test_what_is_not_a_number(stores: Stores) -> None:
    """SQLite has no NaN: a stress that is none is kept as None, infinities as they are."""
    model = Model("a", 1)
    commit = CommitRecord(0, None, 1, float("nan"), float("inf"), "d")
    stores.versions.append(model.record, commit, model.columns(), model.columns)
    assert stores.versions.state("a").commit == CommitRecord(0, None, 1, None, float("inf"), "d")


DAMAGE = {
    "data": "UPDATE node_page SET data = zeroblob(length(data)) WHERE number = 2",
    "digest": "UPDATE node_page SET digest = zeroblob(16) WHERE number = 2",
    "a page is gone": "DELETE FROM node_page WHERE number = 2",
    "another commit's page": (
        "UPDATE node_page SET (header, digest, data) = "
        "(SELECT header, digest, data FROM node_page WHERE number = 1) WHERE number = 2"
    ),
    "stress": "UPDATE commit_log SET stress = 0.25 WHERE number = 2",
    "digest of the commit": "UPDATE commit_log SET digest = 'x' WHERE number = 2",
    "keyframe": "UPDATE commit_log SET keyframe = 1 WHERE number = 2",
    "a commit is gone": "DELETE FROM commit_log WHERE number = 2",
    "the keyframe is gone": "DELETE FROM commit_log WHERE number = 0",
    "uuid": "UPDATE system SET uuid = 'another'",
    "text": "UPDATE node_page SET data = 'text', header = 'text' WHERE number = 2",
    "types": "UPDATE commit_log SET stress = 'text', changed = x'00' WHERE number = 2",
}


@pytest.mark.parametrize("statement", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_commit_is_never_an_answer(path: Path, statement: str) -> None:
    """A state that needs a commit which is damaged or gone is an error that names system and commit."""
    model = Model("a", 10)
    damaged_row = "SET data" not in statement
    with open_store(path) as stores:
        _write(stores, model, 4, slice(2))
    sql(path, statement)
    with open_store(path) as stores:
        with pytest.raises(CorruptPackageError, match=r"'a'.*\d"):
            stores.versions.state("a")
        with pytest.raises(CorruptPackageError, match=r"'a'.*\d") if damaged_row else nullcontext():
            stores.versions.commits("a")
        if "uuid" not in statement and "number = 0" not in statement:
            assert_state(stores.versions.state("a", 1), *model.kept[1])


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 10), st.booleans()), min_size=1, max_size=14
    )
)
def test_any_history(steps: list[tuple[str, int, int, bool]]) -> None:
    """Whatever rows the commits of two systems and their forks change, each state is the one that was written."""
    with pytest.MonkeyPatch.context() as patch, open_store(":memory:") as stores:
        patch.setattr(versions, "KEYFRAME_COMMITS", 4)
        models = {name: Model(name, 10, seed=ord(name)) for name in "ab"}
        for model in models.values():
            _write(stores, model, 1)
        for name, start, stop, fork in steps:
            model = models[name]
            if fork:
                record = SystemRecord(f"{model.record.name}'", "u", None, (model.record.name, model.number))
                stores.versions.fork(record)
                model.record = record
            _write(stores, model, 1, slice(start, max(start, stop)))
        for model in models.values():
            assert stores.versions.commits(model.record.name) == [commit for commit, _ in model.kept]
            for commit, columns in model.kept:
                assert_state(stores.versions.state(model.record.name, commit.number), commit, columns)


def test_nodes_of_any_attribute(stores: Stores) -> None:
    """An attribute has any name that a node's can have, and arrays of zero-size rows are kept."""
    columns = [
        NodeColumns(attr, np.array([1], np.int64), np.array([0], np.int64), np.array([True]), np.zeros((1, *shape)))
        for attr, shape in (("ctrl_2", (0,)), ("p", (2,)), ("ctrl_2", (3,)))
    ]
    commit = CommitRecord(0, None, 3, None, None, "d")
    stores.versions.append(SystemRecord("ß \"'", "u"), commit, columns[:2], lambda: columns[:2])
    assert_state(stores.versions.state("ß \"'"), commit, columns[:2])


def test_a_commit_lost_from_the_end_shows(tmp_path: Path) -> None:
    """A log that ends before the system's head is damage, not an older state; verify names the last whole commit."""
    model = Model("a", 5)
    with open_store(tmp_path / "x.db") as stores:
        for _ in range(3):
            stores.versions.append(model.record, *model.step(), model.columns)
        with transaction(stores.database) as connection:
            connection.exec_driver_sql("DELETE FROM commit_log WHERE number = 2")
        for read in (stores.versions.state, stores.versions.commits):
            with pytest.raises(CorruptPackageError, match="'a': its last commit is 2, but the log ends at 1"):
                read("a")
        assert_state(stores.versions.state("a", 1), *model.kept[1])
        (report,) = verify(stores.database).systems
        assert report.last_whole == 1
        assert report.damaged
