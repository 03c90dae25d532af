"""Trust, but check: a hit of a user's op that is not what the op computes now is noticed, and answers nobody again."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard import ops
from whiteboard.evaluation import agreement

X = np.arange(1.0, 5.0)


pytestmark = pytest.mark.usefixtures("builtin_ops_only")


class World:
    """What a fingerprint is told not to see."""

    k = 2.0
    runs = 0


def solve(x: Any) -> Any:
    """Return k x, in 2 ms."""
    World.runs += 1
    time.sleep(0.002)
    return World.k * x


@pytest.fixture
def board(tmp_path: Path) -> Iterator[wb.Board]:
    """Return a board of another process's packages of `solve`, k = 2, and forget that they were computed."""
    World.k = 2.0
    ops.op("solve", identity="solver 1", vjp=lambda c, y, x: 2 * c)(solve)
    with wb.open(tmp_path / "cache.db") as first:
        first.call_many("solve", X[:, None])
    World.runs = 0
    with wb.open(tmp_path / "cache.db") as again:
        yield again


def test_checks_cost_a_hundredth_of_what_hits_save(board: wb.Board) -> None:
    """None before a hundred times a job's cost is saved, and no more than the first few ever."""
    board.call("solve", X[:1])
    assert (World.runs, board.stats()["checked"]) == (0, 0)
    many = np.repeat(X[:, None], 40, axis=0)
    for _ in range(4):
        assert board.call_many("solve", many).hit.all()
    assert 1 <= World.runs <= 6
    assert board.stats()["checked"] == World.runs
    for _ in range(100):
        board.call_many("solve", many)
    assert (board.stats()["checked"], board.stats()["wrong"]) == (agreement.FIRST, 0)
    assert board.stats()["misses"] == 0


def test_a_wrong_hit_is_noticed_and_answers_nobody_again(board: wb.Board) -> None:
    """It warns with the key, is counted, and the op's packages of that fingerprint are misses from then on."""
    World.k = 3.0
    says = r"op 'solve': y of the package under key [0-9a-f]{32} is not what"
    with pytest.warns(wb.WrongHitWarning, match=says) as seen:
        r = board.call_many("solve", np.ones((300, 1)))
    assert [str(each.filename) for each in seen] == [__file__]
    assert not r.hit.any()
    assert np.all(r.y == 3.0)
    assert (board.stats()["checked"], board.stats()["wrong"]) == (1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = board.call("solve", X[1:2])
    assert (one.hit, one.y[0]) == ("miss", 6.0)
    system = board.system("s")
    system.add_nodes([0], theta=X[None, :1])
    assert "was computed again and is another now" in board.explain(wb.Job("solve", (0,)), system).reason
    ops.op("solve", 2, identity="solver 1", vjp=lambda c, y, x: 3 * c, replace=True)(solve)
    assert [board.call("solve", X[1:2]).hit for _ in range(2)] == ["miss", "memory"]


def test_built_in_ops_are_not_checked(board: wb.Board) -> None:
    """Their tests have done that."""
    for _ in range(300):
        board.call("exp", X)
    assert board.stats()["checked"] == 0


def test_a_tolerance_op_may_differ_in_its_last_places(tmp_path: Path) -> None:
    """And not by more."""

    def rough(x: Any) -> Any:
        time.sleep(0.001)
        return World.k * x

    ops.op("rough", identity="1", exactness="tolerance", vjp=lambda c, y, x: 2 * c)(rough)
    many = np.full((300, 1), 3.0)
    for k, wrong in ((2.0, 0), (2.0 + 4e-16, 0), (2.1, 1)):
        World.k = k
        with wb.open(tmp_path / "rough.db") as board, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(2):
                board.call_many("rough", many[: None if k == 2.0 or wrong == 0 else 300])
            assert board.stats()["wrong"] == wrong


def test_a_check_of_what_is_in_memory_reads_no_disk(tmp_path: Path) -> None:
    """A hit that is due to be checked is computed again as memory has it: the page on disk has other costs."""
    wb.op("cheap", gradient="none", identity="cheap 1")(lambda x: x + 1.0)
    many = np.random.default_rng(0).normal(size=(2000, 1))
    with wb.open(tmp_path / "a.db") as board:
        for x in many:
            board.call("cheap", x)
        board.flush()
        assert {board.call("cheap", x).hit for x in many} == {"memory"}
        assert board.stats()["checked"] >= 1
