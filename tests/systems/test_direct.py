"""Impulses given by hand: checked, taken back, cancelled, and too late."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.systems.samples import filled
from whiteboard.errors import DtypeError, NonFiniteError, ShapeError, StaleImpulseError, UnknownNodeError


def test_direct_impulses_are_checked(board: wb.Board) -> None:
    """An impulse of wrong shape or dtype, onto an unknown node, or with a NaN is refused by name."""
    system = filled(board)
    cases: list[tuple[int, Any, type[Exception], str]] = [
        (77, np.ones(3), UnknownNodeError, "impulse on node 77 from 1: no such node"),
        (0, np.ones(2), ShapeError, r"expected shape \(3,\), got \(2,\)"),
        (0, [1j] * 3, DtypeError, "complex128"),
        (0, [np.nan] * 3, NonFiniteError, "node 0 from 1.*not finite"),
    ]
    for node, vector, error, says in cases:
        with pytest.raises(error, match=says):
            system.impulse(node, 1, "mul", vector)
    system.impulse(0, 1, "mul", np.ones(3))
    system.impulse(0, 2, "mul", np.ones(3))
    before = np.asarray(system.nodes[0].theta)
    system.commit(lambda rows, sums: rows + sums.vector)
    assert np.asarray(system.nodes[0].theta).tolist() == (before + 2).tolist()


def test_a_retracted_impulse_leaves_no_trace(board: wb.Board) -> None:
    """Retracting, in any order, gives the bits of a system that never saw the impulse; with an exact rule too."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(30, 3)) * 10.0 ** rng.integers(-12, 12, (30, 1))
    for exact in (False, True):
        rule = wb.rules.Relax(0.1, 0.1, 0.1, exact=exact)
        plain, torn = filled(board, f"plain {exact}"), filled(board, f"torn {exact}")
        for i, vector in enumerate(vectors):
            torn.impulse(i % 3, i, "mul", vector)
            if i % 2:
                plain.impulse(i % 3, i, "mul", vector)
        for i in rng.permutation(np.arange(0, 30, 2)).tolist():
            torn.retract(i % 3, i, "mul", vectors[i])
        with pytest.raises(StaleImpulseError, match="no such impulse on node 0 from 0 waits"):
            torn.retract(0, 0, "mul", vectors[0])
        assert plain.commit(rule).digest == torn.commit(rule).digest
        with pytest.raises(StaleImpulseError, match="committed"):
            torn.retract(1, 1, "mul", vectors[1])


def test_an_exact_rule_sees_the_negative_take_the_impulse_away(board: wb.Board) -> None:
    """With exact sums an impulse and its negative cancel to the last bit, beside others of any size."""
    seen = []

    class Exact:
        exact = True

        def __call__(self, rows: np.ndarray, sums: Any) -> np.ndarray:
            seen.append(sums.vector.copy())
            return rows

    system = filled(board)
    small, huge = np.array([1e-9, 1.0, -3.0]), np.array([1e17, -1e16, 1e300])
    for vector in (huge, small, -huge):
        system.impulse(0, 1, "mul", vector)
    system.commit(Exact())
    assert seen[0][0].tolist() == small.tolist()


def test_an_impulse_against_an_older_version_is_refused(board: wb.Board) -> None:
    """An impulse that names the version it was made against is refused once the node has moved on."""
    system = filled(board)
    system.impulse(0, 1, "mul", np.ones(3), version=0)
    system.commit(lambda rows, sums: rows + sums.vector)
    with pytest.raises(StaleImpulseError, match="made against version 0, the node has version 1"):
        system.impulse(0, 1, "mul", np.ones(3), version=0)
    system.impulse(0, 1, "mul", np.ones(3), version=1)
