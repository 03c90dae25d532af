"""What `hit` says of each job, and what `stats` counts, is the same, whichever way jobs are asked."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import whiteboard as wb
from whiteboard import ops
from whiteboard.integration.bridge_v2 import push_impulses_from_op_v2
from whiteboard.ops import registry
from whiteboard.records.packages import HIT_NAMES

TIERS = {"miss": "misses", "memory": "hits_memory", "disk": "hits_disk"}
OPS = ("exp", "softmax", "logsumexp", "clock")
NODES = 4


@pytest.fixture(autouse=True, scope="module")
def _clock() -> Iterator[None]:
    """An op that cannot be cached."""
    ops.op("clock", vjp=lambda c, y, x: c)(lambda x: x + 0 * time.time())
    yield
    del registry._entries["clock"]


def values(nodes: list[int]) -> np.ndarray[Any, Any]:
    """Return the values of nodes; the last two are equal."""
    table = np.arange(3.0 * NODES).reshape(NODES, 3)
    table[-1] = table[-2]
    return table[nodes]


def ask(board: wb.Board, system: wb.System, how: str, op: str, nodes: list[int], residual: bool) -> list[str]:
    """Ask for jobs in one of the ways there are, and return what `hit` says of each."""
    drive: Any = [1.0, 2.0, 3.0] if op != "logsumexp" else 2.0
    jobs = [wb.Job(op, (node,), residual=drive if residual else None) for node in nodes]
    if how == "call":
        return [board.call(op, values([node])[0]).hit for node in nodes]
    if how == "call_many":
        return [HIT_NAMES[code] for code in board.call_many(op, values(nodes)).hit]
    if how == "process":
        return [result.hit for result in system.process(jobs)]
    if how == "columns":
        batch = wb.JobBatch(op, [[node] for node in nodes], residual=drive if residual and op == "logsumexp" else None)
        return [HIT_NAMES[code] for code in system.process(batch).hit]
    if how == "submit":
        waiting = [board.submit(job) for job in jobs]
        board.drain()
        return [future.result().hit for future in waiting]
    if how == "bridge":
        sink = wb.ListSink()
        for node in nodes:
            push_impulses_from_op_v2(system, op, (node,), None, residual=drive if residual else None, result_sink=sink)
        return [result.hit for result in sink.results]
    board.explain(jobs[0], system)
    board.flush()
    return []


WAYS = ("call", "call_many", "process", "columns", "submit", "bridge", "explain")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(WAYS),
        st.sampled_from(OPS),
        st.lists(st.integers(0, NODES - 1), min_size=1, max_size=5),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, reopen=st.integers(0, 12))
def test_hits_and_stats_agree(tmp_path_factory: pytest.TempPathFactory, steps: Any, reopen: int) -> None:
    """After any sequence of calls, with the board closed and opened again somewhere in it."""
    path: Path = tmp_path_factory.mktemp("hits") / "cache.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wb.UncachedWarning)
        for part in (steps[:reopen], steps[reopen:]):
            with wb.open(path) as board:
                system = board.system("s")
                if system.head is None:
                    system.add_nodes(range(NODES), theta=values(list(range(NODES))))
                    system.commit()
                said: Counter[str] = Counter()
                for how, op, nodes, residual in part:
                    said.update(ask(board, system, how, op, nodes, residual))
                    stats = board.stats()
                    assert {tier: stats[name] for tier, name in TIERS.items()} == {tier: said[tier] for tier in TIERS}


def test_a_job_that_needs_two_packages_is_one_job() -> None:
    """It is a miss where either had to be computed, as its answer then was."""
    with wb.open(":memory:") as board:
        system = board.system("s")
        system.add_nodes([0], theta=np.array([[1.0, 2.0, 3.0]]))
        board.call("softmax", [1.0, 2.0, 3.0])
        job = wb.Job("softmax", (0,), residual=[1.0, 2.0, 3.0])
        assert [system.process([job])[0].hit for _ in range(2)] == ["miss", "memory"]
        stats = board.stats()
        assert (stats["misses"], stats["hits_memory"], stats["packages"]) == (2, 1, 2)
