"""What a job of a system pulls at its sources: minus scale times the residual through the op, and its weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.systems.samples import filled


def test_impulses_are_minus_scale_times_the_pulled_residual(board: wb.Board) -> None:
    """A rule gets −scale · Jᵀ · residual for each source, for each kind of op and residual."""
    seen: dict[str, Any] = {}

    def spy(rows: np.ndarray, sums: Any) -> np.ndarray:
        seen["sums"] = sums
        return rows

    system = filled(board)
    a, b = (np.asarray(system.nodes[i].theta) for i in (0, 1))
    r = np.array([0.5, -1.0, 2.0])
    cases = [
        (wb.Job("mul", (0, 1), residual=r, scale=2.0), -2 * r * b, -2 * r * a),
        (wb.Job("mul", (0, 1), residual=3.0), -3 * b, -3 * a),
        (wb.Job("mul", (0, 1), target=r), -(a * b - r) * b, -(a * b - r) * a),
        (wb.Job("vecdot", (0, 1), target=0.25), -(a @ b - 0.25) * b, -(a @ b - 0.25) * a),
        (wb.Job("tanh", (0,), residual=r, scale=0.1), -0.1 * r * (1 - np.tanh(a) ** 2), None),
    ]
    for job, on_a, on_b in cases:
        system.process([job])
        system.commit(spy)
        got = seen["sums"]
        np.testing.assert_allclose(got.vector[0], on_a, rtol=1e-12)
        if on_b is not None:
            np.testing.assert_allclose(got.vector[1], on_b, rtol=1e-12)
        assert got.weight.tolist() == [job.scale] * len(got.weight)


def test_a_general_op_pulls_a_residual_that_is_not_constant(board: wb.Board) -> None:
    """A matvec with a residual vector gives Jᵀ · residual, cached under a key with the cotangent."""
    seen: list[np.ndarray] = []

    def spy(rows: np.ndarray, sums: Any) -> np.ndarray:
        seen.append(sums.vector)
        return rows

    rng = np.random.default_rng(0)
    matrix, x, r = rng.normal(size=(1, 2, 3)), rng.normal(size=(1, 3)), np.array([0.5, -2.0])
    system = board.system("s")
    system.add_nodes([0], theta=matrix)
    system.add_nodes([1], theta=x)
    for hits in (0, 1):
        seen.clear()
        before = board.stats()["hits_memory"]
        (result,) = system.process([wb.Job("matvec", (0, 1), residual=r)])
        assert board.stats()["hits_memory"] - before == hits
        np.testing.assert_allclose(result.y, matrix[0] @ x[0])
        np.testing.assert_allclose(result.grads[1], matrix[0].sum(0))
        system.commit(spy)
        np.testing.assert_allclose(seen[0][0], -np.outer(r, x[0]))
        np.testing.assert_allclose(seen[1][0], -matrix[0].T @ r)


def test_weight_inv_length_divides_by_the_distance_to_the_out_node(board: wb.Board) -> None:
    """The weight of an impulse is scale / ‖p_src − p_out‖, slot by slot."""
    seen: list[Any] = []

    def spy(rows: np.ndarray, sums: Any) -> np.ndarray:
        seen.append(sums)
        return rows

    system = filled(board)
    p = [np.asarray(system.nodes[i].p) for i in range(3)]
    system.process([wb.Job("mul", (0, 1), 2, residual=1.0, scale=2.0, weight="inv_length")])
    system.commit(spy)
    assert seen[0].weight == pytest.approx([2 / np.linalg.norm(p[i] - p[2]) for i in (0, 1)])
