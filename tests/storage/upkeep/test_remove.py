"""`remove` and `forget`: what is named goes, forks go on, nothing else changes, and a dry run foretells it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.storage.moving import assert_whole
from whiteboard.cli import status

X = np.arange(12.0).reshape(4, 3)
RULE = wb.rules.Relax(0.1, 1e-3, 1e-3)


def grow(board: wb.Board, name: str, commits: int) -> None:
    """Let a system go on by some commits."""
    system = board.system(name)
    if not len(system.nodes):
        system.add_nodes([1, 2], theta=X[:2])
    for _ in range(commits):
        system.process([wb.Job("square", (1,), 2, residual=1.0)])
        system.commit(RULE)


@pytest.fixture
def board(tmp_path: Path) -> Any:
    """A store with packages of two ops."""
    with wb.open(tmp_path / "a.db") as opened:
        opened.call_many("square", X)
        opened.call_many("exp", X)
        opened.flush()
        yield opened


def hits(board: wb.Board, op: str) -> list[bool]:
    """Which of the packages the store has."""
    with wb.open(board.info()["path"], readonly=True) as other:
        return [hit > 0 for hit in other.call_many(op, X).hit.tolist()]


# -- packages


def test_an_op_is_forgotten(board: wb.Board) -> None:
    """In the file and in this board's memory; the other op stays."""
    planned = board.forget("square", dry_run=True)
    assert (planned.pages, planned.packages, hits(board, "square")) == (1, 4, [True] * 4)
    assert board.forget("square") == planned
    assert (hits(board, "square"), hits(board, "exp")) == ([False] * 4, [True] * 4)
    assert not board.call_many("square", X).hit.any()
    assert board.forget("no such op").packages == 0
    assert_whole(Path(board.info()["path"]))


def test_one_key_is_forgotten(board: wb.Board) -> None:
    """The others of its page stay, and so does what is known of where they came from."""
    grow(board, "s", 1)
    board.flush()
    key = next(page.keys[2].tobytes() for page in board._store.summaries("exp"))
    assert board.explain_key(key).hit
    planned = board.forget(key=key.hex(), dry_run=True)
    assert (planned.packages, board.forget(key=key)) == (1, planned)
    assert not board.explain_key(key).hit
    assert (hits(board, "exp"), hits(board, "square")) == ([True, True, False, True], [True] * 4)
    assert board.forget(key=key).packages == 0
    assert board.audit().ok
    assert_whole(Path(board.info()["path"]))


def test_versions_and_ages(board: wb.Board) -> None:
    """A version is the op's, as its pages say; an age is that of the last use."""
    for version in (1, 2):
        wb.op(name="aged", version=version, replace=True, vjp=lambda g, _y, _x: g)(lambda x: x + 0.0)
        board.call("aged", X)
    board.flush()
    assert board.forget("aged", version=3, dry_run=True).packages == 0
    assert board.forget("aged", version=1).packages == 1
    assert board.forget("aged", version=1).packages == 0
    assert board.forget("aged", version=2, older_than=3600).packages == 0
    assert board.forget("aged", version=2, older_than=0).packages == 1


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "say what"),
    "a version alone": ({"version": 1, "older_than": 1}, "version= needs the op="),
    "no name": ({"op": 1}, "op: expected a name"),
    "no version": ({"op": "exp", "version": True}, "version: expected an int"),
    "no time": ({"older_than": -1}, "older_than: expected seconds"),
    "no key": ({"key": "abc"}, "key: expected 16 bytes"),
    "a short key": ({"key": b"abc"}, "key: expected 16 bytes"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_forgotten_is_said(board: wb.Board, what: str) -> None:
    """By name, and nothing goes."""
    given, says = WRONG[what]
    with pytest.raises(wb.ParamError, match=says):
        board.forget(**given)
    assert hits(board, "exp") == [True] * 4


# -- systems


def test_a_system_is_removed(board: wb.Board) -> None:
    """With its commits, and not with packages or another system; the name is free again."""
    grow(board, "s", 3)
    grow(board, "t", 2)
    digest = board.system("t").digest()
    planned = board.remove("s", dry_run=True)
    assert (planned.commits, planned.kept, planned.forks, board.systems()) == (3, 0, (), ["s", "t"])
    assert board.remove("s").commits == 3
    assert (board.systems(), hits(board, "exp")) == (["t"], [True] * 4)
    with wb.open(board.info()["path"], readonly=True) as other:
        assert other.system("t").digest() == digest
    grow(board, "s", 1)
    assert [row.id for row in board.system("s").history()] == [0]
    assert_whole(Path(board.info()["path"]))


def test_forks_go_on(board: wb.Board) -> None:
    """What they share stays under another name until the last one goes."""
    grow(board, "s", 4)
    early, late = board.system("s").fork("early", at=0), board.system("s").fork("late", at=2)
    digests = [each.digest() for each in (early, late)]
    done = board.remove("s")
    assert (done.commits, done.kept, done.forks) == (1, 3, ("early", "late"))
    assert board.systems() == ["early", "late", done.kept_as]
    with wb.open(board.info()["path"], readonly=True) as other:
        assert [other.system(name).digest() for name in ("early", "late")] == digests
    grow(board, "late", 1)
    grow(board, "s", 1)
    assert_whole(Path(board.info()["path"]))
    assert board.remove("late").kept == 0
    assert board.systems() == ["early", "s", done.kept_as]
    board.remove("early")
    assert board.systems() == ["s"]
    with sqlite3.connect(board.info()["path"]) as connection:
        assert connection.execute("SELECT count(*) FROM commit_log").fetchone() == (1,)
    connection.close()
    assert_whole(Path(board.info()["path"]))


def test_what_cannot_be_removed(board: wb.Board) -> None:
    """A system that is not there, and one that somebody else writes."""
    with pytest.raises(wb.UnknownSystemError, match="no system 'x'"):
        board.remove("x")
    grow(board, "s", 1)
    with wb.open(board.info()["path"]) as other, pytest.raises(wb.ConflictError, match="'s' is written by"):
        other.remove("s")
    with wb.open(board.info()["path"], readonly=True) as other:
        assert other.remove("s", dry_run=True).commits == 1
        with pytest.raises(wb.ReadOnlyError):
            other.remove("s")
        with pytest.raises(wb.ReadOnlyError):
            other.forget("exp")


def test_the_command_line(tmp_path: Path, board: wb.Board, capfd: pytest.CaptureFixture[str]) -> None:
    """Each says what went, or would go."""
    grow(board, "s", 2)
    board.close()
    store = ("--store", str(tmp_path / "a.db"))
    capfd.readouterr()
    for arguments, says in (
        (("rm", "s", "--dry-run"), "dry_run"),
        (("rm", "s"), "commits"),
        (("forget", "--op", "exp", "--dry-run"), "packages"),
        (("forget", "--op", "exp"), "packages"),
    ):
        assert status((*arguments, *store)) == 0
        assert says in capfd.readouterr().out
    assert status(("rm", "s", *store)) == 1
    assert "no system 's'" in capfd.readouterr().err
    assert status(("forget", *store)) == 2
    assert status(("forget", "--op", "exp", "--store", str(tmp_path / "none.db"))) == 1
    assert not (tmp_path / "none.db").exists()


def test_verify_finds_a_system_that_cannot_be_opened(tmp_path: Path, board: wb.Board) -> None:
    """Its row is read as whoever opens it reads it; it is listed, so that it can be taken out."""
    grow(board, "s", 1)
    board.close()
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("UPDATE system SET spec = '{'")
    connection.close()
    with wb.open(tmp_path / "a.db") as opened:
        report = opened.verify()
        assert not report.ok
        assert "specification cannot be read" in report.systems[0].damaged[0][1]
        assert opened.systems() == ["s"]
        with pytest.raises(wb.CorruptPackageError, match="'s': its row is damaged"):
            opened.system("s")
