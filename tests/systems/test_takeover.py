"""Fencing: of two writers of a system the deposed one is refused, however late it comes, and the other goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import whiteboard as wb
from tests.storage.samples import environment

RULE = wb.rules.Relax(0.1, 1e-3, 1e-3)


def step(system: wb.System) -> wb.Commit:
    """One commit."""
    if not len(system.nodes):
        system.add_nodes([1, 2], theta=np.ones((2, 3)))
    system.process([wb.Job("square", (1,), 2, residual=1.0)])
    return system.commit(RULE)


WRITER = """
import sys
from tests.systems.test_takeover import step
import whiteboard as wb
with wb.open("a.db") as board:
    system = board.system("s")
    for line in sys.stdin:
        try:
            print(step(system).id, flush=True)
        except wb.ConflictError as error:
            print("refused:", error, flush=True)
"""


@pytest.mark.parametrize("moved_on", [True, False], ids=["behind", "at-the-same-head"])
def test_a_writer_that_was_stopped_is_deposed(tmp_path: Path, moved_on: bool) -> None:
    """SIGSTOP, a takeover, SIGCONT: its commit is refused also where the head is still the one that it knows."""
    variables = environment() | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    asked = [sys.executable, "-c", WRITER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(asked, cwd=tmp_path, env=variables, **pipes) as other:  # type: ignore[call-overload]

        def ask() -> str:
            other.stdin.write("\n")
            other.stdin.flush()
            return str(other.stdout.readline().strip())

        assert ask() == "0"
        other.send_signal(signal.SIGSTOP)
        with wb.open(tmp_path / "a.db") as board:
            with pytest.raises(wb.ConflictError, match=f"is written by process {other.pid}"):
                step(board.system("s"))
            system = board.system("s", takeover=True)
            expected = 1
            if moved_on:
                assert step(system).id == expected
                expected += 1
            other.send_signal(signal.SIGCONT)
            before = system.digest()
            assert ask().startswith(f"refused: system 's' has another writer now, process {os.getpid()}")
            with wb.open(tmp_path / "a.db", readonly=True) as reader:
                assert reader.system("s").digest() == before
            assert step(system).id == expected
            assert ask().startswith("refused:")
        other.stdin.close()
        assert other.wait(60) == 0


def test_a_takeover_by_a_board_that_has_the_system_open(tmp_path: Path) -> None:
    """It takes over as well, and stands where the other one got to; and back again."""
    with wb.open(tmp_path / "a.db") as one, wb.open(tmp_path / "a.db") as two:
        mine = one.system("s")
        step(mine)
        assert two.system("s").head == mine.head
        step(two.system("s", takeover=True))
        with pytest.raises(wb.ConflictError, match="another writer now"):
            step(mine)
        back = one.system("s", takeover=True)
        assert back.digest() == two.system("s").digest()
        assert step(back).id == 2
        with pytest.raises(wb.ConflictError):
            step(two.system("s"))
        assert one.system("s", takeover=True) is back


def test_a_takeover_that_is_refused_deposes_nobody(tmp_path: Path) -> None:
    """With another specification, or a name that cannot be one, the living writer goes on."""
    with wb.open(tmp_path / "a.db") as one, wb.open(tmp_path / "a.db") as two:
        mine = one.system("s", {"x": 1})
        step(mine)
        with pytest.raises(wb.SpecError, match="x is 1, asked for 2"):
            two.system("s", {"x": 2}, takeover=True)
        with pytest.raises(wb.ParamError, match="system name"):
            two.system("", takeover=True)
        assert step(mine).id == 1


def test_a_removal_that_fails_leaves_the_writer_fenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the writer as before: a takeover is still noticed."""

    def full(*_: object, **__: object) -> None:
        raise wb.StoreError("the disk is full")

    with wb.open(tmp_path / "a.db") as one, wb.open(tmp_path / "a.db") as two:
        mine = one.system("s")
        step(mine)
        with monkeypatch.context() as patch:
            patch.setattr("whiteboard.storage.upkeep.remove.remove", full)
            with pytest.raises(wb.StoreError, match="full"):
                one.remove("s")
        step(mine)
        two.system("s", takeover=True)
        with pytest.raises(wb.ConflictError, match="another writer now"):
            step(mine)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_commit_as_its_parent(tmp_path: Path) -> None:
    """Its commit is refused, its end leaves the parent the writer, and the parent goes on."""
    code = """
import os
from tests.systems.test_takeover import step
import whiteboard as wb
board = wb.open("a.db")
system = board.system("s")
step(system)
child = os.fork()
if not child:
    try:
        step(system)
    except wb.ConflictError as error:
        print("refused", flush=True)
    board.close()
    os._exit(0)
os.waitpid(child, 0)
print(step(system).id)
with wb.open("a.db") as other:
    try:
        step(other.system("s"))
    except wb.ConflictError:
        print("still the writer")
board.close()
"""
    variables = environment() | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    asked = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(asked, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (0, ["refused", "1", "still the writer"]), done.stderr
