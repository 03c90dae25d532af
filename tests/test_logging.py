"""What the library logs: to ``logging.getLogger("whiteboard")`` and nowhere else, what one reads of a month's run."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.processes import run_code, run_whiteboard

pytestmark = pytest.mark.usefixtures("builtin_ops_only")


def test_what_happens_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A store made and opened, a system that goes on, a takeover, an op that is not cached and why, evictions."""
    caplog.set_level(logging.INFO, "whiteboard")

    def clock(x: Any) -> Any:
        return x + time.time()

    wb.op(gradient="none")(clock)
    for _ in range(2):
        with wb.open(tmp_path / "a.db", max_bytes=40_000) as board:
            system = board.system("s")
            if system.head is None:
                system.add_nodes([0], theta=np.ones((1, 3)))
                system.commit()
    with wb.open(tmp_path / "a.db", max_bytes=40_000) as board:
        board.system("s", takeover=True)
        for x in np.random.default_rng(0).normal(size=(4, 64, 40)):
            board.call_many("tanh", x)
            board.flush()
        with pytest.warns(wb.UncachedWarning):
            board.call("clock", np.ones(2))
    store = tmp_path / "a.db"
    logged = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
    assert logged[:5] == [
        f"INFO made a new store: {store}",
        f"INFO opened {store}",
        "INFO system 's': new",
        f"INFO opened {store}",
        "INFO system 's': goes on from commit 0",
    ]
    assert "INFO took over system 's'" in logged
    assert any(line.startswith("INFO evicted 64 packages, ") for line in logged)
    assert any(line.startswith("WARNING op 'clock' is computed and not cached: 'time'") for line in logged)
    assert {record.name.partition(".")[0] for record in caplog.records} == {"whiteboard"}


def test_details_are_logged_where_asked(caplog: pytest.LogCaptureFixture) -> None:
    """Bins with their time, flushes, and commits."""
    caplog.set_level(logging.DEBUG, "whiteboard")
    with wb.open(":memory:") as board:
        board.call_many("tanh", np.ones((3, 2)) * np.arange(3)[:, None])
        board.flush()
        system = board.system("s")
        system.add_nodes([0, 1], theta=np.ones((2, 3)))
        system.commit()
    logged = [record.getMessage() for record in caplog.records if record.levelname == "DEBUG"]
    assert [text.partition(" took ")[0].partition(" in ")[0] for text in logged] == [
        "op 'tanh': a bin of 3 jobs",
        "wrote 1 bins",
        "system 's': commit 0, 2 nodes changed",
    ]


def test_nothing_is_printed_without_a_handler() -> None:
    """A warning of ours that nobody listens to does not come out of `logging` on its own."""
    code = "import logging, whiteboard as wb\nlogging.getLogger('whiteboard').warning('x')\nprint('done')"
    done = run_code(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize(("words", "levels"), [((), set()), (("-v",), {"INFO"}), (("-vv",), {"INFO", "DEBUG"})])
def test_the_command_line_shows_it(words: tuple[str, ...], levels: set[str], tmp_path: Path) -> None:
    """``-v`` on standard error, ``-vv`` in detail; standard output is what it was."""
    done = run_whiteboard(*words, "run", "europe", "--rounds", "1", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("{")
    assert {line.split()[2] for line in done.stderr.splitlines() if "whiteboard." in line} == levels
