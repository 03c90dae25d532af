"""Stores made by somebody else, whose rows hold what no store writes: right answers or one error, and a way out."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.storage.samples import database_of, transaction
from whiteboard.cli import status
from whiteboard.storage.sqlite import recent_index
from whiteboard.storage.sqlite.bounds import VALUE_BYTES
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.merge import merge

X = np.arange(10.0).reshape(5, 2)


@dataclass(frozen=True, slots=True)
class Case:
    """Statements that spoil a store, and what is then said of it: when it is opened, or else by `verify`."""

    id: str
    sql: tuple[str, ...]
    says: str


def case(name: str, sql: str | Sequence[str], says: str) -> Any:
    return pytest.param(Case(name, (sql,) if isinstance(sql, str) else tuple(sql), says), id=name)


LARGE = f"zeroblob({VALUE_BYTES + 1})"
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x"
SELF = "UPDATE system SET origin_id = id, origin_number = 0 WHERE name = 'y'"

REFUSED = [
    case(
        "an endless view for pages",
        [
            "DROP TABLE page",
            f"CREATE VIEW page AS {ENDLESS} AS id, 'mul' AS op, 1 AS n, 1 AS nbytes, 1 AS cost_ns, x'00' AS header, "
            "x'00' AS digest, x'00' AS data FROM c",
        ],
        "schema was changed",
    ),
    case("a trigger", "CREATE TRIGGER t AFTER INSERT ON writer BEGIN DELETE FROM commit_log; END", "trigger t"),
    case("a table less", "DROP TABLE recent", "table recent is missing"),
    case("a column less", "ALTER TABLE page DROP COLUMN cost_ns", "table page differs"),
    case("a revision of bytes", "UPDATE whiteboard_alembic_version SET version_num = x'ff'", "its schema"),
    case("a large revision", f"UPDATE whiteboard_alembic_version SET version_num = {LARGE}", "is damaged"),
]

PAGES = [
    case("op of bytes", "UPDATE page SET op = x'ff41'", "its op is b'\\xffA'"),
    case("op not in UTF-8", "UPDATE page SET op = CAST(x'ff41' AS TEXT)", "its op is '\\udcffA'"),
    case("a large op", f"UPDATE page SET op = CAST({LARGE} AS TEXT)", "value of more than"),
    case("n of text", "UPDATE page SET n = 'abc'", "its n is 'abc'"),
    case("a large n", "UPDATE page SET n = 1 << 62", "its n is 4611686018427387904"),
    case("a negative n", "UPDATE page SET n = -5", "its n is -5"),
    case("nbytes of text", "UPDATE page SET nbytes = 'abc'", "its nbytes is 'abc'"),
    case("cost of text", "UPDATE page SET cost_ns = 'abc'", "its cost_ns is 'abc'"),
    case("cost as a fraction", "UPDATE page SET cost_ns = 0.5", "its cost_ns is 0.5"),
    case("a negative id", "UPDATE page SET id = -1 WHERE id = (SELECT max(id) FROM page)", "its id is -1"),
    case("header of text", "UPDATE page SET header = 'abc'", "packages are lost"),
    case("a large header", f"UPDATE page SET header = {LARGE}", "packages are lost"),
    case("digest of a number", "UPDATE page SET digest = 5", "packages are lost"),
    case("data of a number", "UPDATE page SET data = 5", "packages are lost"),
    case("large data", f"UPDATE page SET data = {LARGE}", "packages are lost"),
    case("more data than has digests", "UPDATE page SET data = zeroblob(1000000)", "packages are lost"),
]

INDEX = [
    case("hashes of text", "UPDATE recent SET hashes = 'abc'", "recent: 1 rows that hold no hashes"),
    case("hashes cut", "UPDATE recent SET hashes = x'0102'", "recent: 1 rows that hold no hashes"),
    case("large hashes", f"INSERT INTO recent VALUES (77, {LARGE})", "recent: 1 rows that hold no hashes"),
    case("many hashes", "INSERT INTO recent VALUES (77, zeroblob(1600000))", "200,000 rows of pages that are not"),
    case("waiting text", "INSERT INTO gathered VALUES (1, 1, 'abc', x'')", "gathered: 1 rows that hold no index rows"),
    case("waiting for none", "INSERT INTO gathered VALUES (1, 1, zeroblob(8), zeroblob(16))", "1 rows of pages that"),
    case("bits cut", "INSERT INTO known VALUES (1 << 62, 1, x'01')", "known: 1 rows that hold no bits of hashes"),
    case(
        "no bits",
        "INSERT INTO known SELECT hash >> 57, 1, zeroblob(1024) FROM package WHERE hash > 0 LIMIT 1",
        "leaves out ",
    ),
    case("a package of text", "INSERT INTO package VALUES (5, 'a', 'b')", "1 rows of pages that are not there"),
    case("a negative hash", "INSERT INTO package SELECT -5, min(id), 1 FROM page", "1 rows that lead to other"),
    case("a large slot", "INSERT INTO package SELECT 5, min(id), (1 << 62) FROM page", "1 rows that lead to other"),
    case("uses of text", "UPDATE page_access SET last_use = 'abc', hits = 'b'", "page_access is damaged"),
    case("uses of the future", "UPDATE page_access SET hits = -1", "its hits is -1"),
    case("evictions of text", "INSERT INTO eviction VALUES ('gc', 'a', 'b', 'c', 'd')", "its pages is 'a'"),
    case("a reason of bytes", "INSERT INTO eviction VALUES (x'ff', 1, 1, 1, 1)", "its reason is b'\\xff'"),
    case("a large reason", f"INSERT INTO eviction VALUES (CAST({LARGE} AS TEXT), 1, 1, 1, 1)", "value of more than"),
    case("a writer of text", "INSERT INTO writer VALUES ('x', 't', 'h', 'b', 'abc', 1)", "its pid is 'abc'"),
    case("a negative writer", "INSERT INTO writer VALUES ('x', 't', 'h', 'b', -1, 1)", "its pid is -1"),
    case("a writer of bytes", "INSERT INTO writer VALUES (x'ff', 't', x'ff', 'b', 1, 1)", "its name is b'\\xff'"),
]

SYSTEMS = [
    case("a fork of itself", SELF, "has no beginning"),
    case(
        "forks of each other",
        [SELF.replace("= id", "= (SELECT id FROM system WHERE name = 'x')"), SELF.replace("= id", "= 2")[:-4] + "'x'"],
        "has no beginning",
    ),
    case("a name not in UTF-8", "UPDATE system SET name = CAST(x'ff41' AS TEXT) WHERE name = 'x'", "its name is"),
    case("a name of bytes", "UPDATE system SET name = x'ff41' WHERE name = 'x'", "its name is b'\\xffA'"),
    case("a name of two lines", "UPDATE system SET name = 'a' || char(10) || 'b' WHERE name = 'x'", "this is no name"),
    case("no name", "UPDATE system SET name = '' WHERE name = 'x'", "this is no name"),
    case("a large name", f"UPDATE system SET name = CAST({LARGE} AS TEXT) WHERE name = 'x'", "value of more than"),
    case("head of text", "UPDATE system SET head = 'x'", "its head is 'x'"),
    case("spec of bytes", "UPDATE system SET spec = x'00'", "its spec is b'\\x00'"),
    case("spec of a number", "UPDATE system SET spec = 5", "the specification is 5"),
    case("a spec that is none", "UPDATE system SET spec = '{bad'", "the specification cannot be read"),
    case("a deep spec", "UPDATE system SET spec = printf('%.100000c', '[')", "nested too deeply"),
    case("a wide spec", "UPDATE system SET spec = printf('%.1000000c', ',')", "more than 262144 values"),
    case("a large spec", f"UPDATE system SET spec = CAST({LARGE} AS TEXT)", "value of more than"),
    case("uuid of bytes", "UPDATE system SET uuid = x'00'", "its uuid is b'\\x00'"),
    case("origin of text", "UPDATE system SET origin_number = 'x' WHERE name = 'y'", "its origin_number is 'x'"),
    case("half an origin", "UPDATE system SET origin_number = NULL WHERE name = 'y'", "is said by halves"),
    case("no origin", "UPDATE system SET origin_id = 999 WHERE name = 'y'", "was forked from is gone"),
]

COMMITS = [
    case("number of text", "UPDATE commit_log SET number = 'abc' WHERE number = 1", "its number is 'abc'"),
    case("a large number", "UPDATE commit_log SET number = 1 << 62 WHERE number = 1", "the commit is missing"),
    case("a negative number", "UPDATE commit_log SET number = -7 WHERE number = 1", "its last commit is 1"),
    case("keyframe of text", "UPDATE commit_log SET keyframe = 'a'", "its keyframe is 'a'"),
    case("rows of text", "UPDATE commit_log SET rows = 'a'", "its rows is 'a'"),
    case("digest of bytes", "UPDATE commit_log SET digest = x'00'", "its digest is b'\\x00'"),
    case("stress of text", "UPDATE commit_log SET stress = 'x'", "its stress is 'x'"),
    case("changed of text", "UPDATE commit_log SET changed = 'x'", "its changed is 'x'"),
    case("parent of text", "UPDATE commit_log SET parent = 'x' WHERE number = 1", "its parent is 'x'"),
    case("seal of text", "UPDATE commit_log SET seal = 'x'", "its seal is 'x'"),
    case("another system's", "UPDATE commit_log SET system_id = 99 WHERE number = 1", "system: row 99 is gone"),
    case("part of text", "UPDATE node_page SET part = 'x'", ""),
    case(
        "number of text in pages", "UPDATE node_page SET number = 'x' WHERE number = 1", "not those that were written"
    ),
    case("header of text in pages", "UPDATE node_page SET header = 'x'", "the digest does not fit"),
    case("a large header in pages", f"UPDATE node_page SET header = {LARGE}", "value of more than"),
    case("data of a number in pages", "UPDATE node_page SET data = 5", "the digest does not fit"),
    case("more data in pages than has digests", "UPDATE node_page SET data = zeroblob(1000000)", "does not fit"),
    case("digest of a number in pages", "UPDATE node_page SET digest = 5", "not those that were written"),
    case("pages of nobody", "UPDATE node_page SET system_id = 'x'", "node_page: 2 rows that belong to no system"),
]

ROWS = [*PAGES, *INDEX, *SYSTEMS, *COMMITS]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two systems, one a fork, and packages with rows in both parts of the index."""
    path = tmp_path_factory.mktemp("whole") / "a.db"
    with wb.open(path) as board:
        system = board.system("x", {"a": 1})
        system.add_nodes(range(3), theta=np.ones((3, 2)))
        system.commit()
        system.write(0, theta=[2.0, 2.0])
        system.commit()
        system.fork("y")
        board.call_many("mul", np.ones((5, 2)), X)
        board.flush()
        with transaction(database_of(board)) as connection:
            recent_index.settle(connection)
        board.call_many("add", np.ones((5, 2)), X)
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "a.db"))


def spoil(path: Path, case: Case) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in case.sql:
            connection.execute(statement)


def told(path: Path) -> dict[str, Any]:
    """What a store says of each system, or the error that it gives."""
    found: dict[str, Any] = {}
    with wb.open(path, readonly=True) as board:
        versions = board._store.versions
        for name in ("x", "y", "g"):
            try:
                if versions.system(name) is not None:
                    states = [versions.state(name, number) for number in range(len(versions.commits(name)))]
                    found[name] = [_plain(state) for state in states]
            except wb.WhiteboardError as error:
                found[name] = error
    return found


def _plain(state: Any) -> Any:
    columns = [(c.attr, c.ids.tobytes(), c.versions.tobytes(), c.values.tobytes()) for c in state.columns]
    return state.commit, columns


def answers(path: Path) -> None:
    """What is asked of a board is right, whether it is found or computed."""
    with wb.open(path) as board:
        np.testing.assert_array_equal(board.call_many("mul", np.ones((5, 2)), X).y, X)
        np.testing.assert_array_equal(board.call_many("add", np.ones((5, 2)), X).y, X + 1)


def reads(path: Path) -> Iterator[Any]:
    yield partial(wb.open, path, readonly=True)
    for ask in ("systems", "info", "stats", "verify", "audit"):
        yield partial(_ask, path, ask)
    yield partial(answers, path)
    yield partial(told, path)
    yield partial(export, path, path.with_suffix(".wb"))
    yield partial(_ask, path, "gc", max_bytes=0)


def _ask(path: Path, ask: str, **given: Any) -> None:
    with wb.open(path, readonly=not given) as board:
        getattr(board, ask)(**given)


@pytest.mark.parametrize("case", [*REFUSED, *ROWS])
def test_a_read_is_right_or_one_error(path: Path, whole: Path, case: Case) -> None:
    """Of all that reads a store, whatever is in it."""
    spoil(path, case)
    for read in reads(path):
        try:
            found = read()
        except wb.StoreError as refused:
            lines = str(refused).splitlines()
            assert len(lines) == 1
        else:
            if read.func is told:
                right = told(whole)
                assert all(right[name] == each for name, each in found.items() if not isinstance(each, Exception))
            elif isinstance(found, wb.Board):
                found.close()


@pytest.mark.parametrize("case", [*REFUSED, *ROWS])
def test_a_command_ends_with_one_line(path: Path, case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """And with a status; a traceback would come through here."""
    spoil(path, case)
    commands = (
        "ls", "show x", "log x", "info", "verify", "audit", "diff x y", "explain --system x --job mul 0 1", "db check",
        "gc --dry-run", "fork x z", "rm y --dry-run",
    )  # fmt: skip
    for command in commands:
        code = status([*command.split(), "--store", str(path)])
        said = capsys.readouterr()
        assert code in (0, 1, 2), command
        assert len(said.err.splitlines()) <= 1, (command, said.err)
        assert bool(said.err) or code == 0 or command in ("ls", "verify", "audit", "db check", "diff x y"), command


@pytest.mark.parametrize("case", REFUSED)
def test_a_changed_schema_is_said_at_open(path: Path, case: Case) -> None:
    """By what was changed."""
    spoil(path, case)
    with pytest.raises(wb.StoreError) as refused:
        wb.open(path)
    assert case.says in str(refused.value)


@pytest.mark.parametrize("case", ROWS)
def test_verify_names_the_row_and_all_can_be_removed(path: Path, case: Case) -> None:
    """A repair takes what nobody can read, and `remove` each system that is damaged; then nothing is."""
    spoil(path, case)
    with wb.open(path) as board:
        report = board.verify()
        said = [page.why for page in report.damaged] + [why for each in report.systems for _, why in each.damaged]
        said += [*report.unreadable, f"{report.dangling:,} rows of pages that are not there"]
        said += [
            f"{report.misplaced:,} rows that lead to other packages",
            *map("{0.packages} packages are lost".format, report.damaged),
        ]
        assert any(case.says in line for line in said), said
        assert not report.ok or not case.says
        board.verify(repair=True)
        for system in board.verify().systems:
            if system.damaged:
                board.remove(system.name)
        assert board.verify().ok
        board.systems(), board.info(), board.gc(max_bytes=0)
    answers(path)


@pytest.mark.parametrize("case", ROWS)
def test_a_merge_leaves_the_good_store_good(path: Path, tmp_path: Path, case: Case) -> None:
    """Whether it takes something or is refused."""
    spoil(path, case)
    good = tmp_path / "good.db"
    with wb.open(good) as board:
        board.system("g").add_nodes(range(3), theta=np.ones((3, 2)))
        board.system("g").commit()
    before = told(good)["g"]
    with contextlib.suppress(wb.StoreError):
        merge(good, [path])
    assert told(good)["g"] == before
    with wb.open(good) as board:
        assert board.verify().ok
    answers(good)


def test_commits_whose_system_has_lost_its_row_are_kept(path: Path) -> None:
    """A repair gives them a row again, under another name: the state is the same, to the digest, and goes on."""
    with wb.open(path) as board:
        system = board.system("lost")
        system.add_nodes(range(3), theta=np.arange(6.0).reshape(3, 2))
        system.commit()
        system.write(0, theta=[7.0, 8.0])
        digest = system.commit().digest
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DELETE FROM system WHERE name = 'lost'")
    connection.close()
    with wb.open(path) as board:
        before = set(board.systems())
        report = board.verify()
        assert not report.ok
        assert re.search(r"system: row \d+ is gone, and its commits are there", "\n".join(report.unreadable))
        assert set(board.systems()) == before
        board.verify(repair=True)
        assert board.verify().ok
        (name,) = set(board.systems()) - before
        found = board.system(name)
        assert (found.digest(), len(found.history())) == (digest, 2)
        found.write(1, theta=[1.0, 2.0])
        assert found.commit().id == 2
        board.remove(name)
        assert board.verify().ok
