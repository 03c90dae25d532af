"""Audits: what is computed again, from which values, and how far apart floats are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
import pytest

import whiteboard as wb
from tests.rekeying import rewritten
from tests.storage.samples import database_of
from whiteboard.evaluation import kept_sources
from whiteboard.evaluation.session import Session
from whiteboard.evaluation.sources import ArraySources
from whiteboard.inspection.audit import (
    DAMAGED,
    FAILED,
    NO_COTANGENT,
    NO_OP,
    NO_PARAMS,
    NO_SOURCES,
    NO_VALUES,
    OTHER_ARITHMETIC,
    OTHER_KEY,
    OTHER_SOURCES,
    audit,
)
from whiteboard.records.distance import FARTHEST, ulps
from whiteboard.records.packages import Page, Sampled
from whiteboard.records.systems import NodeValues
from whiteboard.storage.commits import provenance

pytestmark = pytest.mark.usefixtures("builtin_ops_only")

TABLE = np.arange(5.0)
TABLE.flags.writeable = False


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are kept where an op says so, and not where a loaded machine took long."""
    monkeypatch.setattr(kept_sources, "LEAST_NS", 10**18)


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


@pytest.mark.parametrize("kept", [False, True])
def test_a_tolerance_op_may_differ_in_its_last_digits(
    board: wb.Board, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """Packages of ops whose last bits depend on the bin are wrong only when half of their digits are."""
    if kept:
        monkeypatch.setattr(kept_sources, "LEAST_NS", 0)
        monkeypatch.setattr(kept_sources, "BYTE_NS", 0)
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
        forged = replace(page, arrays={**page.arrays, "y": y})
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


# -- from sources that lie in the page


def ramp(x: Any, *, slope: float = 1.0, table: Any = TABLE, kind: str = "a") -> Any:
    """A function that costs nothing, whose sources are kept."""
    if x[0] > 100:
        raise ZeroDivisionError
    return anp.sum(x * x * slope) + table[0]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[wb.Board]:
    """A board with packages of arrays, of several parameters and dtypes, and of some without sources."""
    wb.op(keep_sources=True, replace=True)(ramp)
    x = np.random.default_rng(0).normal(size=(8, 3))
    with wb.open(tmp_path / "a.db") as board:
        board.call_many("ramp", x)
        board.call_many("ramp", x.astype(np.float32), params={"slope": 2.0})
        board.call_many("ramp", x[:2], params={"kind": "b", "table": TABLE})
        board.call_many("mul", x, x)
        board.flush()
        yield board


def test_what_keeps_its_sources_is_computed_again(kept: wb.Board) -> None:
    """Packages of arrays are computed again with their parameters, and counted apart from those without sources."""
    report = kept.audit()
    assert (report.ok, report.checked, report.unchecked) == (True, 18, {NO_SOURCES: 8})
    row = report.ops["ramp"]
    assert (row.sampled, row.checked, row.kept, row.differing) == (18, 18, 18, 0)
    assert report.ops["mul"].kept == 0


def test_a_part_of_a_page(kept: wb.Board) -> None:
    """A sample takes the sources of its rows."""
    report = kept.audit(sample=0.2, seed=1)
    assert 0 < report.ops["ramp"].kept < 18
    assert report.ok


def test_cotangents_are_computed_again(tmp_path: Path) -> None:
    """A package of the VJP of a cotangent keeps that, and its nodes' values are not asked for."""

    def squares(x: Any) -> Any:
        return x * x * anp.sum(x)

    wb.op(keep_sources=True, identity="squares", replace=True)(squares)
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("a")
        system.add_nodes([0, 1], theta=np.arange(6.0).reshape(2, 3))  # never committed
        system.process(wb.JobBatch("squares", [[0], [1]], residual=np.arange(6.0).reshape(2, 3) + 1))
        board.flush()
        report = board.audit()
        assert (report.ops["squares"].kept, report.unchecked, report.ok) == (4, {}, True)
        jacobian = board.bind("squares").jacobian(np.arange(3.0))
        assert jacobian.shape == (3, 3)
        board.flush()
        report = board.audit()
        assert (report.ops["squares"].kept, report.unchecked, report.ok) == (4 + 3, {}, True)


def _y(page: Page) -> Page:
    y = page.arrays["y"].copy()
    y[1] = np.nextafter(y[1], np.inf)
    return replace(page, arrays={**page.arrays, "y": y})


def _g0(page: Page) -> Page:
    return replace(page, arrays={**page.arrays, "g0": -page.arrays["g0"]})


def test_a_wrong_package_is_found(kept: wb.Board, tmp_path: Path) -> None:
    """Another y by one unit in the last place, or another gradient, is a difference that names its key and no nodes."""
    rewritten(tmp_path / "a.db", _y, "ramp")
    report = kept.audit()
    assert [(each.ulp, each.src_ids, each.versions) for each in report.differences] == [({"y": 1}, (), ())] * 3
    assert (report.ok, report.ops["ramp"].differing, report.ops["ramp"].max_ulp) == (False, 3, 1)
    rewritten(tmp_path / "a.db", _g0, "ramp")
    assert kept.audit().ops["ramp"].differing == 18


class Wrong(NamedTuple):
    """A change to the pages of `ramp`, or to the op, why none of it is computed again, and whether that is damage."""

    id: str
    change: Callable[[Page], Page] | None
    op: Any
    why: str
    ok: bool


def other(x: Any, *, slope: float = 1.0, table: Any = TABLE, kind: str = "a") -> Any:
    """The same under the same name, with another body."""
    return anp.sum(slope * x * x) + table[0]


def fewer(x: Any, *, table: Any = TABLE, kind: str = "a") -> Any:
    """It takes a parameter less."""
    return anp.sum(x * x) + table[0]


WRONG = [
    Wrong("sources", lambda p: replace(p, sources=tuple(x + 1 for x in p.sources or ())), ramp, OTHER_SOURCES, False),
    Wrong("a-dtype", lambda p: replace(p, sources=(p.arrays["g0"].astype(int),)), ramp, OTHER_SOURCES, False),
    Wrong("a-shape", lambda p: replace(p, sources=(p.arrays["g0"][:, :1].copy(),)), ramp, OTHER_SOURCES, False),
    Wrong("one-more", lambda p: replace(p, sources=(p.sources or ()) * 2), ramp, OTHER_SOURCES, False),
    Wrong("no-rows", lambda p: replace(p, sources=(p.arrays["g0"][:1].copy(),)), ramp, DAMAGED, False),
    Wrong("other-op", lambda p: replace(p, op="mul"), ramp, DAMAGED, False),
    Wrong("code", None, other, OTHER_KEY, True),
    Wrong("parameters", None, fewer, OTHER_KEY, True),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.id)
def test_what_is_not_computed_again(case: Wrong, kept: wb.Board, tmp_path: Path) -> None:
    """What a page keeps and does not come from is damage; what is of other code is told, and is none."""
    if case.change:
        rewritten(tmp_path / "a.db", case.change, "ramp")
    wb.op("ramp", keep_sources=True, replace=True)(case.op)
    report = kept.audit()
    assert report.unchecked == {NO_SOURCES: 8, case.why: 18}
    assert (report.ok, report.checked) == (case.ok, 0)


def test_what_was_made_on_another_kind_of_machine(kept: wb.Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages of an exact op are told by that reason, from kept sources and from nodes; portable ones are compared."""
    system = kept.system("s")
    system.add_nodes([1, 2], theta=np.ones((2, 3)))
    system.commit()
    system.process([wb.Job("exp", (1,)), wb.Job("square", (2,))])
    kept.flush()
    before = kept.audit()
    assert OTHER_ARITHMETIC not in before.unchecked
    monkeypatch.setattr("whiteboard.identity.arithmetic._kernels", lambda: b"another machine!")
    report = kept.audit()
    assert report.ok
    assert report.unchecked[OTHER_ARITHMETIC] == before.ops["ramp"].checked + 1
    assert {op: row.checked for op, row in report.ops.items() if row.checked} == {"square": 1}


def test_parameters_that_are_not_told(kept: wb.Board) -> None:
    """An array as a parameter is known by its digest: it is told where it is the op's own, and else not."""
    kept.call("ramp", np.ones(3), params={"table": np.full(5, 2.0)})
    kept.flush()
    assert kept.audit().unchecked == {NO_SOURCES: 8, NO_PARAMS: 1}


def test_an_op_that_fails(kept: wb.Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """An op that raises when it is computed again is told, and the other pages are looked at."""

    class Raising(Session):
        def run(self, *given: Any) -> Any:
            if self._dtype == np.float32:
                raise ZeroDivisionError
            return super().run(*given)

    monkeypatch.setattr("whiteboard.inspection.audit.Session", Raising)
    report = kept.audit()
    assert (report.unchecked, report.checked, report.ok) == ({NO_SOURCES: 8, FAILED: 8}, 10, True)


def test_memory_stays_that_of_a_page(tmp_path: Path) -> None:
    """An audit, and a table of a few columns, of many pages with sources take no more memory than of a few."""
    import tracemalloc

    def peak(n: int) -> int:
        path = tmp_path / f"{n}.db"
        wb.op("large", keep_sources=True, identity="large", gradient="returned", replace=True)(_large)
        with wb.open(path, memory_bytes=0) as board:
            for first in range(0, n, 4):
                board.call_many("large", np.random.default_rng(first).normal(size=(4, 30_000)))
                board.flush()
        with wb.open(path, readonly=True, memory_bytes=0) as board:
            tracemalloc.start()
            assert board.audit().checked == n
            assert len(board.table("large", columns=["y"], where="x0[0] > -99")["y"]) == n
            found = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return found

    peak(4)
    assert peak(64) < 1.5 * peak(12)


def _large(x: Any) -> Any:
    return np.sum(x), np.ones_like(x)
