"""Jobs: columns of right shape, refused by name where they are not, and grouped without a loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.errors import DtypeError, ParamError, ShapeError, WhiteboardError
from whiteboard.systems.jobs import Job, JobBatch, batches


class Refused(NamedTuple):
    """A batch that must be refused, and what the error must say."""

    fields: dict[str, Any]
    error: type[WhiteboardError]
    says: str


REFUSED = {
    "flat ids": Refused({"src_ids": [1, 2]}, ShapeError, r"src_ids: expected shape \(n, k\), got \(2,\)"),
    "float ids": Refused({"src_ids": [[1.0]]}, DtypeError, "src_ids: expected integer ids, got dtype float64"),
    "huge ids": Refused({"src_ids": np.array([[2**63]], np.uint64)}, DtypeError, "uint64"),
    "out ids": Refused({"out_ids": [1]}, ShapeError, r"out_ids: expected shape \(2,\), got \(1,\)"),
    "both": Refused({"residual": 1.0, "target": 1.0}, ParamError, "residual or target, not both"),
    "target": Refused({"target": [1.0, 2.0, 3.0]}, ShapeError, r"target: expected shape \(\) or \(2, …\), got \(3,\)"),
    "complex": Refused({"target": 1j}, DtypeError, "target: expected real numbers, got dtype complex128"),
    "object": Refused({"residual": [None, None]}, DtypeError, "residual: expected real numbers, got dtype object"),
    "scale": Refused({"scale": [[1.0], [2.0]]}, ShapeError, r"scale: expected shape \(\) or \(2,\), got \(2, 1\)"),
    "weight": Refused(
        {"weight": "length"}, ParamError, "weight: expected one of None, 'none', 'inv_length', InvLength"
    ),
    "attr": Refused({"attr": "a b"}, ParamError, "attr: expected an attribute's name, or one a slot, got 'a b'"),
    "attrs": Refused({"attr": ("p", "version")}, ParamError, r"attr: .* one a slot, got \('p', 'version'\)"),
    "no attr": Refused({"attr": None}, ParamError, "attr: expected an attribute's name, or one a slot, got None"),
    "attr of too few": Refused({"attr": ("p",)}, ShapeError, r"attr: expected 2 names, one a slot, got \('p',\)"),
    "job ids": Refused({"job_ids": ["a"]}, ShapeError, "job_ids"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_bad_columns_are_refused_by_name(case: Refused) -> None:
    """A column of wrong shape, dtype or value is an error that names op and column, expected and got."""
    with pytest.raises(case.error, match=case.says) as caught:
        JobBatch(**({"op": "mul", "src_ids": [[1, 2], [3, 4]]} | case.fields))
    assert "op 'mul'" in str(caught.value)


@pytest.mark.parametrize("floor", [-1.0, np.inf, np.nan, "1", None])
def test_a_floor_is_a_number(floor: Any) -> None:
    """The floor of a length is a finite number from 0."""
    with pytest.raises(ParamError, match="InvLength: floor: expected a finite number >= 0"):
        wb.InvLength(floor)


def test_a_batch_owns_its_columns() -> None:
    """A later change of the caller's arrays does not reach the batch."""
    ids, target = np.array([[1, 2]]), np.array([3.0])
    batch = JobBatch("mul", ids, target=target)
    ids[:], target[:] = 9, 9
    assert (np.asarray(batch.src_ids).tolist(), np.asarray(batch.target).tolist()) == ([[1, 2]], [3.0])


def test_grouping_keeps_every_job_and_its_place() -> None:
    """Jobs of different ops, fan-ins, parameters and columns are grouped apart, in order, with their positions."""
    jobs = [
        Job("mul", (1, 2), target=1.0),
        Job("add", (1, 2)),
        Job("mul", (3, 4), target=2.0, scale=0.5, job_id="x"),
        Job("mul", (1, 2), target=[1.0, 2.0]),
        Job("mul", (1, 2), residual=1.0),
        Job("sum_k", (1, 2, 3)),
        Job("sum_k", (1, 2)),
        Job("clip", (1,), params={"low": 0.0}),
        Job("clip", (2,), params={"low": 1.0}),
        Job("clip", (3,), params={"low": 0.0}),
    ]
    groups = batches(jobs)
    assert [at.tolist() for at, _ in groups] == [[0, 2], [1], [3], [4], [5], [6], [7, 9], [8]]
    first = groups[0][1]
    assert np.asarray(first.src_ids).tolist() == [[1, 2], [3, 4]]
    assert np.asarray(first.target).tolist() == [1.0, 2.0]
    assert np.asarray(first.scale).tolist() == [1.0, 0.5]
    assert [first.name(0), first.name(1)] == ["op 'mul', job 0", "op 'mul', job 'x'"]


def test_parameters_without_canonical_bytes_are_not_grouped() -> None:
    """Two jobs whose parameters cannot be compared by bytes stay apart."""
    assert len(batches([Job("mul", (1, 2), params={"f": len}), Job("mul", (1, 2), params={"f": len})])) == 2


@pytest.mark.parametrize(
    ("job", "error", "says"),
    [
        pytest.param(3, ParamError, "job 0: expected a Job, got int", id="not a job"),
        pytest.param(Job("mul", (1,), residual=1.0, target=1.0, job_id="j"), ParamError, "job 'j'", id="both"),
        pytest.param(Job("mul", (1,), target="a", job_id="j"), DtypeError, "job 'j': target", id="text"),
        pytest.param(Job("mul", np.array([1.5]).tolist()), DtypeError, "integer ids", id="float id"),
    ],
)
def test_bad_jobs_are_refused_by_name(job: Any, error: type[WhiteboardError], says: str) -> None:
    """A job that is none, or has columns that are none, is named in the error."""
    with pytest.raises(error, match=says):
        batches([job])


def test_take_keeps_names_and_columns() -> None:
    """A part of a batch has the rows asked for, in that order, under their old names."""
    batch = JobBatch("mul", [[1, 2], [3, 4], [5, 6]], [7, 8, 9], target=[1.0, 2.0, 3.0], scale=[1, 2, 3])
    part = batch.take(np.array([2, 0]))
    assert np.asarray(part.src_ids).tolist() == [[5, 6], [1, 2]]
    assert np.asarray(part.out_ids).tolist() == [9, 7]
    assert (np.asarray(part.target).tolist(), np.asarray(part.scale).tolist()) == ([3.0, 1.0], [3.0, 1.0])
    assert part.name(0) == "op 'mul', job 2"


class One(NamedTuple):
    """A parameter."""

    x: int


class Other(NamedTuple):
    """One of the same value and another class."""

    x: int


def test_parameters_that_a_function_can_tell_apart_are_two_jobs() -> None:
    """Of one batch, and with a package each; equal ones are computed once."""

    @wb.op(name="kind", replace=True, vjp=lambda g, _y, _x, p: g)
    def kind(x: Any, p: Any = None) -> Any:
        return x + float(type(p) is One)

    given: list[Any] = [One(1), Other(1), (1,), [1], {"a": 1, "b": 2}, {"b": 2, "a": 1}, True, 1, 1.0, np.int8(1)]
    with wb.open(":memory:") as board:
        system = board.system("s")
        system.add_nodes([1], theta=np.zeros((1, 2)))
        done = system.process([wb.Job("kind", (1,), params={"p": value}) for value in [*given, *given]])
        assert [result.y[0] for result in done] == [1.0, *[0.0] * 9] * 2
        assert board.stats()["puts"] == len(given)
