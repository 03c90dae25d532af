"""What was expensive is kept at once: however the process ends after a call has returned, its result is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import whiteboard as wb
from tests.processes import run_script

PROGRAM = """
import multiprocessing, os, signal, sys, time
import numpy as np
import whiteboard as wb

@wb.op(gradient="none", identity="dear 1")
def dear(x):
    time.sleep(0.06)
    return np.square(x).sum()

def work(number):
    global board
    board = wb.open(sys.argv[1])
    return float(board.call("dear", np.full(3, float(number))).y)

{}
"""

WAYS = {
    "os._exit": "work(1); os._exit(0)",
    "SIGTERM": "work(1); os.kill(os.getpid(), signal.SIGTERM); time.sleep(20)",
    "SIGKILL": "work(1); os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "work(1); os.abort()",
    "a pool's worker": "with multiprocessing.get_context('fork').Pool(1) as pool: print(pool.map(work, [1]))",
    "a pool's worker that is killed": (
        "pool = multiprocessing.get_context('fork').Pool(1); print(pool.map(work, [1])); "
        "[os.kill(child.pid, signal.SIGKILL) for child in multiprocessing.active_children()]; os._exit(0)"
    ),
    "an unhandled error": "work(1); 1 / 0",
}


@pytest.mark.usefixtures("builtin_ops_only")
@pytest.mark.parametrize("way", WAYS)
def test_however_the_process_ends(way: str, tmp_path: Path) -> None:
    """The next process finds the result, and computes nothing."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(WAYS[way]))
    run_script(program, tmp_path / "a.db")
    wb.op(name="dear", gradient="none", identity="dear 1")(lambda x: x.sum() * np.nan)
    with wb.open(tmp_path / "a.db", readonly=True) as board:
        result = board.call("dear", np.full(3, 1.0))
        assert (result.hit, float(result.y)) == ("disk", 3.0)
