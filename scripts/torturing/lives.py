"""What is interrupted: a board with a system, the calls that are made of it, and what has to be true after each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

import whiteboard as wb
from whiteboard.storage.sqlite.database import Database
from whiteboard.storage.stores import Stores

NODES: Final = 40
RULE: Final = wb.rules.StressDescent(omega=0.5)


class Life:
    """A board with a system, its twin, and the calls that are made of both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.edges = np.array([(i, (i * 7 + j) % NODES) for i in range(NODES) for j in (1, 2)])
        self.target = np.linspace(1.0, 3.0, len(self.edges))
        self.jobs = wb.JobBatch("distance", self.edges, target=self.target, scale=0.1 / self.target, attr="p")
        self.futures: list[Future[Any]] = []
        self.x = np.random.default_rng(1).normal(size=(300, 6))
        self.y = np.tanh(self.x)
        self.open()

    def open(self) -> None:
        """Open the board and its system."""
        self.board = wb.open(self.path, memory_bytes=2**18)
        self.system = self.board.system("s", takeover=True)

    def begin(self) -> None:
        """Make the nodes and the first commit."""
        self.system.add_nodes(range(NODES), p=np.random.default_rng(0).normal(size=(NODES, 3)))
        self.system.commit()

    def round(self) -> None:
        """Process and commit."""
        if not self.system.waiting:
            self.system.process(self.jobs)
        self.system.commit(RULE)

    def ask(self, first: int, n: int = 8) -> None:
        """Ask for some packages and compare."""
        many = self.board.call_many("tanh", self.x[first : first + n])
        assert many.y.tobytes() == self.y[first : first + n].tobytes(), "a wrong answer"

    def free(self) -> None:
        """Nothing is left over: a second board in the process, and another process's lock, write at once."""
        assert isinstance(self.board._store, Stores)
        database = self.board._store.database
        assert isinstance(database, Database)
        lock = database.lock
        assert lock is not None
        with database._mutex:  # which the thread that cuts the log has while it holds the lock
            assert not lock.held, "the write lock is still held"
            assert database._pool.raw is None or not database._pool.raw.in_transaction, "a transaction is still open"
        with wb.open(self.path) as other:
            system = other.system("other")
            if system.head is None:
                system.add_nodes([0], theta=[0.0])
            system.write(0, theta=float(system.head.id + 1 if system.head else 0))
            system.commit()


@cache
def digests() -> tuple[str, ...]:
    """The digests of the first commits of a life that nobody disturbs."""
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder) / "a.db")
        life.begin()
        for _ in range(4):
            life.round()
        found = tuple(commit.digest for commit in life.system.history())
        life.board.close()
    return found


def _commit(life: Life) -> Callable[[], object]:
    life.begin()
    life.system.process(life.jobs)
    return lambda: life.system.commit(RULE)


def _process(life: Life) -> Callable[[], object]:
    life.begin()
    return lambda: life.system.process(life.jobs)


def _add_nodes(life: Life) -> Callable[[], object]:
    return lambda: life.system.add_nodes(range(NODES), p=np.random.default_rng(0).normal(size=(NODES, 3)))


def _call(life: Life) -> Callable[[], object]:
    life.begin()
    life.ask(0)
    return lambda: life.board.call("tanh", life.x[20])


def _call_many(life: Life) -> Callable[[], object]:
    life.begin()
    life.ask(0)
    life.board.flush()
    return lambda: life.ask(4)


def _drain(life: Life) -> Callable[[], object]:
    life.begin()
    life.futures = [life.board.submit(job, life.system) for job in list_of(life)]
    return life.board.drain


def list_of(life: Life) -> list[wb.Job]:
    """The jobs of a life, one by one."""
    columns = zip(life.edges.tolist(), life.target.tolist(), strict=True)
    return [wb.Job("distance", edge, target=t, scale=0.1 / t, attr="p") for edge, t in columns]


def _flush(life: Life) -> Callable[[], object]:
    life.begin()
    life.ask(0)
    return life.board.flush


def _close(life: Life) -> Callable[[], object]:
    life.begin()
    life.ask(0)
    life.board.submit(list_of(life)[0], life.system)
    return life.board.close


def _gc(life: Life) -> Callable[[], object]:
    life.begin()
    for first in range(0, 200, 8):
        life.ask(first)
        life.board.flush()
    return lambda: life.board.gc(max_bytes=60_000)


def _open(life: Life) -> Callable[[], object]:
    life.begin()
    life.board.close()
    return life.open


SCENES: Final[dict[str, Callable[[Life], Callable[[], object]]]] = {
    "call": _call,
    "call_many": _call_many,
    "process": _process,
    "commit": _commit,
    "add_nodes": _add_nodes,
    "drain": _drain,
    "flush": _flush,
    "close": _close,
    "gc": _gc,
    "open": _open,
}


def check(scene: str, life: Life) -> None:
    """What comes after an interrupt is right, and ends where an undisturbed life ends."""
    want = digests()
    if scene in ("close", "open"):
        life.board.close()
        life.open()
    system = life.system
    if scene == "add_nodes":
        assert len(system.nodes) in (0, NODES), "some of the nodes"
        if not len(system.nodes):
            _add_nodes(life)()
        assert sorted(system.nodes) == list(range(NODES))
        system.commit()
    if scene == "process":
        assert system.waiting in (0, 2 * len(life.jobs)), "some of the impulses"
    if scene == "drain":
        life.board.drain()
        for future, job in zip(life.futures, list_of(life), strict=True):
            assert future.done(), "a future that is never done"
            p = [np.asarray(system.nodes[i].p) for i in job.src_ids]
            assert abs(float(future.result().y) - np.linalg.norm(p[0] - p[1])) < 1e-12
        assert system.waiting == 2 * len(life.jobs), f"{system.waiting} impulses of {2 * len(life.jobs)}"
    head = system.head
    assert head is not None
    assert head.digest == want[head.id]
    assert system.digest() == head.digest, "the state in memory is not the head's"
    life.free()
    for first in (0, 4, 20):
        life.ask(first)
    for _ in range(2 - head.id):
        life.round()
    assert system.digest() == want[2], "another end"
    life.board.flush()
    life.board.close()
    with wb.open(life.path, readonly=True) as board:
        assert [commit.digest for commit in board.system("s").history()] == list(want[:3])
        assert board.verify().ok
