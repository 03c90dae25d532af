"""Audits: what is computed again, from which values, and how far apart floats are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.storage.samples import database_of
from whiteboard.evaluation.sources import ArraySources
from whiteboard.inspection.audit import DAMAGED, NO_COTANGENT, NO_OP, NO_SOURCES, NO_VALUES, audit
from whiteboard.records.distance import FARTHEST, ulps
from whiteboard.records.packages import Page, Sampled
from whiteboard.records.systems import NodeValues
from whiteboard.storage.commits import provenance


@pytest.fixture
def board(tmp_path: Path) -> Iterator[wb.Board]:
    """A board with a system of ten nodes, committed."""
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("a")
        system.add_nodes(range(10), theta=np.random.default_rng(0).normal(size=(10, 3, 3)), p=np.eye(10, 3))
        system.commit()
        yield board


def test_every_version_is_found(board: wb.Board) -> None:
    """Packages of any version, attribute and fork are computed again from the values they had, to the same bits."""
    system = board.system("a")
    pairs = np.random.default_rng(1).integers(0, 10, (20, 2))
    for _ in range(3):
        system.process(wb.JobBatch("mul", pairs, residual=np.ones((20, 3, 3))))
        system.process(wb.JobBatch("distance", pairs, attr="p"))
        system.commit(wb.rules.Relax(0.1, 0.1, 0.1))
    fork = system.fork("b", at=1)
    fork.process(wb.JobBatch("mul", pairs, residual=np.full((20, 3, 3), 2.0)))
    fork.commit(wb.rules.Relax(0.2, 0.1, 0.1))
    fork.process(wb.JobBatch("mul", pairs))
    board.flush()
    report = board.audit()
    assert report.ok
    assert all((row.checked, row.differing) == (row.sampled, 0) for row in report.ops.values())
    assert report.checked == board.stats()["packages"]
    assert set(report.ops) == {"mul", "distance"}


def test_sources_of_several_attributes_and_stacks_are_found(board: wb.Board) -> None:
    """Each slot of a job may have read another attribute, or all slots together one stack."""
    system = board.system("c")
    system.add_nodes(range(3), theta=np.random.default_rng(2).normal(size=(3, 4)), attrs={"ctrl": np.ones((3, 4))})
    system.commit()
    for _ in range(2):
        system.process([wb.Job("mul", (0, 1), attr="ctrl"), wb.Job("mul", (0, 1), attr=("ctrl", "theta"))])
        system.process([wb.Job("mul", (1, 2), attr=("theta", "ctrl"), residual=np.arange(4.0))])
        system.process([wb.Job("sum", (0, 1, 2), stack=True, residual=1.0)])
        system.commit(wb.rules.Relax(0.1, 0.1, 0.1))
    board.flush()
    report = board.audit()
    assert report.ok
    assert report.checked == board.stats()["packages"] == sum(row.sampled for row in report.ops.values())


def test_what_cannot_be_computed_again_is_counted(board: wb.Board) -> None:
    """Packages of arrays that are not kept, of uncommitted values and of cotangents are counted by the reason."""
    board.call_many("mul", np.arange(10.0).reshape(5, 2), np.ones((5, 2)))
    system = board.system("a")
    system.process(wb.JobBatch("sum", [[0], [1]], params={"axis": 0}, residual=np.arange(6.0).reshape(2, 3)))
    system.add_nodes([20, 21], theta=np.ones((2, 2)))
    system.process(wb.JobBatch("exp", [[20]]))
    board.flush()
    report = board.audit()
    assert report.ok
    assert report.unchecked == {NO_SOURCES: 5, NO_COTANGENT: 2, NO_VALUES: 1}
    assert (report.ops["sum"].sampled, report.ops["sum"].checked) == (4, 2)


def test_a_page_that_cannot_be_read_is_not_right(board: wb.Board) -> None:
    """A damaged page is counted and makes the audit fail; an unknown op does not."""
    page = Page(
        "no such op", np.zeros((2, 16), np.uint8), {}, 0, np.zeros((2, 1), np.int64), np.zeros((2, 1), np.int64)
    )
    report = audit([Sampled(1, "no such op", 2, page)], [], wb.ops.get)
    assert (report.ok, report.unchecked) == (True, {NO_OP: 2})
    report = audit([Sampled(1, "mul", 3, None)], [], wb.ops.get)
    assert (report.ok, report.unchecked) == (False, {DAMAGED: 3})


def test_an_array_that_is_missing_is_as_far_as_can_be(board: wb.Board) -> None:
    """A package with an array of another shape, or without one, differs by the most there is."""
    system = board.system("a")
    done = system.process(wb.JobBatch("exp", [[0], [1]]))
    values = NodeValues("a", "theta")
    thetas = [np.asarray(system.nodes[node].theta) for node in range(2)]
    for node, theta in enumerate(thetas):
        values.keep(node, 0, theta, [0])
    sources = ArraySources("exp", [np.stack(thetas)])
    keys = board.pipeline.evaluate(wb.ops.get("exp"), None, sources).keys
    columns: dict[str, Any] = {"src_ids": np.array([[0], [1]]), "versions": np.zeros((2, 1), np.int64)}
    for arrays in ({"y": done.y}, {"y": done.y, "g0": done.grads[0][:, 0]}):
        report = audit([Sampled(1, "exp", 2, Page("exp", keys, arrays, 0, **columns))], [values], wb.ops.get)
        assert [each.ulp for each in report.differences] == [{"g0": FARTHEST}] * 2


def test_a_tolerance_op_may_differ_in_its_last_digits(board: wb.Board) -> None:
    """Packages of ops whose last bits depend on the bin are wrong only when half of their digits are."""
    board.system("a").process(wb.JobBatch("matmul_gemm", [[0, 1], [2, 3]]))
    board.flush()
    assert board.audit().ok
    database = database_of(board)
    (part,) = provenance.sampled(database, 1.0, 0)
    values = provenance.node_values(database, provenance.wanted(database, [part]))
    page = provenance.read(database, part)
    assert page is not None
    for factor, wrong in ((1 + 1e-12, 0), (1 + 1e-6, 1)):
        y = page.arrays["y"] * np.array([1, factor])[:, None, None]
        forged = Page(page.op, page.keys, {**page.arrays, "y": y}, 1, page.src_ids, page.versions)
        report = audit([Sampled(part.page_id, part.op, 2, forged)], values, wb.ops.get)
        assert (report.checked, len(report.differences)) == (2, wrong)
        assert report.ops["matmul_gemm"].max_ulp > 1000


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_units_in_the_last_place(dtype: type[np.floating[Any]]) -> None:
    """Distances count the floats between, across zero too; two NaNs are equal."""
    one = np.array([1, -1, 0.0, np.inf, np.nan, np.finfo(dtype).max], dtype)
    other = np.array([np.nextafter(dtype(1), dtype(2)), -1, -0.0, np.inf, np.nan, np.inf], dtype)
    assert ulps(one, other).tolist() == [1, 0, 1, 0, 0, 1]
    small = np.finfo(dtype).smallest_subnormal
    assert ulps(np.array([small], dtype), np.array([-small], dtype)).tolist() == [3]
    whole = ulps(np.array([-np.inf], dtype), np.array([np.inf], dtype))
    assert whole[0] > 2 ** (8 * np.dtype(dtype).itemsize - 1)
