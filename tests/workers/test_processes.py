"""Processes of the board's own: scripts as people write them, interrupts and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.storage.samples import environment

SCRIPT = """
import os, sys, time
import autograd.numpy as anp
import numpy as np
import whiteboard as wb

WEIGHT = 3.0

class Scale:
    def of(self, x):
        return x * WEIGHT

def helper(x):
    assert np.ndim(x) == 1
    return anp.sum(Scale().of(x) ** 2)

@wb.op(ignore=("time", "os"))
def slow(x, *, seconds=0.03):
    time.sleep(seconds)
    with os.fdopen(os.open("pids", os.O_APPEND | os.O_CREAT | os.O_WRONLY), "w") as log:
        log.write(f"{os.getpid()}\\n")
    return helper(x)

x = np.arange(float(sys.argv[2]))[:, None]
with wb.open(sys.argv[1], executor=2) as board:
    print(board.call_many(slow, x).y.sum(), board.stats()["misses"], flush=True)
"""


def begun(folder: Path, n: int, *flags: str) -> subprocess.Popen[str]:
    """Run the script, which has no ``if __name__``, over n jobs."""
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-W", "error", *flags, "script.py", "cache.db", str(n)]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )


def pids(folder: Path, least: int) -> list[int]:
    """Wait for so many jobs to be done, and return which processes did them."""
    for _ in range(1200):
        text = (folder / "pids").read_text() if (folder / "pids").exists() else ""
        if text.count("\n") >= least:
            return [int(line) for line in text.splitlines()]
        time.sleep(0.05)
    pytest.fail("no job was done within a minute")


def gone(numbers: set[int]) -> bool:
    """Wait until none of some processes is there."""
    for _ in range(400):
        if not any(Path(f"/proc/{number}").exists() and not zombie(number) for number in numbers):
            return True
        time.sleep(0.05)
    return False


def zombie(number: int) -> bool:
    """Whether a process has ended and is only counted."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("flags", [(), ("-O",)], ids=["plain", "optimized"])
def test_a_script_needs_no_guard(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Ops of ``__main__`` with helpers, classes and globals of it are computed in two processes, without a warning."""
    with begun(tmp_path, 40, *flags) as script:
        out, err = script.communicate()
    assert (out.split(), err) == ([str(9.0 * sum(i * i for i in range(40))), "40"], "")
    done = pids(tmp_path, 40)
    assert len(done) == 40
    assert script.pid not in done
    assert len(set(done)) == 2
    assert gone(set(done))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """kill -9 of the parent leaves no process, and what had come back is there."""
    with begun(tmp_path, 400) as script:
        done = set(pids(tmp_path, 30))
        script.kill()
    assert gone(done)
    (tmp_path / "pids").unlink()
    with begun(tmp_path, 40) as script:
        out, err = script.communicate()
    assert err == ""
    assert int(out.split()[1]) < 40


def test_an_interrupt_of_the_terminal_reaches_the_parent_alone(tmp_path: Path) -> None:
    """Ctrl-C is one KeyboardInterrupt, no worker prints anything, and all have ended."""
    with begun(tmp_path, 400) as script:
        done = set(pids(tmp_path, 30))
        os.killpg(script.pid, signal.SIGINT)
        out, err = script.communicate()
    assert out == ""
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert gone(done)
