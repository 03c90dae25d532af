"""Jobs in, results out: in order, to the sink, and a bad one refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.systems.samples import N, filled
from whiteboard.errors import (
    DtypeError,
    NonFiniteError,
    ParamError,
    ShapeError,
    UnknownNodeError,
    UnknownOpError,
    WhiteboardError,
)

REFUSED: dict[str, tuple[wb.Job, type[WhiteboardError], str]] = {
    "op": (wb.Job("nope", (0, 1)), UnknownOpError, "nope"),
    "node": (wb.Job("mul", (0, 77), job_id="j"), UnknownNodeError, "op 'mul', job 'j', slot 1: no node 77"),
    "out": (wb.Job("mul", (0, 1), 77, job_id="j"), UnknownNodeError, "job 'j', out_id: no node 77"),
    "attr": (wb.Job("mul", (0, 50), attr="p", job_id="j"), UnknownNodeError, "slot 1: node 50 has no 'p'"),
    "arity": (wb.Job("mul", (0,), job_id="j"), ShapeError, "job 'j'.*expected 2 sources, got 1"),
    "shape": (wb.Job("mul", (0, 50), job_id="j"), ShapeError, "op 'mul', job 'j'"),
    "dtype": (
        wb.Job("mul", (0, 51), job_id="j"),
        DtypeError,
        "slot 1: expected dtype float64 as in slot 0, got float32",
    ),
    "param": (wb.Job("mul", (0, 1), params={"axis": 0}, job_id="j"), ParamError, "job 'j'.*'axis'"),
    "residual": (wb.Job("mul", (0, 1), residual=[1.0, 2.0], job_id="j"), ShapeError, "job 'j': residual: expected"),
    "nan": (
        wb.Job("mul", (0, 1), residual=np.nan, job_id="j"),
        NonFiniteError,
        "job 'j', slot 0.*node 0 is not finite",
    ),
    "weight": (wb.Job("mul", (0, 1), residual=1.0, weight="inv_length", job_id="j"), ParamError, "needs out_ids"),
    "coincident": (
        wb.Job("mul", (0, 2), 2, residual=1.0, weight="inv_length", job_id="j"),
        NonFiniteError,
        r"job 'j', slot 1: weight 'inv_length': nodes 2 and 2 lie at one point: give InvLength\(floor=…\), or move one",
    ),
    "stack of a binary": (
        wb.Job("mul", (0, 1), stack=True, job_id="j"),
        ParamError,
        "job 'j'.*stack: expected an op of one source, this one takes 2 sources as they are",
    ),
    "stack of any": (wb.Job("sum_k", (0, 1), stack=True, job_id="j"), ParamError, "takes any number of sources"),
    "stack of shapes": (
        wb.Job("sum", (0, 50), stack=True, job_id="j"),
        ShapeError,
        r"job 'j'.*slot 1: expected shape \(3,\) as in slot 0 to stack, got \(2,\)",
    ),
    "stack of nothing": (wb.Job("sum", (), stack=True, job_id="j"), ShapeError, "job 'j'.*at least one source"),
    "weight of text": (
        wb.Job("mul", (0, 1), 2, residual=1.0, weight=lambda source, out: "a", job_id="j"),  # type: ignore[arg-type, return-value]
        ParamError,
        "job 'j', slot 0: weight of node 0 to 2: expected a number, got <U1",
    ),
    "weights": (
        wb.Job("mul", (0, 1), residual=1.0, weight=lambda source, out: source.theta, job_id="j"),
        ParamError,
        r"slot 0: weight of node 0 to None: expected a number, got float64 of shape \(3,\)",
    ),
    "infinite weight": (
        wb.Job("mul", (0, 1), 2, residual=1.0, weight=lambda source, out: np.inf, job_id="j"),
        NonFiniteError,
        "job 'j', slot 0: the impulse on node 0 is not finite: its weight to node 2 is inf, at a scale of 1.0",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_bad_job_is_named_and_leaves_no_impulse(
    board: wb.Board, case: tuple[wb.Job, type[WhiteboardError], str]
) -> None:
    """The error of a bad job names op, job and slot, and the good jobs of its call leave no impulse either."""
    job, error, says = case
    system = filled(board)
    system.add_nodes([50], theta=np.ones((1, 2)))
    system.add_nodes([51], theta=np.ones((1, 3), np.float32))
    with pytest.raises(error, match=says):
        system.process([wb.Job("mul", (0, 1), residual=1.0), job])
    assert system.commit().changed == N + 2


def test_what_is_no_job_is_refused_by_name(board: wb.Board) -> None:
    """A lone job, a text, a rule that cannot be called and a specification that JSON cannot hold are named."""
    system = filled(board)
    cases: list[tuple[Any, str]] = [
        (lambda: system.process(wb.Job("mul", (0, 1))), "expected a JobBatch or a sequence of Job, got Job"),  # type: ignore[call-overload]
        (lambda: system.process("mul"), "got str"),  # type: ignore[arg-type]
        (lambda: system.process([wb.Job("mul", 3)]), "job 0: src_ids: expected a sequence of ids, got 3"),  # type: ignore[arg-type]
        (lambda: system.commit(3), r"expected a rule\(rows, sums\), got 3"),  # type: ignore[arg-type]
        (lambda: board.system(3), "system name: expected printable characters, got 3"),  # type: ignore[arg-type]
        (lambda: board.system("x", {"a": object()}), "'x': spec: a: expected what JSON can hold"),
        (lambda: board.submit("mul", system), "submit: expected a Job, got str"),  # type: ignore[arg-type]
    ]
    for use, says in cases:
        with pytest.raises(ParamError, match=says):
            use()


def test_an_empty_batch_is_answered_with_nothing(board: wb.Board) -> None:
    """No jobs give no results and no impulses."""
    system = filled(board)
    result = system.process(wb.JobBatch("mul", np.empty((0, 2), np.int64), target=1.0))
    assert (len(result), list(result), len(result.grads)) == (0, [], 2)
    assert system.commit().stress is None


def test_results_reach_the_sink_in_order(board: wb.Board) -> None:
    """Hits and misses of mixed ops come back and are published in the order of the jobs."""
    system = filled(board)
    jobs = [wb.Job("mul", (0, 1)), wb.Job("tanh", (2,)), wb.Job("mul", (2, 3), 5, job_id="x"), wb.Job("mul", (0, 1))]
    sink = wb.ListSink()
    results = system.process(jobs, sink)
    assert sink.results == results
    assert [(r.job_id, r.out_id, r.hit) for r in results] == [
        (0, None, "miss"), (1, None, "miss"), ("x", 5, "miss"), (3, None, "memory"),
    ]  # fmt: skip
    batch = system.process(wb.JobBatch("mul", [[0, 1], [2, 3]]), sink)
    assert sink.results[-1] is batch
    assert batch.hit.tolist() == [1, 1]
    assert batch.y.tobytes() == np.stack([results[0].y, results[2].y]).tobytes()
    assert system.process([]) == []


@pytest.mark.parametrize("batched", [False, True])
def test_a_sink_that_raises_leaves_no_impulse(board: wb.Board, batched: bool) -> None:
    """The call can be made again, and counts once."""

    def full(result: object) -> None:
        raise OSError("the disk is full")

    digests = []
    for name, fails in (("calm", False), ("torn", True)):
        system = board.system(name)
        system.add_nodes([0, 1], theta=np.array([[1.0, 2.0], [3.0, 4.0]]))
        system.commit()
        jobs: Any = wb.JobBatch("mul", [[0, 1]], residual=1.0) if batched else [wb.Job("mul", (0, 1), residual=1.0)]
        if fails:
            with pytest.raises(OSError, match="the disk is full"):
                system.process(jobs, wb.CallbackSink(full))
        system.process(jobs)
        system.commit(wb.rules.Relax(0.1))
        digests.append(system.digest())
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("do", "told"),
    [
        (lambda s: s.process(wb.JobBatch("mul", np.array([[0, 1], [0, 77]]))), "op 'mul', job 1, slot 1: no node 77"),
        (lambda s: s.process(wb.JobBatch("mul", np.array([[0, 1]]), np.array([77]))), "job 0, out_id: no node 77"),
        (
            lambda s: s.process([wb.Job("mul", np.array([0, 77]).tolist(), job_id=np.int64(4))]),
            "job 4, slot 1: no node",
        ),
        (lambda s: s.nodes[np.int64(77)], "no node 77 "),
        (lambda s: s.impulse(np.int64(0), np.int64(77), "mul", np.ones(99)), "impulse on node 0 from 77: expected"),
        (
            lambda s: s.process([wb.Job("sum", (0,), params={"axis": np.int64(7)})]),
            "'axis': expected an axis of 1 dimensions, got 7",
        ),
    ],
)
def test_numbers_of_numpy_are_told_as_numbers(do: Callable[[wb.System], object], told: str) -> None:
    """Since NumPy 2 their repr names their type."""
    with wb.open(":memory:") as board, pytest.raises(WhiteboardError, match=told):
        do(filled(board))
