"""What things say of themselves at a prompt: in one line, what they are and hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import whiteboard as wb
from tests.storage.samples import environment


def test_each_says_what_it_is(tmp_path: Path) -> None:
    """A board where it lies, a system where it stands, results how many and from where; nothing is read for it."""
    path = tmp_path / "a.db"
    with wb.open(path) as board:
        system = board.system("s")
        assert repr(system) == "<system 's' before its first commit: 0 nodes>"
        assert repr(system.nodes) == "<0 nodes>"
        system.add_nodes(range(3), theta=np.ones((3, 2)), p=np.zeros((3, 2), np.float32))
        system.commit()
        nodes = "<3 nodes: p float32(2,) of 3, theta float64(2,) of 3>"
        assert [repr(each) for each in (board, system, system.nodes, system.at(0))] == [
            f"<board over {path}>",
            "<system 's' at commit 0: 3 nodes>",
            nodes,
            f"<commit 0: {nodes}>",
        ]
        many = board.call_many("square", np.arange(4.0))
        again = board.call_many("square", np.arange(5.0))
        assert repr(many) == "<4 results, y float64 of shape (): 4 miss>"
        assert repr(again) == "<5 results, y float64 of shape (): 1 miss, 4 memory>"
        batch = system.process(wb.JobBatch("square", [[0], [1]]))
        assert repr(batch) == "<2 results, y float64 of shape (2,): 1 miss, 1 memory, of nodes>"
        assert repr(board.bind("sum", axis=0)) == "<sum, axis=0: an op of whiteboard, bound>"
    assert repr(board) == f"<board over {path}, closed>"


def test_help_has_code_that_runs(tmp_path: Path) -> None:
    """What ``help(wb)`` shows first can be pasted, and the names that it sends a reader to are there."""
    text = wb.__doc__ or ""
    parts = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(parts) == 2
    program = tmp_path / "program.py"
    program.write_text("\n".join(parts) + "print(system.head.id)\n", "utf-8")
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    start = text.partition("Start at ")[2]
    assert [name for name in re.findall(r"`(\w+)`", start.replace("``", "")) if not hasattr(wb, name)] == []
