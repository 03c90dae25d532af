"""What a worker of a pool computes is kept, however the worker was made and however it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import whiteboard as wb
from tests.storage.samples import environment

CHEAP = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import whiteboard as wb

board = None

def opened():
    global board
    board = wb.open("a.db")

def square(x):
    return board.call("square", np.array([float(x)])).y.sum()

def some(start):
    opened()
    for x in range(start, start + 20):
        square(x)
"""

POOLS = {
    "Pool": "with multiprocessing.get_context(METHOD).Pool(2, opened) as pool:\n"
    "        pool.map(square, range(40), chunksize=4)\n        pool.close()\n        pool.join()",
    "ProcessPoolExecutor": "with ProcessPoolExecutor(2, multiprocessing.get_context(METHOD), opened) as pool:\n"
    "        list(pool.map(square, range(40)))",
    "Process": "context = multiprocessing.get_context(METHOD)\n"
    "    them = [context.Process(target=some, args=(start,)) for start in (0, 20)]\n"
    "    [each.start() for each in them]\n    [each.join() for each in them]\n"
    "    assert [each.exitcode for each in them] == [0, 0]",
}
METHODS = ("fork", "spawn", "forkserver") if sys.platform == "linux" else ("spawn",)


def run(place: Path, text: str, status: int = 0) -> None:
    """Run a program in a folder."""
    (place / "work.py").write_text(text)
    done = subprocess.run([sys.executable, "work.py"], cwd=place, env=environment(), capture_output=True, text=True)
    assert done.returncode == status, done.stderr


def kept(store: Path, op: str, count: int) -> int:
    """How many of the results are on disk."""
    with wb.open(store, readonly=True) as board:
        return sum(board.call(op, np.array([float(x)])).hit != "miss" for x in range(count))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_loses_nothing_at_its_end(tmp_path: Path, pool: str, method: str) -> None:
    """Opened in an initializer or in the process itself; workers end by ``os._exit``, without `atexit`."""
    main = f"\n\nif __name__ == '__main__':\n    METHOD = {method!r}\n    {POOLS[pool]}\n"
    run(tmp_path, CHEAP + main)
    assert kept(tmp_path / "a.db", "square", 40) == 40


@pytest.mark.skipif(sys.platform != "linux", reason="fork is Linux's way")
def test_an_inherited_board_writes_what_the_child_put(tmp_path: Path) -> None:
    """What was pending at the fork is the parent's to write, what came after it the child's; the parent goes on."""
    main = """

if __name__ == "__main__":
    opened()
    square(0)
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        pool.map(square, range(1, 39), chunksize=4)
        pool.close()
        pool.join()
    square(39)
"""
    run(tmp_path, CHEAP + main)
    assert kept(tmp_path / "a.db", "square", 40) == 40


def test_what_was_expensive_is_kept_at_once(tmp_path: Path) -> None:
    """Of calls of 0.1 s, a process that is gone without a word has lost those of a quarter of a second at most."""
    text = """
import os, time
import autograd.numpy as anp
import numpy as np
import whiteboard as wb

@wb.op(ignore=("time",))
def slow(x):
    time.sleep(0.1)
    return anp.sum(x * x)

if __name__ == "__main__":
    board = wb.open("a.db")
    for x in range(8):
        board.call("slow", np.array([float(x)]))
    os._exit(3)
"""
    run(tmp_path, text, status=3)
    with wb.open(tmp_path / "a.db", readonly=True) as board:
        assert board.stats()["packages"] >= 6
