"""Processes that begin as copies of one that has imported all they need: a fork, where an interpreter takes 0.5 s.

They are processes in every other way: with their own arguments, folder and descriptors, an interpreter's end, and a
number by which they are killed. What an interpreter does at its start is none of theirs; for that there is
`tests.storage.samples.run_python`.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from tests.storage.samples import environment

_FIRST = """
import gc, json, os, runpy, socket, sys
import alembic.command, alembic.op, blosc2, rich.progress
import tests.storage.moving, whiteboard.cli

gc.collect()
gc.freeze()
channel = socket.socket(fileno=int(sys.argv[1]))
while True:
    asked, files, _, _ = socket.recv_fds(channel, 1 << 20, 3)
    if not asked:
        os._exit(0)
    if not (number := os.fork()):
        break
    for file in files:
        os.close(file)
    channel.send(str(number).encode())
    # It keeps its number until its status is on the way: who still waits for that may send it a signal.
    ended = os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)
    channel.send(str(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status).encode())
    os.waitpid(number, 0)
channel.close()
for place, file in enumerate(files):
    os.dup2(file, place)
    os.close(file)
what, text, arguments, folder = json.loads(asked)
os.chdir(folder)
sys.path[0] = folder
if what == "module":
    sys.argv = [text, *arguments]
    runpy.run_module(text, run_name="__main__", alter_sys=True)
elif what == "script":
    sys.argv = [text, *arguments]
    sys.path[0] = os.path.dirname(text)
    runpy.run_path(text, run_name="__main__")
else:
    sys.argv = ["-c", *arguments]
    exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})
"""


@cache
def _first() -> socket.socket:
    """Start the process that the others are copies of; it ends with this one."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", _FIRST, str(its.fileno())]
    first = subprocess.Popen(
        command, cwd=tempfile.gettempdir(), env=environment(), pass_fds=[its.fileno()], stdout=subprocess.DEVNULL
    )
    its.close()

    def end() -> None:
        mine.close()
        first.wait()

    atexit.register(end)
    return mine


class Forked:
    """One of the copies, of which there is one at a time."""

    def __init__(self, number: int, channel: socket.socket) -> None:
        self.number = number
        self.channel = channel
        self.status: int | None = None

    def poll(self, seconds: float = 0.0) -> int | None:
        """Return its status, below 0 for a signal, or None where it goes on for longer than that."""
        if self.status is None and select.select([self.channel], [], [], seconds)[0]:
            self.status = int(self.channel.recv(100))
        return self.status

    def kill(self) -> int:
        """End it, if it has not ended, and return its status."""
        while (status := self.poll()) is None:
            os.kill(self.number, signal.SIGKILL)
            self.poll(0.1)
        return status


@contextmanager
def forked(
    what: str, text: str, arguments: Sequence[str | Path], cwd: Path, out: IO[str], err: IO[str]
) -> Iterator[Forked]:
    """Run a module, a script or a text of code in a copy; what goes on at the end is killed."""
    channel = _first()
    asked = json.dumps([what, text, [str(argument) for argument in arguments], str(cwd)])
    with open(os.devnull) as nothing:  # noqa: PTH123
        socket.send_fds(channel, [asked.encode()], [file.fileno() for file in (nothing, out, err)])
    process = Forked(int(channel.recv(100)), channel)
    try:
        yield process
    finally:
        process.kill()


def _run(what: str, text: str, arguments: Sequence[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with forked(what, text, arguments, cwd, out, err) as process:
            status = process.poll(300.0)
        assert status is not None, "it did not end within 300 s"
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess([text, *arguments], status, out.read(), err.read())


@contextmanager
def started(*arguments: str | Path, cwd: Path) -> Iterator[Forked]:
    """Begin the command line, which may say what it likes; it is killed at the end of the block."""
    with open(os.devnull, "w") as nothing, forked("module", "whiteboard", arguments, cwd, nothing, nothing) as process:  # noqa: PTH123
        yield process


def run_code(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run code that knows its arguments as an interpreter's ``-c`` does."""
    return _run("code", code, arguments, Path(tempfile.gettempdir()))


def run_script(path: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a file of code."""
    return _run("script", str(path), arguments, Path(tempfile.gettempdir()))


def run_whiteboard(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return _run("module", "whiteboard", arguments, cwd or Path.cwd())
