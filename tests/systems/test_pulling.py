"""What a job of a system pulls at its sources: minus scale times the residual through the op, and its weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.systems.samples import N, filled


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


def test_a_weight_is_floored_or_a_function_of_both_nodes(board: wb.Board) -> None:
    """`InvLength` takes no length below its floor; a function gets the source and the out node, None where none is."""
    seen: list[Any] = []

    def spy(rows: np.ndarray, sums: Any) -> np.ndarray:
        seen.append(sums.weight.tolist())
        return rows

    def stiffness(source: Any, out: Any) -> float:
        return 10.0 if out is None else 10.0 * source.id + out.id

    system = filled(board)
    far = np.linalg.norm(np.asarray(system.nodes[0].p) - np.asarray(system.nodes[2].p))
    jobs = [
        wb.Job("mul", (0, 2), 2, residual=1.0, scale=2.0, weight=wb.InvLength(floor=0.25)),
        wb.Job("mul", (0, 2), 1, residual=1.0, scale=2.0, weight=stiffness),
        wb.Job("mul", (0, 2), residual=1.0, scale=2.0, weight=stiffness),
    ]
    for job in jobs:
        system.process([job])
        system.commit(spy)
    assert seen == [pytest.approx([2 / far, 8]), [2.0, 42.0], [20.0, 20.0]]


def test_an_op_of_one_source_takes_the_stack_of_all(board: wb.Board) -> None:
    """With `stack` the op gets (k, …), each source its own gradient and impulse, and the result is found again."""
    system = filled(board)
    before = [np.asarray(system.nodes[i].theta) for i in range(N)]
    total = wb.Job("sum", (0, 1, 2), residual=2.0, stack=True)
    rows = wb.Job("sum", (3, 4), residual=[1.0, 2.0, 3.0], stack=True, params={"axis": 0})
    squares = wb.JobBatch("square", [(5, 6), (6, 7)], residual=np.arange(12.0).reshape(2, 2, 3), stack=True)
    first, second = system.process([total, rows])
    assert first.y == np.stack(before[:3]).sum()
    assert second.y.tolist() == (before[3] + before[4]).tolist()
    assert [len(result.grads) for result in (first, second)] == [3, 2]
    assert all((grad == 1).all() and grad.shape == (3,) for grad in (*first.grads, *second.grads))
    assert (first.src_ids, first.versions) == ((0, 1, 2), (0, 0, 0))
    both = system.process(squares)
    np.testing.assert_array_equal(both.grads[1], [2 * before[6], 2 * before[7]])
    assert [result.hit for result in system.process([total, rows])] == ["memory", "memory"]
    assert board.explain(total, system).hit
    system.discard()
    system.process([total, rows])
    system.process(squares)
    system.commit(lambda rows, sums: rows + sums.vector)
    after = [np.asarray(system.nodes[i].theta) for i in range(N)]
    moved = [*[np.full(3, -2.0)] * 3, *[np.array([-1.0, -2.0, -3.0])] * 2]
    for i, move in enumerate(moved):
        np.testing.assert_allclose(after[i] - before[i], move)
    np.testing.assert_allclose(after[6] - before[6], -2 * before[6] * np.array([9, 11, 13]))


def test_a_fixed_node_may_lie_where_the_out_node_does(board: wb.Board) -> None:
    """A weight that is infinite is no error where no impulse has it."""
    system = filled(board)
    system.process([wb.Job("mul", (0, N - 1), N - 1, residual=1.0, weight="inv_length")])
    assert system.waiting == 1


def test_a_residual_of_one_number_fits_a_y_that_is_one(board: wb.Board) -> None:
    """Residual and target of shape (1,) are those of shape () where y has shape (): the same bits."""
    digests: list[str] = []
    for value in (3.0, [3.0], np.array([3.0])):
        system = filled(board, f"s{len(digests)}")
        system.process([wb.Job("distance", (0, 1), residual=value, attr="p"), wb.Job("vecdot", (2, 3), target=value)])
        digests.append(system.commit(lambda rows, sums: rows + sums.vector).digest)
    assert len(set(digests)) == 1
