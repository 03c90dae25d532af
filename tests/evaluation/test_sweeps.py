"""Sweeps that are killed: what was done is kept, bin by bin of a tenth of a second."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import whiteboard as wb
from tests.processes import run_code
from whiteboard.evaluation.costs import Costs
from whiteboard.ops.spec import OpSpec

pytestmark = pytest.mark.usefixtures("builtin_ops_only")

SWEEP = """
import os, signal, sys, time
import numpy as np
import whiteboard as wb

store, log, kill, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
computed = 0

@wb.op(gradient="none", identity="point 1", batch=sys.argv[5])
def point(x):
    global computed
    jobs = x if x.ndim == 2 else x[None]
    for job in jobs:
        time.sleep(seconds)
        computed += 1
        if computed == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        with open(log, "a") as file:
            file.write(f"{job[0]}\\n")
    return np.square(x).sum(-1)

with wb.open(store) as board:
    print(board.call_many(point, np.arange(40.0)[:, None]).y.tobytes().hex())
"""


@pytest.mark.parametrize(
    ("seconds", "batch", "lost"),
    [(0.08, "loop", 0), (0.03, "loop", 3), (0.004, "loop", 30)],
    ids=["80 ms", "30 ms", "4 ms"],
)
def test_a_sweep_that_is_killed_three_times(tmp_path: Path, seconds: float, batch: str, lost: int) -> None:
    """No more is computed again than the bin under way; what comes in the end is right to the bit."""
    chance, log = random.Random(seconds), tmp_path / "log"
    arguments = [str(tmp_path / "a.db"), str(log)]
    for _ in range(3):
        done = run_code(SWEEP, *arguments, str(chance.randint(2, 10)), str(seconds), batch)
        assert done.returncode == -9, done.stderr
    last = run_code(SWEEP, *arguments, "0", str(seconds), batch)
    assert last.returncode == 0, last.stderr
    assert last.stdout.strip() == np.square(np.arange(40.0)).tobytes().hex()
    computed = Counter(log.read_text().splitlines())
    assert len(computed) == 40
    assert sum(computed.values()) <= 40 + 3 * lost


def test_bins_follow_the_cost() -> None:
    """One job first, then some more each time, never beyond a tenth of a second; a clock has no part in tolerance."""
    wb.op(name="f", gradient="none", identity="f")(lambda x: x)
    wb.op(name="g", gradient="none", identity="g", batch="lead_axis", exactness="tolerance")(lambda x: x)
    f, g, tanh = (wb.ops.get(name) for name in ("f", "g", "tanh"))
    costs = Costs()

    def after(spec: OpSpec, n: int, seconds: float) -> int:
        costs.learn(spec, n, int(n * seconds * 1e9))
        return costs.jobs(spec, 1000)

    assert [costs.jobs(spec, 1000) for spec in (f, g, tanh)] == [1, 1000, 1000]
    assert after(f, 1, 1e-6) == 16
    assert after(f, 16, 1e-6) == 128
    assert after(f, 128, 1e-3) == 100
    assert after(f, 100, 3.0) == 1
    assert after(g, 1000, 3.0) == 1000
    assert after(tanh, 1000, 1e-6) == 1000


GROWING = """
import os, signal, sys, time
import numpy as np
import whiteboard as wb

store, log, kill = sys.argv[1], sys.argv[2], int(sys.argv[3])
computed = 0

@wb.op(gradient="none", identity="growing 1")
def growing(x):
    global computed
    if x[0] >= 400:
        time.sleep(0.03)
        computed += 1
        if computed == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        with open(log, "a") as file:
            file.write(f"{x[0]}\\n")
    return x.sum()

with wb.open(store) as board:
    print(board.call_many(growing, np.arange(440.0)[:, None]).y.tobytes().hex())
"""


def test_jobs_that_get_dearer_within_a_bin(tmp_path: Path) -> None:
    """What is done is handed over after a tenth of a second, whatever the jobs before these have cost."""
    log = tmp_path / "log"
    assert run_code(GROWING, tmp_path / "a.db", log, "30").returncode == -9
    last = run_code(GROWING, tmp_path / "a.db", log, "0")
    assert last.stdout.strip() == np.arange(440.0).tobytes().hex(), last.stderr
    computed = Counter(log.read_text().splitlines())
    assert len(computed) == 40
    assert sum(computed.values()) <= 40 + 4
