"""Forks while other threads import."""

from __future__ import annotations

import os

import pytest

from tests.storage.samples import run_python

_IMPORT = """
import importlib.abc, os, signal, sys, threading, time
import numpy as np
import whiteboard as wb
from whiteboard.concurrency import imports

use, module, seconds, patience = sys.argv[1:]
imports.WAIT_SECONDS = float(patience)
begun = threading.Event()

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == module and not begun.is_set():
            begun.set()
            time.sleep(float(seconds))

def run():
    exec(use, {"wb": wb, "np": np, "board": board})

board = wb.open(":memory:")
sys.meta_path.insert(0, Slow())
other = threading.Thread(target=run)
other.start()
assert begun.wait(20)
for _ in range(2):
    pid = os.fork()
    if not pid:
        signal.alarm(20)  # ends it where it hangs
        run() if imports.WAIT_SECONDS > 1 else board.call("mul", np.ones(3), np.ones(3))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, code
other.join()
run()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("use", "module", "seconds", "patience"),
    [
        ("wb.ops.get('tanh')", "whiteboard.ops.families.elementwise", 0.3, 20.0),
        ("wb.rules.Relax", "whiteboard.systems.rules", 0.3, 20.0),
        ("board.system(str(id(np)))", "whiteboard.systems.system", 0.3, 20.0),
        ("board.table('mul')", "whiteboard.inspection.table", 0.3, 20.0),
        ("board.forget(op='mul')", "whiteboard.storage.upkeep.remove", 0.3, 20.0),
        ("wb.ops.check('mul')", "whiteboard.ops.checking.conformance", 0.3, 20.0),
        ("import xml.dom.minidom", "xml.dom.minidom", 0.3, 20.0),
        ("import xml.dom.minidom", "xml.dom.minidom", 2.0, 0.1),
    ],
)
def test_a_fork_while_another_thread_imports(use: str, module: str, seconds: float, patience: float) -> None:
    """The child inherits no import that nobody will end; one that takes too long is not waited for."""
    done = run_python(_IMPORT, use, module, str(seconds), str(patience))
    assert (done.returncode, done.stderr) == (0, "")
