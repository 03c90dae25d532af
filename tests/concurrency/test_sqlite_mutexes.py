"""Forks while other threads use SQLite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.storage.samples import run_python

_SQLITE = """
import os, signal, sqlite3, sys, threading
import numpy as np
import whiteboard as wb

use, stop = sys.argv[1], threading.Event()
board = wb.open(sys.argv[2])
board.call("mul", np.ones(3), np.ones(3))

def other(number):
    while not stop.is_set():
        if use == "sqlite3":
            sqlite3.connect(":memory:").execute("CREATE TABLE t (x)")
        elif use == "open":
            wb.open(f"{sys.argv[2]}{number}").close()
        else:
            dropped = wb.open(f"{sys.argv[2]}{number}")
            dropped.call("mul", np.ones(3), np.ones(3))

threads = [threading.Thread(target=other, args=(number,)) for number in range(2)]
for thread in threads:
    thread.start()
codes = []
for _ in range(30):
    pid = os.fork()
    if not pid:
        signal.alarm(30)  # ends it where it hangs
        board.call_many("tanh", np.ones((2, 3)))
        os._exit(0)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    if codes[-1]:
        break
stop.set()
for thread in threads:
    thread.join()
board.close()
sys.exit(codes[-1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("use", ["sqlite3", "open", "drop"])
def test_a_fork_while_another_thread_uses_sqlite(tmp_path: Path, use: str) -> None:
    """The child inherits none of the locks that all connections of a process share, whosever they are."""
    done = run_python(_SQLITE, use, str(tmp_path / "a.db"))
    assert (done.returncode, done.stderr) == (0, "")
