"""Errors of the command line: one line that names the thing, and its status, whatever it is given."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.cli import status

WHITEBOARD = (sys.executable, "-m", "whiteboard")


def run(*arguments: str, cwd: Path, stdout: Any = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, in a folder; a wait without an end fails the test."""
    command = [*WHITEBOARD, *arguments]
    return subprocess.run(command, cwd=cwd, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=60)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs the command line in this process, which is faster, in a folder."""

    def run_here(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        code = status(arguments)
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return run_here


def refused(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    """See one line of error that says something, with its status."""
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert re.search(says, done.stderr), done.stderr


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a store a.db of one system."""
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("x", {"measure": "mse"})
        system.add_nodes([0, 1], p=np.array([[0.0, 0.0], [3.0, 4.0]]))
        system.commit()
    return tmp_path


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("command", ["ls", "info --json", "ops"])
def test_an_output_that_is_full(small: Path, command: str) -> None:
    """Status 1, and the line that says so."""
    with open("/dev/full", "w") as full:  # noqa: PTH123
        store = ["--store", "a.db"] if command != "ops" else []
        done = run(*command.split(), *store, cwd=small, stdout=full)
    refused(done, 1, "cannot write to standard output: No space left on device")


def test_an_output_that_is_closed(small: Path) -> None:
    """A reader that has gone, and a stdout that there never was, are no traceback, and harm no store."""
    for command, redirection in (("ls", "| head -c 1"), ("ls", ">&- 2>&-"), ("gc", "<&- >&- 2>&-")):
        script = f'"$0" -m whiteboard {command} --store a.db {redirection}'
        done = subprocess.run(
            ["sh", "-c", script, sys.executable], cwd=small, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.stderr == ""
    assert run("verify", "--store", "a.db", cwd=small).returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_log_that_is_full_stops_a_run_that_goes_on_later(tmp_path: Path) -> None:
    """What was committed is kept."""
    refused(
        run("run", "europe", "--quiet", "--log", "/dev/full", cwd=tmp_path),
        1,
        "cannot write results to /dev/full: No space",
    )
    done = run("run", "europe", "--rounds", "2", "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["resumed_from"]) == (0, 0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_named_pipe_is_no_wait_without_an_end(small: Path) -> None:
    """As a store, an archive, a log without a reader, an experiment."""
    os.mkfifo(small / "pipe")
    for command in (
        "ls --store pipe",
        "import new.db pipe",
        "run europe --store new2.db --log pipe",
    ):
        refused(run(*command.split(), cwd=small), 1, "pipe")
    assert stat.S_ISFIFO((small / "pipe").stat().st_mode)


ODD_PLACES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a folder for a lock file": (lambda path: (path / "a.db.lock").mkdir(), "rm x --store a.db", "a.db.lock cannot be"),
    "a link for a lock file": (
        lambda path: (path / "a.db.lock").symlink_to("elsewhere"),
        "rm x --store a.db",
        "a.db.lock cannot be opened",
    ),
    "a folder as a store": (lambda path: (path / "b").mkdir(), "ls --store b", "it is a folder"),
    "a folder as an archive": (lambda path: (path / "b").mkdir(), "import a.db b", "b"),
    "a device as a store": (lambda _: None, "ls --store /dev/null", "not a regular file"),
    "a device as an archive": (lambda _: None, "import a.db /dev/zero", "/dev/zero"),
    "a folder as a log": (lambda path: (path / "b").mkdir(), "run europe --store c.db --log b", "b: Is a directory"),
}


@pytest.mark.parametrize("case", ODD_PLACES)
def test_what_is_no_file_is_named(small: Path, here: Any, case: str) -> None:
    """One line, status 1."""
    make, command, says = ODD_PLACES[case]
    for lock in small.glob("*.lock"):
        lock.unlink()
    make(small)
    refused(here(*command.split(), cwd=small), 1, says)


HUGE = "9" * 30


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (f"gc --max-bytes {HUGE}", 2, "too large"),
        (f"gc --older-than {HUGE}", 2, "too large"),
        ("gc --max-bytes -1", 2, "not a size"),
        ("gc --max-bytes nan", 2, "not a size"),
        (f"log x --last {HUGE}", 2, "--last"),
        (f"run europe --rounds {HUGE}", 2, "--rounds"),
        (f"run europe --seed {HUGE}", 2, "--seed"),
        (f"diff x@{HUGE} x", 1, "has no commit"),
        (f"diff x@{'9' * 5000} x", 1, "has no system"),
        ("fork x y --at 9223372036854775807", 1, "has no commit 9223372036854775807"),
        (f"fork x y --at {HUGE}", 2, "--at"),
        (f"explain --system x --job mul {HUGE} 1", 2, "range"),
        ("explain --system x --job mul 9223372036854775807 1 --attr p", 1, "no node 9223372036854775807"),
        (f"forget --op mul --version {HUGE}", 2, "--version"),
        ("verify --sample nan", 1, "sample must lie between 0 and 1"),
        ("verify --sample inf", 2, "--sample"),
        (f"verify --seed {HUGE}", 2, "--seed"),
    ],
)
def test_numbers_that_are_none(small: Path, here: Any, command: str, code: int, says: str) -> None:
    """An option of any digits is one line."""
    refused(here(*command.split(), "--store", "a.db", cwd=small), code, says)


@pytest.mark.parametrize(
    "spec",
    [
        {"measure": "mse"},
        {"measure": "mse", "jobs": 0},
        {"measure": "mse", "jobs": "many"},
        {"measure": "mse", "jobs": 10**40},
        {"measure": "relative_stress", "jobs": None},
        {"measure": ["mse"]},
        {"measure": {"a": 1}, "jobs": [1]},
        {"jobs": 3},
    ],
)
def test_any_specification_is_shown(tmp_path: Path, here: Any, spec: dict[str, Any]) -> None:
    """Words that experiments use may mean something else in a system of a user's own."""
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("x", spec)
        system.add_nodes([0, 1], p=np.array([[0.0, 0.0], [3.0, 4.0]]))
        system.commit()
        system.process([wb.Job("distance", (0, 1), attr="p", target=1.0)])
        system.commit(wb.rules.StressDescent(0.5))
    for command in ("show x", "log x", "ls"):
        done = here(*command.split(), "--store", "a.db", "--json", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(here("show", "x", "--store", "a.db", "--json", cwd=tmp_path).stdout)["spec"] == spec


def test_what_is_not_finite_is_null_with_a_note(tmp_path: Path, here: Any) -> None:
    """JSON stays JSON: a residual whose square overflows is null, and what it was stands beside."""
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("x", {"measure": "mse", "jobs": 1})
        system.add_nodes([0, 1], p=np.array([[0.0], [1e200]]))
        system.commit()
        system.process([wb.Job("distance", (0, 1), attr="p", target=1.0, scale=1e-200)])
        system.commit(wb.rules.StressDescent(0.5))
    said = {}
    for command in ("show x", "log x", "ls"):
        done = here(*command.split(), "--store", "a.db", "--json", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        said[command] = json.loads(done.stdout, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert (said["show x"]["mse"], said["show x"]["not_finite"]) == (None, {"mse": "Infinity"})
    assert said["log x"]["commits"][0]["mse"] is None
    assert said["log x"]["not_finite"] == {"commits[0].mse": "Infinity"}
    assert said["ls"]["systems"][0]["not_finite"] == {"mse": "Infinity"}


# -- many systems


def test_systems_are_listed_as_they_are_read(tmp_path: Path, here: Any) -> None:
    """One after another: the first line is out before the last system is read, and a damaged one costs only its own."""
    with wb.open(tmp_path / "a.db") as board:
        for number in range(4):
            system = board.system(f"s{number}")
            system.add_nodes([0], theta=[float(number)])
            system.commit()
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.execute("UPDATE commit_log SET seal = x'00' WHERE system_id = (SELECT id FROM system WHERE name = 's2')")
    connection.close()
    done = here("ls", "--store", "a.db", cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(lines)) == (1, "", 4)
    assert [line.split()[0] for line in lines] == ["s0", "s1", "s2", "s3"]
    assert "s2  damaged: system 's2', commit 0" in lines[2]
    done = here("ls", "--store", "a.db", "--json", cwd=tmp_path)
    assert ["damaged" in row for row in json.loads(done.stdout)["systems"]] == [False, False, True, False]
