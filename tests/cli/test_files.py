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
from typing import Any, NamedTuple

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.cli import status
from whiteboard.systems.sinks import JsonlSink

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs the command line in a folder with a small store."""
    monkeypatch.chdir(tmp_path)
    with wb.open("s.db") as board:
        system = board.system("s", {"experiment": "mine"})
        system.add_nodes([0, 1], p=np.eye(2))
        system.commit()
        board.call("exp", np.ones(3))

    def run(*arguments: str) -> Done:
        code = status(arguments)
        return Done(code, *capfd.readouterr())

    return run


class Bad(NamedTuple):
    """A command of the shell, its status, and what its one line of stderr says."""

    command: str
    code: int
    says: str


STDOUT = {
    "full": Bad("ls --store s.db > /dev/full", 1, "cannot write to standard output: No space left on device"),
    "full, JSON": Bad("ls --store s.db --json > /dev/full", 1, "cannot write to standard output: No space"),
    "full, large": Bad("ops --json > /dev/full", 1, "cannot write to standard output: No space left on device"),
    "full, help": Bad("> /dev/full", 1, "cannot write to standard output: No space left on device"),
    "full, version": Bad("--version > /dev/full", 1, "No space left on device"),
    "closed": Bad("ls --store s.db >&-", 1, "cannot write to standard output: Bad file descriptor"),
    "full, and an error": Bad("show x --store s.db > /dev/full", 1, "has no system 'x'; it has s"),
}


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell, in which `whiteboard` is this one."""
    program = f"{shlex.quote(sys.executable)} -m whiteboard"
    return subprocess.run(["sh", "-c", f"{program} {command}"], cwd=folder, capture_output=True, text=True, timeout=60)


@FULL
@pytest.mark.parametrize("bad", STDOUT.values(), ids=STDOUT)
def test_output_that_cannot_be_written(bad: Bad, cli: Any, tmp_path: Path) -> None:
    """A full disk and a closed output are told once, and the interpreter's end says nothing more."""
    done = shell(bad.command, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (bad.code, 1), done.stderr
    assert done.stderr.startswith("whiteboard: ")
    assert bad.says in done.stderr


@pytest.mark.parametrize("command", ["ls --store s.db", "ops --json"])
@pytest.mark.parametrize("ending", ["2>&-", "2>/dev/full", "| head -c 1", "| true"])
def test_nobody_to_tell(command: str, ending: str, cli: Any, tmp_path: Path) -> None:
    """An error output that is closed or full changes nothing; a reader that has gone ends a command without a word."""
    done = shell(f"{command} {ending}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_output_takes_no_file_with_it(cli: Any, tmp_path: Path) -> None:
    """A run that is quiet needs no output, and nothing that is written to it lands in a file of ours."""
    done = shell("run europe --rounds 1 --quiet --store t.db --log log >&- 2>&-", tmp_path)
    assert done.returncode == 0
    assert [json.loads(line)["id"] for line in (tmp_path / "log").read_text().splitlines()] == [0, 1]
    assert shell("verify --store t.db", tmp_path).returncode == 0


FILES = {
    "store": ("ls --store {0}", 1, "{0}: it is"),
    "store to run": ("run europe --store {0}", 1, "{0}: it is"),
    "store to upgrade": ("db upgrade --store {0}", 1, "{0}: it is"),
    "store to merge": ("merge s.db {0}", 1, "{0}: it is"),
    "store to copy to": ("copy s.db {0}", 1, "{0}: it is"),
    "archive to read": ("import s.db {0}", 1, "cannot read the archive {0}: "),
    "archive to write": ("export s.db {0}", 1, "cannot write the archive {0}: it exists"),
    "log": ("run europe --rounds 1 --store s.db --name e --log {0}", 1, "cannot write results to {0}: "),
    "drawing": ("run europe --rounds 1 --store s.db --name e --plot {0}.png", 1, "cannot draw {0}.png: it is "),
    "experiment": ("run {0}.toml --store s.db", 1, "{0}.toml: cannot be read: "),
    "folder of checkpoints": ("import-legacy {0} --store s.db --name e", 1, "{0} "),
}


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "device"])
@pytest.mark.parametrize(("command", "code", "says"), FILES.values(), ids=FILES)
def test_what_is_no_file(cli: Any, tmp_path: Path, kind: str, command: str, code: int, says: str) -> None:
    """A pipe, a folder, a socket or a device in a file's place is named, and nobody waits for it."""
    if (kind, command) == ("device", FILES["log"][0]):
        pytest.skip("a log may go to a device")
    for end in ("", ".png", ".toml"):
        path = tmp_path / f"{kind}{end}"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        else:
            path.symlink_to("/dev/null")
    done = cli(*command.format(kind).split())
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done.err
    what = says.format(kind)
    assert what in done.err or (kind == "device" and what.replace(kind, "/dev/null") in done.err), done.err


LOCKS = {
    "folder": ("mkdir s.db.lock", "Is a directory"),
    "link": ("ln -s /nowhere/at/all s.db.lock", "symbolic link"),
    "pipe": ("mkfifo s.db.lock", ""),
}


@pytest.mark.parametrize(("made", "says"), LOCKS.values(), ids=LOCKS)
def test_a_lock_file_that_is_none(cli: Any, tmp_path: Path, made: str, says: str) -> None:
    """What stands in the lock file's place is named by whoever has to write; a reader does without."""
    for left in tmp_path.glob("s.db.lock"):
        left.unlink()
    subprocess.run(shlex.split(made), check=True)
    done = cli("fork", "s", "t", "--store", "s.db")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert f"its lock file {tmp_path}/s.db.lock cannot be" in done.err
    assert says in done.err
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
def test_a_log_on_a_full_disk(cli: Any) -> None:
    """A log that cannot be written ends the run after a commit, by its name; the same command goes on from there."""
    done = cli("run", "europe", "--store", "s.db", "--rounds", "3", "--quiet", "--log", "/dev/full")
    assert (done.code, done.out) == (1, "")
    assert done.err == "whiteboard: cannot write results to /dev/full: No space left on device\n"
    done = cli("run", "europe", "--store", "s.db", "--rounds", "3", "--json", "--log", "log")
    assert json.loads(done.out)["resumed_from"] == 0


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
