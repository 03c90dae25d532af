"""One digest and one cache at every level of arithmetic, and one digest after an edit that changes no bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import whiteboard as wb
from tests.arithmetic_levels import at, levels

DIGESTS = """
import whiteboard as wb
from whiteboard.experiments.diabetes import diabetes
from whiteboard.experiments.drive import drive
from whiteboard.experiments.europe import europe

for experiment, rounds in ((europe(), None), (europe(seed=3), 40), (diabetes(), 40)):
    with wb.open(":memory:") as board:
        done = drive(experiment, board.system(experiment.name), rounds=rounds)
        print(experiment.name, done.commit.id, done.commit.digest)
"""

STORE = """
import numpy as np
import whiteboard as wb
from whiteboard.experiments.drive import drive
from whiteboard.experiments.europe import europe

x = np.random.default_rng(0).standard_normal((64, 8))
with wb.open("shared.db") as board:
    for op, sources in {"mul": (x, x[::-1].copy()), "vecdot": (x, x), "norm": (x,), "exp": (x,)}.items():
        print(op, set(board.call_many(op, *sources).hit.tolist()))
    before = board.stats()["misses"]
    drive(europe(), board.system(f"another {len(board.systems())}"), rounds=30)
    print("europe", board.stats()["misses"] - before)
"""


def test_experiments_have_one_digest_at_every_level() -> None:
    """Europe from both starts, and diabetes: the same commits and the same state."""
    first, *others = levels()
    here = at(first, DIGESTS)
    assert [line.split()[0] for line in here] == ["europe", "europe", "diabetes"]
    for level in others:
        assert at(level, DIGESTS) == here, level


def test_a_store_that_is_filled_at_one_level_is_hits_at_the_others(tmp_path: Path) -> None:
    """For portable ops; what takes the processor's kernels is computed again where these are others."""
    first, *others = levels()
    assert at(first, STORE, tmp_path) == ["mul {0}", "vecdot {0}", "norm {0}", "exp {0}", f"europe {30 * 210}"]
    for level in others:
        exp = 0 if level.startswith("without") else 2
        assert at(level, STORE, tmp_path) == ["mul {2}", "vecdot {2}", "norm {2}", f"exp {{{exp}}}", "europe 0"], level


def _helper(x):  # type: ignore[no-untyped-def]
    return x * x


def _edited(x):  # type: ignore[no-untyped-def]
    return np.multiply(x, x)


def test_an_edit_that_changes_no_bit_changes_no_digest() -> None:
    """Another fingerprint is other keys, and the sums of impulses are in the order they were in."""
    rng = np.random.default_rng(1)
    start, edges = rng.normal(size=(12, 3)), rng.integers(0, 12, (90, 2))
    digests, prints = set(), set()
    for helper in (_helper, _edited):

        @wb.op("spring", replace=True, vjp=lambda g, _y, a, b, helper=helper: (g * helper(a - b), -g * helper(a - b)))
        def spring(a, b, helper=helper):  # type: ignore[no-untyped-def]
            return np.add.reduce(helper(a - b), axis=-1)

        prints.add(wb.ops.get("spring").fingerprint)
        with wb.open(":memory:") as board:
            system = board.system("springs")
            system.add_nodes(range(12), theta=start)
            for _ in range(5):
                system.process(wb.JobBatch("spring", edges, target=1.0))
                commit = system.commit(wb.rules.Relax(0.1))
                digests.add((commit.id, commit.digest))
    assert len(prints) == 2
    assert len(digests) == 5
