"""Thrift: what costs less than a key is computed without one, to the same bits, where packages are kept by cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard import ops
from whiteboard.evaluation.execution import Task
from whiteboard.evaluation.pipeline import Pipeline
from whiteboard.evaluation.sources import ArraySources
from whiteboard.evaluation.thrift import Thrift
from whiteboard.storage.base import Persist

pytestmark = pytest.mark.usefixtures("builtin_ops_only")

X = np.random.default_rng(0).normal(size=(200, 8))


def task(op: str, x: Any, cotangent: Any = None) -> Task:
    """Return what some jobs of an op ask for."""
    spec = ops.get(op)
    return Task(spec, spec.bind(None), x.shape[1:], ArraySources(op, [x]), cotangent)


@pytest.mark.parametrize(
    ("keyed", "computed", "n", "spared"),
    [(100, 50, 200, True), (50, 100, 200, False), (50, 50, 200, False), (100, 50, 15, False)],
    ids=["cheap", "dear", "equal", "few"],
)
def test_what_is_cheaper_than_its_key_is_spared_one(keyed: int, computed: int, n: int, spared: bool) -> None:
    """Of its own signature alone, and only once both were seen of enough jobs."""
    thrift, asked = Thrift(on=True), task("tanh", X[:n])
    assert not thrift.spares(asked)
    thrift.computed(asked, n, computed * n)
    assert not thrift.spares(asked)
    thrift.keyed(asked, keyed * n)
    assert thrift.spares(asked) is spared
    for other in (task("square", X), task("tanh", X[:, :4]), task("tanh", X.astype("f4")), task("tanh", X, X)):
        assert not thrift.spares(other)
    off = Thrift(on=False)
    off.computed(asked, n, 0)
    off.keyed(asked, 10**9)
    assert not off.spares(asked)


def test_the_bits_are_those_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that is computed without keys has the digest of one that has them; its answers are misses."""
    ids = np.arange(200).reshape(100, 2)
    residual = np.random.default_rng(1).normal(size=(100, 8))
    digests, misses = [], []
    persists: list[tuple[Persist, bool]] = [("always", False), ("auto", True)]
    for persist, spares in persists:
        monkeypatch.setattr(Thrift, "spares", lambda *_, now=spares: now)
        with wb.open(":memory:", persist=persist) as board:
            system = board.system("s")
            system.add_nodes(range(200), theta=X)
            system.commit()
            for _ in range(3):
                for name in ("mul", "tanh", "softmax"):
                    slots = ids if name == "mul" else ids[:, :1]
                    result = system.process(wb.JobBatch(name, slots, residual=residual))
                    again = system.process(wb.JobBatch(name, slots))
                    assert result.y.tobytes() == again.y.tobytes()
                    misses.append(int((again.hit == 0).sum()))
                system.commit(wb.rules.Relax(eta=0.1, rtol=1e-3, atol=1e-3))
            digests.append(system.digest())
            assert board.stats()["packages"] == 0 or persist == "always"
    assert digests[0] == digests[1]
    assert misses == [0] * 9 + [100] * 9


def test_errors_and_repeats_are_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures stay alone, and equal jobs of a batch have equal results."""

    def picky(x: Any) -> Any:
        if x[0] == X[3, 0]:
            raise ArithmeticError
        return x * 2

    wb.op(gradient="none", identity="picky")(picky)
    monkeypatch.setattr(Thrift, "spares", lambda *_: True)
    with wb.open(":memory:", persist="auto") as board:
        result = board.call_many("picky", np.concatenate([X[:5], X[:5]]), errors="collect")
    assert sorted(result.errors) == [3, 8]
    assert result.y[:3].tobytes() == result.y[5:8].tobytes() == (X[:3] * 2).tobytes()


def test_no_key_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is spared is spared: neither tokens nor lookups; and without ``persist="auto"`` nothing is."""
    monkeypatch.setattr(Thrift, "spares", lambda self, _: self.on)
    monkeypatch.setattr(Pipeline, "_keys", None)
    with wb.open(":memory:", persist="auto") as board:
        assert board.call_many("tanh", X).y.tobytes() == np.tanh(X).tobytes()
    with wb.open(":memory:") as board, pytest.raises(TypeError):
        board.call_many("tanh", X)
