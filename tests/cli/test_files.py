"""Outputs that cannot be written, and what is no file in a file's place: one line that names it, and no wait."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import whiteboard as wb
from tests.cli.conftest import Cli, assert_refused
from whiteboard.systems.sinks import JsonlSink

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


class Line(NamedTuple):
    """A line of the shell, its status, and what its one line of stderr says."""

    command: str
    code: int
    says: str


STDOUT = {
    "full": Line("ls --store s.db > /dev/full", 1, "cannot write to standard output: No space left on device"),
    "full, JSON": Line("ls --store s.db --json > /dev/full", 1, "cannot write to standard output: No space"),
    "full, object": Line("info --store s.db --json > /dev/full", 1, "cannot write to standard output: No space left"),
    "full, list": Line("ops > /dev/full", 1, "cannot write to standard output: No space left on device"),
    "full, large": Line("ops --json > /dev/full", 1, "cannot write to standard output: No space left on device"),
    "full, help": Line("> /dev/full", 1, "cannot write to standard output: No space left on device"),
    "full, version": Line("--version > /dev/full", 1, "No space left on device"),
    "closed": Line("ls --store s.db >&-", 1, "cannot write to standard output: Bad file descriptor"),
    "full, and an error": Line("show x --store s.db > /dev/full", 1, "has no system 'x'; it has s"),
}


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell, in which `whiteboard` is this one."""
    program = f"{shlex.quote(sys.executable)} -m whiteboard"
    return subprocess.run(["sh", "-c", f"{program} {command}"], cwd=folder, capture_output=True, text=True, timeout=60)


@FULL
@pytest.mark.parametrize("line", STDOUT.values(), ids=STDOUT)
def test_output_that_cannot_be_written(line: Line, small: Path) -> None:
    """A full disk and a closed output are told once, and the interpreter's end says nothing more."""
    done = shell(line.command, small)
    assert (done.returncode, done.stderr.count("\n")) == (line.code, 1), done.stderr
    assert done.stderr.startswith("whiteboard: ")
    assert line.says in done.stderr


SILENT = {
    **{
        f"{name} {end}": (command, end, 0)
        for name, command in (("ls", "ls --store s.db"), ("ops", "ops --json"))
        for end in ("2>&-", "2>/dev/full", "| head -c 1", "| true")
    },
    "ls >&- 2>&-": ("ls --store s.db", ">&- 2>&-", 1),
    "gc <&- >&- 2>&-": ("gc --store s.db", "<&- >&- 2>&-", 1),
}


@pytest.mark.parametrize(("command", "ending", "code"), SILENT.values(), ids=SILENT)
def test_nobody_to_tell(command: str, ending: str, code: int, small: Path, cli: Cli) -> None:
    """Whoever cannot be told, or has gone, is told nothing: the status says it, and no store is harmed."""
    done = shell(f"{command} {ending}", small)
    assert (done.returncode, done.stderr) == (code, "")
    assert cli("verify", "--store", "s.db").code == 0


def test_a_closed_output_takes_no_file_with_it(tmp_path: Path) -> None:
    """A run that is quiet needs no output, and nothing that is written to it lands in a file of ours."""
    done = shell("run europe --rounds 1 --quiet --store t.db --log log >&- 2>&-", tmp_path)
    assert done.returncode == 0
    assert [json.loads(line)["id"] for line in (tmp_path / "log").read_text().splitlines()] == [0, 1]
    assert shell("verify --store t.db", tmp_path).returncode == 0


FILES = {
    "store": ("ls --store {0}", "{0}: it is {noun}"),
    "store to run": ("run europe --store {0}", "{0}: it is {noun}"),
    "store to upgrade": ("db upgrade --store {0}", "{0}: it is {noun}"),
    "store to merge": ("merge s.db {0}", "{0}: it is {noun}"),
    "store to copy to": ("copy s.db {0}", "{0}: it is {noun}"),
    "archive to read": ("import s.db {0}", "cannot read the archive {0}: "),
    "archive for a new store": ("import new.db {0}", "cannot read the archive {0}: "),
    "archive to write": ("export s.db {0}", "cannot write the archive {0}: it exists"),
    "log": ("run europe --rounds 1 --store s.db --name e --log {0}", "cannot write results to {0}: {refusal}"),
    "log of a new store": ("run europe --store new.db --log {0}", "cannot write results to {0}: {refusal}"),
    "drawing": ("run europe --rounds 1 --store s.db --name e --plot {0}.png", "cannot draw {0}.png: it is {noun}"),
    "experiment": ("run {0}.toml --store s.db", "{0}.toml: cannot be read: "),
    "folder of checkpoints": ("import-legacy {0} --store s.db --name e", "{0} "),
}
KINDS = ("pipe", "folder", "socket", "link to a device")
MAY = {("log", "link to a device"), ("log of a new store", "link to a device")}
PLACES = [(what, kind) for what in FILES for kind in KINDS if (what, kind) not in MAY]
PLACES += [(what, device) for what in list(FILES)[:7] for device in ("/dev/null", "/dev/zero")]


def put(kind: str, path: Path) -> None:
    """Make something that is no file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    else:
        path.symlink_to("/dev/null")


@pytest.mark.parametrize(("what", "kind"), PLACES)
def test_what_is_no_file(small: Path, cli: Cli, what: str, kind: str) -> None:
    """A pipe, a folder, a socket or a device in a file's place is named and left, and nobody waits for it."""
    name = kind.split()[0]
    paths = [small / f"{name}{end}" for end in ("", ".png", ".toml")] if kind in KINDS else [Path(name)]
    for path in paths if kind in KINDS else ():
        put(kind, path)
    before = [path.lstat().st_mode for path in paths]
    command, says = FILES[what]
    told = {
        "noun": "a folder" if kind == "folder" else "not a regular file",
        "refusal": "Is a directory" if kind == "folder" else "No such device or address",
    }
    assert_refused(cli(*command.format(name).split()), 1, says.format(name, **told))
    assert [path.lstat().st_mode for path in paths] == before


LOCKS = {
    "folder": ("mkdir s.db.lock", "cannot be opened: Is a directory"),
    "link": ("ln -s /nowhere/at/all s.db.lock", "cannot be opened: Too many levels of symbolic links"),
    "pipe": ("mkfifo s.db.lock", "cannot be "),
}


@pytest.mark.parametrize("command", ["fork s t", "rm s"])
@pytest.mark.parametrize(("made", "says"), LOCKS.values(), ids=LOCKS)
def test_a_lock_file_that_is_none(small: Path, cli: Cli, made: str, says: str, command: str) -> None:
    """What stands in the lock file's place is named by whoever has to write; a reader does without."""
    (small / "s.db.lock").unlink(missing_ok=True)
    subprocess.run(shlex.split(made), check=True)
    assert_refused(cli(*command.split(), "--store", "s.db"), 1, f"its lock file {small}/s.db.lock {says}")
    assert cli("ls", "--store", "s.db").code == 0


def test_ls_holds_nothing_while_it_prints(tmp_path: Path) -> None:
    """Of many systems the first are printed before the last are read, and others write and cut the log meanwhile."""
    path = tmp_path / "s.db"
    with wb.open(path) as board:
        system = board.system("s0000")
        system.add_nodes([0, 1], p=np.eye(2))
        system.commit()
        for number in range(1, 1500):
            system.fork(f"s{number:04}")
    command = [sys.executable, "-m", "whiteboard", "ls", "--store", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("s0000  commit 0  2 nodes")
        # It now waits for room in the pipe, with most of its lines to come.
        with wb.open(path) as board:
            board.system("a new one").add_nodes([0], theta=[1.0])
            board.system("a new one").commit()
            board.remove("s1499")
            board.gc()
            assert not Path(f"{path}-wal").stat().st_size
        lines = [first, *process.stdout]
    assert process.returncode == 0
    assert [line.split()[0] for line in lines] == [f"s{number:04}" for number in range(1499)]


@FULL
@pytest.mark.parametrize("store", ["s.db", "new.db"])
def test_a_log_on_a_full_disk(small: Path, cli: Cli, store: str) -> None:
    """A log that cannot be written ends the run after a commit, by its name; the same command goes on from there."""
    run = ("run", "europe", "--store", store, "--rounds", "3")
    done = cli(*run, "--quiet", "--log", "/dev/full")
    assert_refused(done, 1, "whiteboard: cannot write results to /dev/full: No space left on device\n")
    assert cli(*run, "--json", "--log", "log").said["resumed_from"] == 0


def test_a_log_that_fills_its_disk_has_whole_lines(tmp_path: Path) -> None:
    """Where room ends within a line, what was written of it is taken back, so that the next one begins a line."""
    code = (
        "import resource, signal, sys; from whiteboard.systems.history import Commit\n"
        "from whiteboard.systems.sinks import JsonlSink\n"
        "from whiteboard.errors import SinkError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with JsonlSink(sys.argv[1]) as sink:\n"
        "    try:\n"
        "        for number in range(100): sink.publish(Commit(number, None, 1, None, None, 'x' * 40))\n"
        "    except SinkError as error: print(number, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, text=True, check=True
    )
    number, _, said = done.stdout.partition(" ")
    assert said == f"cannot write results to {tmp_path / 'log'}: File too large\n"
    with JsonlSink(tmp_path / "log") as sink:
        sink.publish(wb.Commit(int(number), None, 1, None, None, "again"))
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(int(number) + 1))


def test_a_log_into_a_pipe_that_is_read(tmp_path: Path) -> None:
    """A pipe with a reader takes a log like a file."""
    path = tmp_path / "pipe"
    lines: list[str] = []
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)

    def read() -> None:
        with os.fdopen(reader) as file:
            lines.extend(file)

    thread = threading.Thread(target=read)
    with JsonlSink(path) as sink:
        thread.start()  # a pipe without a writer has ended for whoever reads it
        for number in range(1000):
            sink.publish(wb.Commit(number, None, 1, None, None, "x" * 1000))
    thread.join()
    assert [json.loads(line)["id"] for line in lines] == list(range(1000))
