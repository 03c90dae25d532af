"""Every released schema: its frozen store is upgraded and used, downgraded where that loses nothing, or neither."""

from __future__ import annotations

import gzip
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.script import ScriptDirectory

import whiteboard as wb
from tests.processes import run_code
from tests.storage.moving import assert_whole
from tests.storage.samples import sql, transaction
from whiteboard.errors import SchemaError, StoreError
from whiteboard.storage import open_store
from whiteboard.storage.sqlite import gathered_index, recent_index, schema

ASSETS = Path(__file__).resolve().parents[2] / "assets"
REVISIONS = sorted(path.name.removeprefix("schema-").removesuffix(".db.gz") for path in ASSETS.glob("schema-*.db.gz"))


def thawed(revision: str, path: Path) -> dict[str, Any]:
    """Write the frozen store of a revision to `path`; returns what is in it."""
    path.write_bytes(gzip.decompress((ASSETS / f"schema-{revision}.db.gz").read_bytes()))
    holds: dict[str, Any] = json.loads((ASSETS / f"schema-{revision}.json").read_text("utf-8"))
    return holds


def test_every_schema_is_frozen() -> None:
    """Each revision of the migrations has a frozen store, made by `scripts/freeze-schema`."""
    scripts = ScriptDirectory.from_config(schema.alembic_config())
    assert sorted(script.revision for script in scripts.walk_revisions()) == REVISIONS


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_frozen_store_is_upgraded_and_used(revision: str, tmp_path: Path) -> None:
    """After the upgrade all packages, systems and commits are there, the next commit goes on, and nothing differs."""
    path = tmp_path / "a.db"
    holds = thawed(revision, path)
    changed = schema.upgrade(path)
    assert (changed.before, changed.after) == (revision, schema.HEAD)
    assert schema.differences(path) == []
    with wb.open(path) as board:
        assert board.stats()["packages"] == holds["packages"]
        for name, digests in holds["systems"].items():
            system = board.system(name)
            assert [commit.digest for commit in system.history()] == digests
            assert [system.at(number).digest() for number in range(len(digests))] == digests
            system.process(wb.JobBatch("distance", [[0, 1], [2, 3]], target=np.ones(2), attr="p"))
            assert system.commit(wb.rules.StressDescent(omega=0.5)).id == len(digests)
        a, b = np.random.default_rng(0).normal(size=(2, 20, 4))
        # On a machine of other arithmetic the packages are there, but not found: their keys name what they came from.
        np.testing.assert_allclose(board.call_many("mul", a, b).y, holds["products"], rtol=1e-15)
    assert_whole(path)


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_the_copy_is_the_store_as_it_was(revision: str, tmp_path: Path) -> None:
    """An upgrade first copies the file beside itself, readable by its owner alone, and never over another copy."""
    path = tmp_path / "a.db"
    thawed(revision, path)
    first = schema.upgrade(path).copy
    assert first == Path(f"{path}.before-{schema.HEAD}")
    assert schema.current(first) == revision
    assert first.stat().st_mode & 0o777 == 0o600
    kept = first.read_bytes()
    thawed(revision, path)
    assert schema.upgrade(path).copy == Path(f"{first}.1")
    assert first.read_bytes() == kept
    schema.upgrade(first)
    assert_whole(first)


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_a_downgrade_that_loses_nothing(revision: str, tmp_path: Path) -> None:
    """Down and up again the store is the same, statement by statement and row by row; what was recent is settled."""
    path = tmp_path / "a.db"
    thawed(schema.HEAD, path)
    if revision < "0004":  # which has no place for what was recent
        with open_store(tmp_path / "a.db") as stores, transaction(stores.database) as connection:
            recent_index.settle(connection)
    before = _dump(path)
    thawed(schema.HEAD, path)
    assert schema.downgrade(path, revision).after == revision
    with pytest.raises(SchemaError, match="older than"):
        wb.open(path)
    thawed(revision, tmp_path / "old.db")
    assert _schema(path) == _schema(tmp_path / "old.db")
    schema.upgrade(path)
    assert _dump(path) == before


def test_a_downgrade_gives_rows_to_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Index rows that wait by parts are in the index of a schema that knows no parts."""
    path = tmp_path / "a.db"
    thawed(schema.HEAD, path)
    monkeypatch.setattr(recent_index, "_due", lambda *_: [])
    with open_store(path) as stores, transaction(stores.database) as connection:
        recent_index.move_on(connection)
        wanted = gathered_index.index(connection)
    schema.downgrade(path, "0005")
    assert len(wanted) > 10
    assert sql(path, "SELECT hash, page_id, slot FROM package ORDER BY 1") == sorted(map(tuple, wanted.tolist()))


def test_a_downgrade_that_loses_something_is_refused(tmp_path: Path) -> None:
    """Where the older schema has no place for something, the downgrade says for what, and the store is as it was."""
    path = tmp_path / "a.db"
    thawed(schema.HEAD, path)
    with wb.open(path) as board:
        board.gc(max_bytes=0)
    before = _dump(path)
    with pytest.raises(SchemaError, match="no place for the count of what was evicted"):
        schema.downgrade(path, "0001")
    assert _dump(path) == before
    assert schema.downgrade(path, "0002").after == "0002"


@pytest.mark.parametrize("revision", ["0000", "9999", "base", "head", "-1", ""])
def test_a_revision_that_is_none_is_refused(revision: str, tmp_path: Path) -> None:
    """Only revisions that there are, and that are not newer, can be gone back to; the error names them."""
    path = tmp_path / "a.db"
    thawed(schema.HEAD, path)
    with pytest.raises(SchemaError, match="name one of 0001, 0002"):
        schema.downgrade(path, revision)


def test_differences_are_named(tmp_path: Path) -> None:
    """A table, an index or a trigger that is missing, or too many, is named."""
    path = tmp_path / "a.db"
    thawed(schema.HEAD, path)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP INDEX ix_page_op")
        connection.execute("DROP TRIGGER system_head")
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    assert schema.differences(path) == [
        "index ix_page_op is missing",
        "table mine does not belong here",
        "trigger system_head is missing",
    ]


_KILLED = (
    "import os, signal, sys; from whiteboard.storage.sqlite import database, schema\n"
    "count, at = 0, int(sys.argv[2])\n"
    "class Watched(database.Database):\n"
    "    def _connect(self):\n"
    "        raw = super()._connect()\n"
    "        raw.set_trace_callback(seen)\n"
    "        return raw\n"
    "def seen(statement):\n"
    "    global count\n"
    "    count += 1\n"
    "    if count == at: os.kill(os.getpid(), signal.SIGKILL)\n"
    "schema.Database = Watched\n"
    "getattr(schema, sys.argv[3])(sys.argv[1], *sys.argv[4:])\n"
    "print(count)"
)


@pytest.mark.parametrize(("way", "start"), [(("upgrade",), "0001"), (("downgrade", "0001"), schema.HEAD)])
def test_killed_at_every_statement(way: tuple[str, ...], start: str, tmp_path: Path) -> None:
    """A migration that dies at any statement leaves the old schema or the new one, and is done by the next call."""
    path = tmp_path / "a.db"
    thawed(start, path)
    done = run_code(_KILLED, str(path), "0", *way)
    assert done.returncode == 0, done.stderr
    statements = int(done.stdout)
    end = schema.current(path)
    want = _dump(path)
    old = thawed(start, tmp_path / "old.db") and _dump(tmp_path / "old.db")
    for at in range(1, statements + 1, 1 if statements < 40 else 2):
        for left in tmp_path.glob("a.db*"):
            left.unlink()
        thawed(start, path)
        assert run_code(_KILLED, str(path), str(at), *way).returncode == -9
        stands = schema.current(path)
        assert stands in (start, end)
        assert _dump(path) == (old if stands == start else want)
        if stands == start:
            getattr(schema, way[0])(path, *way[1:])
        assert _dump(path) == want


def _schema(path: Path) -> list[Any]:
    """Every statement, without the spaces and quotes in which a migration and a new store may differ."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
    connection.close()
    return [(kind, name, re.sub(r"[\"\s]", "", str(sql))) for kind, name, sql in rows]


def _dump(path: Path) -> list[Any]:
    """Every statement and every row, and no lock or log that a reader leaves."""
    with sqlite3.connect(path) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
        rows = [
            (name, connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall())
            for name in names
            if name != "whiteboard_alembic_version"
        ]
        rows.append(("version", connection.execute("SELECT * FROM whiteboard_alembic_version").fetchall()))
    connection.close()
    return [_schema(path), rows]


def test_no_room_for_the_copy_leaves_the_store(tmp_path: Path) -> None:
    """Where the copy cannot be written the upgrade is refused in one line, and no half copy is left."""
    path = tmp_path / "a.db"
    thawed("0001", path)
    before = _dump(path)
    code = (
        "import resource, sys; from whiteboard.errors import StoreError; from whiteboard.storage.sqlite import schema\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "try: schema.upgrade(sys.argv[1])\n"
        "except StoreError as error: sys.exit(str(error))"
    )
    done = run_code(code, str(path))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert _dump(path) == before
    assert not list(tmp_path.glob("*before*"))


def test_what_is_no_store_is_not_migrated(tmp_path: Path) -> None:
    """A file of another application, or none, is left alone by every change of schema."""
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE x (y)")
    connection.close()
    before = path.read_bytes()
    for change in (schema.upgrade, lambda url: schema.downgrade(url, "0001"), schema.differences):
        with pytest.raises(StoreError):
            change(path)
    assert path.read_bytes() == before


_HOLDS = {
    "a board": "import whiteboard as wb; held = wb.open(sys.argv[1])",
    "a board for reading": "import whiteboard as wb; held = wb.open(sys.argv[1], readonly=True)",
    "a writer of a system": (
        "import whiteboard as wb; held = wb.open(sys.argv[1]); s = held.system('new'); "
        "s.add_nodes([1], theta=[1.0]); s.commit()"
    ),
    "another version": (
        "import sqlite3; held = sqlite3.connect(sys.argv[1]); held.execute('SELECT count(*) FROM system').fetchall()"
    ),
}


@pytest.mark.parametrize("what", _HOLDS)
def test_a_store_that_is_open_is_not_migrated(what: str, tmp_path: Path) -> None:
    """While another process has it open, be it idle and for reading, both ways are refused at once, by its number."""
    path = tmp_path / "a.db"
    thawed("0002" if what == "another version" else schema.HEAD, path)
    code = f"import sys; {_HOLDS[what]}; print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        before = _dump(path)
        changes: list[Callable[[], object]] = [lambda: schema.downgrade(path, "0001")]
        if what == "another version":
            changes.append(lambda: schema.upgrade(path))
        for change in changes:
            with pytest.raises(StoreError, match=rf"is open in .*(process {other.pid} on|cannot see)") as refused:
                change()
            assert "\n" not in str(refused.value)
        assert _dump(path) == before
        assert not list(tmp_path.glob("*before*"))
        other.communicate("\n")
    schema.downgrade(path, "0002")
    schema.upgrade(path)
    assert_whole(path)


def test_a_store_that_is_open_here_is_not_migrated(tmp_path: Path) -> None:
    """A board of this process is noticed too, goes on, and is in nobody's way once it is closed."""
    path = tmp_path / "a.db"
    with wb.open(path) as board:
        with pytest.raises(StoreError, match="is open in this process; close it there first"):
            schema.downgrade(path, "0003")
        board.call("exp", np.ones(3))
        board.flush()
    assert schema.downgrade(path, "0003").after == "0003"


def test_upgrades_that_race_make_one_copy(tmp_path: Path) -> None:
    """Processes that come to upgrade one store at once all find it upgraded; one of them has done it."""
    path = tmp_path / "a.db"
    thawed("0001", path)
    code = "import sys; from whiteboard.storage.sqlite import schema; input(); print(schema.upgrade(sys.argv[1]).after)"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    assert [racer.communicate()[0].strip() for racer in racers] == [schema.HEAD] * 4
    assert len(list(tmp_path.glob("*before*"))) == 1
    assert_whole(path)


def test_a_downgrade_makes_no_store(tmp_path: Path) -> None:
    """A path that leads to none is an error, and still leads to none."""
    with pytest.raises(StoreError, match="does not exist"):
        schema.downgrade(tmp_path / "a.db", "0001")
    assert list(tmp_path.iterdir()) == []
