"""What leaves the command line: escaped, strict, and one line where something is wrong, whatever it is given."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import whiteboard as wb
from whiteboard.cli import status
from whiteboard.cli import whiteboard as group
from whiteboard.cli.terminal import escaped

ODD = "a\x1b]0;owned\x07\x1b[31mb\nc\r\x7f\x9b2J\u202e\u2066\u200b\u2028\ufeff\u0085[red]d\U000e0041"
"""Escape sequences, a new line, C1 controls, marks of direction, characters without width, and markup of rich."""

WHITEBOARD = (sys.executable, "-m", "whiteboard")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("plain, é, 文, 🙂", "plain, é, 文, 🙂"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\r\t", "a\\nb\\r\\t"),
        ("\x7f\x80\x9b", "\\x7f\\x80\\x9b"),
        ("\u202egnp.exe\u2069", "\\u202egnp.exe\\u2069"),
        ("\u200b\ufeff\u00ad", "\\u200b\\ufeff\\xad"),
        ("\u2028\u2029\u0085", "\\u2028\\u2029\\x85"),
        ("\udc80", "\\udc80"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_is_not_printed_is_escaped(text: str, right: str) -> None:
    """Each character that could steer a terminal, or hide, is written as Python writes it; others stay."""
    assert escaped(text) == right


# -- every command over a store of odd names


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose names, ops, specification, digests, reasons, hosts and lineage are made of such characters."""
    path = tmp_path_factory.mktemp("odd") / "a.db"
    with wb.open(path) as board:
        system = board.system("x", {"what": ODD, "measure": ODD})
        system.add_nodes(range(3), theta=np.ones((3, 2)))
        system.commit()
        system.process([wb.Job("mul", (0, 1))])
        system.commit(wb.rules.StressDescent(0.5))
        system.fork("y")
        board.call_many("tanh", np.arange(6.0).reshape(3, 2))
    connection = sqlite3.connect(path, isolation_level=None)
    for sql in (
        "UPDATE system SET name = ? WHERE name = 'x'",
        "UPDATE page SET op = ? WHERE op = 'tanh'",
        "INSERT INTO eviction VALUES (?, 1, 1, 1, 1)",
        "INSERT INTO writer VALUES ('y', 't', ?, 'b', 1, 1)",
    ):
        connection.execute(sql, (ODD,))
    connection.close()
    return path


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield every command of the command line by its words."""
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            yield from leaves(child, (*path, name))
    else:
        yield path


ARGUMENTS: dict[str, list[list[str]]] = {
    "audit": [[]],
    "copy": [["a.db", "new.db"], [ODD, "new.db"]],
    "db check": [[]],
    "db current": [[]],
    "db downgrade": [[ODD]],
    "db upgrade": [[]],
    "diff": [[ODD, "y"], ["y", f"{ODD}@0"], [f"{ODD}@9", "y"]],
    "explain": [["--system", ODD, "--job", "mul", "0", "1"], ["--system", ODD, "--job", ODD, "0"], ["--key", ODD]],
    "export": [["a.db", "new.wb"], ["a.db", ODD], ["a.db", "new.wb", "--system", ODD], ["a.db", "n.wb", "--op", ODD]],
    "fork": [[ODD, "z"], [ODD, ODD], ["y", ODD]],
    "forget": [["--op", ODD], ["--key", ODD], ["--op", "mul", "--dry-run"]],
    "gc": [["--max-bytes", ODD], ["--max-bytes", "1"]],
    "import": [["new.db", "a.db"], ["new.db", ODD]],
    "import-legacy": [[ODD, "--store", "new.db"], [".", "--store", "new.db", "--name", ODD]],
    "info": [[]],
    "log": [[ODD], ["y"]],
    "ls": [[]],
    "merge": [["new.db", "a.db"], [ODD, "a.db"], ["new.db", ODD]],
    "ops": [[ODD], ["--module", ODD]],
    "recompress": [["a.db"], [ODD], ["a.db", "--codec", ODD], ["a.db", "--op", ODD]],
    "rekey": [["--op", ODD, "--list"], ["--op", "mul", "--list"], ["--op", ODD, "--from", ODD], ["--scheme"]],
    "rm": [[ODD, "--dry-run"], [ODD], ["none" + ODD]],
    "run": [[ODD], [f"{ODD}.toml"], [f"{ODD}:f"], ["e.toml", "--name", ODD], ["e.toml", "--log", ODD + "/x"]],
    "show": [[ODD], ["y"]],
    "verify": [[], ["--repair"]],
}
"""What each command is called with: a command that is not here fails the test below."""

OWN_STORE = {"copy", "export", "import", "import-legacy", "merge", "ops", "recompress"}


def test_no_command_is_forgotten() -> None:
    """A new command comes into the table."""
    assert {" ".join(words) for words in leaves(group)} == set(ARGUMENTS)


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("command", ARGUMENTS)
def test_nothing_that_steers_a_terminal_comes_out(
    odd: Path, tmp_path: Path, here: Any, command: str, as_json: bool
) -> None:
    """Nothing but printed characters and the ends of its own lines comes out, on stdout and on stderr."""
    for arguments in ARGUMENTS[command]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        shutil.copy(odd, folder / "a.db")
        (folder / "e.toml").write_text(f"name = {json.dumps(ODD)}\n[[nodes]]\nids = [0]\n")
        store = [] if command in OWN_STORE else ["--store", "a.db"]
        done = here(*command.split(), *arguments, *store, *(["--json"] if as_json else []), cwd=folder)
        text = done.stdout + done.stderr
        assert done.returncode in (0, 1, 2)
        for each in text.replace("\n", ""):
            assert each.isprintable(), f"{each!r} ({unicodedata.name(each, '?')}) in {text!r}"
        assert len(done.stderr.splitlines()) <= 1
        if as_json and done.stdout:
            json.loads(done.stdout)


# -- one line for what is wrong


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
    refused(done, 1, "output cannot be written: No space left on device")


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
        (f"diff x@{'9' * 5000} x", 1, "has no commit"),
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


# -- many systems, and a schema that somebody uses


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


@pytest.mark.parametrize(("command", "readonly"), [("db upgrade", True), ("db downgrade 0003", False)])
def test_a_schema_that_somebody_uses_stays(tmp_path: Path, command: str, readonly: bool) -> None:
    """Another process has the store open, be it to read: nothing is changed, and nobody waits."""
    path = tmp_path / "a.db"
    wb.open(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    program = (
        "import sys\nfrom whiteboard.storage.engine import Database\nfrom whiteboard.storage.location import locate\n"
        "database = Database(locate(sys.argv[1]), readonly=bool(int(sys.argv[2])))\n"
        "with database.read() as c: c.exec_driver_sql('SELECT count(*) FROM page').all()\n"
        "print('open', flush=True); sys.stdin.read(); database.close()"
    )
    if command == "db upgrade":
        run("db", "downgrade", "0003", "--store", "a.db", cwd=tmp_path)
    before = connection.execute("SELECT sql FROM sqlite_master").fetchall()
    connection.close()
    arguments = [sys.executable, "-c", program, str(path), str(int(readonly))]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        refused(
            run(*command.split(), "--store", "a.db", cwd=tmp_path), 1, "a.db is open elsewhere: nothing was changed"
        )
        connection = sqlite3.connect(path, isolation_level=None)
        assert connection.execute("SELECT sql FROM sqlite_master").fetchall() == before
        connection.close()
        other.send_signal(signal.SIGKILL)
    assert not list(tmp_path.glob("*before*"))
    assert run(*command.split(), "--store", "a.db", cwd=tmp_path).returncode == 0
