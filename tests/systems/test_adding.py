"""Nodes come in whole or not at all, and what is written comes with the next commit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.systems.samples import N, filled
from whiteboard.errors import (
    DtypeError,
    DuplicateNodeError,
    NonFiniteError,
    ParamError,
    ShapeError,
    WhiteboardError,
)

BAD_NODES: dict[str, tuple[dict[str, Any], type[WhiteboardError], str]] = {
    "twice": ({"ids": [20, 20], "theta": np.ones((2, 1))}, DuplicateNodeError, "20 is given twice"),
    "exists": ({"ids": [20, 3], "theta": np.ones((2, 1))}, DuplicateNodeError, "3 exists already"),
    "nothing": ({"ids": [20]}, ShapeError, "give theta, p, or attrs"),
    "rows": ({"ids": [20], "theta": np.ones((2, 1))}, ShapeError, r"theta: expected shape \(1, …\), got \(2, 1\)"),
    "flat p": ({"ids": [20], "p": np.ones(1)}, ShapeError, r"p: expected shape \(1, d\), got \(1,\)"),
    "object": ({"ids": [20], "theta": [None]}, DtypeError, "theta: object? ?.*dtype object is refused"),
    "complex": ({"ids": [20], "theta": [1j]}, DtypeError, "theta: complex dtype complex128 is refused"),
    "integer": ({"ids": [20], "theta": [1]}, DtypeError, "theta: integer dtype int64 is refused"),
    "ids": ({"ids": [2.5], "theta": [1.0]}, DtypeError, "ids: expected integer ids"),
    "attrs": ({"ids": [20], "attrs": ["a"]}, ParamError, "attrs: expected a mapping of names to values, got list"),
    "fixed": ({"ids": [20], "theta": [1.0], "fixed": [1]}, ShapeError, "fixed: expected bool"),
}


@pytest.mark.parametrize("case", BAD_NODES.values(), ids=BAD_NODES)
def test_bad_nodes_are_refused_whole(board: wb.Board, case: tuple[dict[str, Any], type[WhiteboardError], str]) -> None:
    """Nodes with a bad id, shape or dtype are refused by name, and none of the call is added."""
    fields, error, says = case
    system = filled(board)
    with pytest.raises(error, match=says):
        system.add_nodes(**fields)
    assert list(system.nodes) == list(range(N))


def test_fixed_nodes_take_no_impulses(board: wb.Board) -> None:
    """A fixed node is read by jobs and never moved."""
    system = filled(board)
    system.process([wb.Job("distance", (0, N - 1), target=9.0, attr="p")])
    system.impulse(N - 1, 0, "mul", np.ones(3))
    system.commit(wb.rules.StressDescent(0.5))
    assert (system.nodes[0].version, system.nodes[N - 1].version) == (1, 0)


def test_writes_come_with_the_next_commit(board: wb.Board) -> None:
    """A written value is there after the commit, on a fixed node too; a second value or an impulse is refused."""
    system = filled(board)
    system.commit()
    system.write(N - 1, theta=[1.0, 2.0, 3.0], p=[4.0, 5.0])
    system.write(N - 1, theta=[1.0, 2.0, 3.0])
    assert system.nodes[N - 1].version == 0
    with pytest.raises(ParamError, match="written with another value"):
        system.write(N - 1, theta=[1.0, 2.0, 4.0])
    with pytest.raises(NonFiniteError, match="theta of node 0"):
        system.write(0, theta=[np.nan] * 3)
    assert system.commit().changed == 1
    node = system.nodes[N - 1]
    assert (np.asarray(node.theta).tolist(), np.asarray(node.p).tolist()) == ([1, 2, 3], [4, 5])
    assert node.version == 1
    system.write(0, theta=[0.0] * 3)
    system.impulse(0, 1, "mul", np.ones(3))
    with pytest.raises(ParamError, match="node 0 has impulses and was written"):
        system.commit(wb.rules.Relax())
    system.retract(0, 1, "mul", np.ones(3))
    assert system.commit().changed == 1
