"""A client of the bridge: a spring network with nodes, epochs and jobs of its own, and the adapter that it takes."""

from __future__ import annotations

import inspect
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.errors import UnknownOpError
from whiteboard.integration.bridge_v2 import ForeignNames, Meaning, evaluate_ops_batched, push_impulses_from_ops_batched

ROUNDS = 60
ROOT = Path(__file__).resolve().parents[2]


# The foreign system: it knows nothing of Whiteboard


@dataclass
class Point:
    """A node: a position that is edited in place, and how stiff its springs are, a number."""

    theta: np.ndarray
    ctrl: float
    force: np.ndarray = field(default_factory=lambda: np.zeros(2))
    strain: float = 0.0


@dataclass(frozen=True)
class Task:
    """A job as the network queues it: its own names of ops and attributes."""

    name: str
    what: str
    of: tuple[tuple[int, str], ...]
    out: int
    wanted: Any


class Network:
    """Points on a ring, springs to the neighbours and across; it counts epochs, and moves everything in place."""

    def __init__(self, size: int = 12) -> None:
        rng = np.random.default_rng(0)
        self.nodes = {10 * i: Point(rng.normal(size=2), float(rng.uniform(0.5, 1.5))) for i in range(size)}
        self.epoch = 0

    def tasks(self) -> Iterator[Task]:
        """Yield the jobs of one epoch."""
        ids = list(self.nodes)
        for at, i in enumerate(ids):
            for step, rest in ((1, 1.0), (len(ids) // 2, 3.0)):
                j = ids[(at + step) % len(ids)]
                yield Task(f"{self.epoch}/spring {i}-{j}", "length", ((i, "theta"), (j, "theta")), j, rest)
            yield Task(f"{self.epoch}/hold {i}", "stretch", ((i, "theta"), (i, "ctrl")), i, np.array([0.1, -0.1]))
        yield Task(f"{self.epoch}/budget", "total", tuple((i, "ctrl") for i in ids), ids[0], 10.0)

    def pull(self, node_id: int, attr: str, by: Any) -> None:
        """Take an impulse."""
        point = self.nodes[node_id]
        if attr == "theta":
            point.force += by
        else:
            point.strain += by

    def tick(self) -> None:
        """End an epoch: every point moves, in place."""
        for point in self.nodes.values():
            point.theta += 0.1 * point.force
            point.ctrl += 0.01 * point.strain
            point.force[:], point.strain = 0.0, 0.0
        self.epoch += 1

    def digest(self) -> str:
        """Return a digest of the state, to the bit."""
        parts = [part for point in self.nodes.values() for part in (point.theta.tobytes(), point.ctrl.hex().encode())]
        return blake2b(b"".join(parts), digest_size=16).hexdigest()


# The adapter: all that the network needs to run on Whiteboard


class Adapter:
    """Runs the tasks of a network over the bridge."""

    names = ForeignNames(
        {"length": "distance", "stretch": "mul", "total": Meaning("sum", stack=True)},
        refused={"sum_k": "there the total of all elements, here a sum of rows: it is called 'total'"},
    )

    def __init__(self, network: Network, board: wb.Board, done: list[str]) -> None:
        self.network, self.board = network, board
        self.sink = wb.CallbackSink(lambda result: done.append(result.job_id))

    def round(self) -> None:
        """Run one epoch: see what everything is, and pull by how far it is from what is wanted."""
        tasks = list(self.network.tasks())
        found = evaluate_ops_batched(
            self.network,
            [(task.what, task.of, task.out, None, None) for task in tasks],
            cache=self.board,
            result_sink=self.sink,
            names=self.names,
            job_ids=[task.name for task in tasks],
        )
        for task, evaluation in zip(tasks, found, strict=True):
            evaluation.push(evaluation.y - task.wanted, weight=self.stiffness(task), push=self.push)
        self.network.tick()

    def stiffness(self, task: Task) -> Any:
        """Return the weight of a spring: the mean of what its ends have, as they are."""
        return (lambda source, out: (source.ctrl + out.ctrl) / 2) if task.what == "length" else None

    def push(self, sources: tuple[Any, ...], out: int, op_name: str, vectors: tuple[Any, ...]) -> None:
        """Hand the impulses of one task on."""
        for (node_id, attr), vector in zip(sources, vectors, strict=True):
            self.network.pull(node_id, attr, vector)


def main(store: str, rounds: int = ROUNDS) -> None:
    """Run a new network, and print what came of it."""
    network, done = Network(), list[str]()
    with wb.open(store) as board:
        adapter = Adapter(network, board, done)
        for _ in range(rounds):
            adapter.round()
        stats = board.stats()
    hits = {name: int(stats[name]) for name in ("misses", "hits_memory", "hits_disk")}
    sys.stdout.write(json.dumps({"digest": network.digest(), "jobs": len(done), "last": done[-1], **hits}))


def start(store: Path) -> subprocess.Popen[str]:
    """Start a process that runs the network."""
    code = f"from tests.integration.test_client import main; main({str(store)!r})"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True)


def ran(store: Path) -> dict[str, Any]:
    """Run it in a process of its own, to the end."""
    with start(store) as process:
        out, _ = process.communicate()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_adapter_is_short() -> None:
    """An adapter for a system of another make takes at most 60 lines."""
    assert len(inspect.getsource(Adapter).splitlines()) <= 60


def test_a_restart_computes_nothing_and_ends_in_the_same_bits(tmp_path: Path) -> None:
    """60 rounds of springs, and the same from the start in another process: no miss, one digest, the caller's ids."""
    first, again = ran(tmp_path / "a.db"), ran(tmp_path / "a.db")
    assert first["jobs"] == again["jobs"] == ROUNDS * 37
    assert first["last"] == again["last"] == "59/budget"
    assert first["misses"] > 0
    assert again["misses"] == 0
    assert first["digest"] == again["digest"]
    network = Network()
    with wb.open(":memory:", memory_bytes=0) as board:
        adapter = Adapter(network, board, [])
        for _ in range(ROUNDS):
            adapter.round()
    assert network.digest() == first["digest"]


def test_a_killed_client_ends_in_the_same_bits(tmp_path: Path) -> None:
    """Killed with -9 at any instant and started again, it ends where an undisturbed one does."""
    whole = ran(tmp_path / "whole.db")
    chance = random.Random(0)
    for _ in range(3):
        process = start(tmp_path / "killed.db")
        time.sleep(chance.uniform(0.5, 1.2))
        process.kill()
        process.communicate()
    assert ran(tmp_path / "killed.db")["digest"] == whole["digest"]
    assert ran(tmp_path / "killed.db")["misses"] == 0


def test_a_name_of_another_meaning_is_refused() -> None:
    """`sum_k` is a total there and a sum of rows here: it never comes to a number."""
    with pytest.raises(UnknownOpError, match="foreign op 'sum_k' has no equal here: there the total of all elements"):
        push_impulses_from_ops_batched(Network(), [("sum_k", (0, 10), 0, None, None)], names=Adapter.names)


def test_the_springs_relax() -> None:
    """What is pulled goes where it should: the strain of all springs falls, and the stiffness nears its budget."""

    def strain(network: Network) -> float:
        ends = [(t, [network.nodes[i].theta for i, _ in t.of]) for t in network.tasks() if t.what == "length"]
        return float(sum((np.linalg.norm(a - b) - t.wanted) ** 2 for t, (a, b) in ends))

    network = Network()
    before, left = strain(network), abs(sum(point.ctrl for point in network.nodes.values()) - 10)
    with wb.open(":memory:") as board:
        adapter = Adapter(network, board, [])
        for _ in range(ROUNDS):
            adapter.round()
    assert strain(network) < before / 2
    assert abs(sum(point.ctrl for point in network.nodes.values()) - 10) < left
