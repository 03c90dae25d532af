"""`Pipeline.jacobian`: from packages that hold Jacobians, from gradients, and from one cotangent a component of y."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

import whiteboard as wb
from whiteboard import ops
from whiteboard.errors import OpCheckError, ParamError, WrongHitWarning
from whiteboard.evaluation import jacobians
from whiteboard.evaluation.pipeline import Evaluated
from whiteboard.evaluation.sources import ArraySources
from whiteboard.records.packages import Page

pytestmark = pytest.mark.usefixtures("builtin_ops_only")

CALLS: list[float] = []


def residuals(x: Any) -> Any:
    """Return (Σx, x₀x₁, sin x₀) and its Jacobian."""
    CALLS.append(float(x[0]))
    y = np.array([np.sum(x), x[0] * x[1], np.sin(x[0])], x.dtype)
    rows = np.zeros((3, *x.shape), x.dtype)
    rows[0], rows[1, :2], rows[2, 0] = 1, x[1::-1], np.cos(x[0])
    return y, rows


def traced(x: Any) -> Any:
    """Return the same, for autograd."""
    return anp.stack([anp.sum(x), x[0] * x[1], anp.sin(x[0])])


@pytest.fixture
def board() -> Iterator[wb.Board]:
    """Return a board in memory, with an op of Jacobians and one by autograd."""
    CALLS.clear()
    ops.op("residuals", gradient="jacobian", ignore=("CALLS",))(residuals)
    ops.op("traced")(traced)
    with wb.open(":memory:") as opened:
        yield opened


def jacobian(board: wb.Board, name: str, *xs: Any, params: Any = None) -> Evaluated:
    """Return what the pipeline says of stacked sources."""
    return board.pipeline.jacobian(ops.get(name), params, ArraySources(name, xs))


XS = np.random.default_rng(1).uniform(0.5, 1.5, (5, 4))


def test_every_kind_of_op_gives_the_same(board: wb.Board) -> None:
    """From its packages and from those of cotangents: (n, *y, *x), read-only, equal to differences of y."""
    given, made = jacobian(board, "residuals", XS), jacobian(board, "traced", XS)
    assert [g.shape for g in (*given.grads, *made.grads)] == [(5, 3, 4)] * 2
    np.testing.assert_allclose(given.grads[0], made.grads[0], rtol=1e-14)
    np.testing.assert_array_equal(given.y, made.y)
    assert not given.grads[0].flags.writeable
    assert not made.grads[0].flags.writeable
    assert len(CALLS) == 5


@pytest.mark.parametrize(
    ("name", "shapes", "params"),
    [
        ("sum", ((2, 3),), {}),
        ("mul", ((2, 3), (2, 3)), {}),
        ("mul", ((2, 3), (3,)), {}),
        ("softmax", ((4,),), {}),
        ("matvec", ((2, 3), (3,)), {}),
        ("reshape", ((6,),), {"shape": (1, 6)}),
        ("sum", ((3,),), {"keepdims": True}),
        ("reshape", ((0,),), {"shape": (0, 2)}),
    ],
)
def test_built_in_ops(board: wb.Board, name: str, shapes: Any, params: Any) -> None:
    """Diagonal, scalar, of one element, of none, and dense: ∂y/∂x as differences have it, alone and in a bin."""
    rng = np.random.default_rng(0)
    xs = [rng.uniform(0.5, 1.5, (3, *shape)) for shape in shapes]
    done = jacobian(board, name, *xs, params=params)
    for slot, (x, whole) in enumerate(zip(xs, done.grads, strict=True)):
        assert whole.shape == (3, *done.y.shape[1:], *x.shape[1:])
        for element in np.ndindex(x.shape[1:]):
            moved = [other.copy() for other in xs]
            moved[slot][(slice(None), *element)] += 1e-6
            difference = (board.call_many(name, *moved, params=params).y - done.y) / 1e-6
            np.testing.assert_allclose(whole[(..., *element)], difference, atol=1e-5)
        with wb.open(":memory:") as another:
            alone = jacobian(another, name, *(each[1:2] for each in xs), params=params)
        assert alone.grads[slot][0].tobytes() == whole[1].tobytes()


def test_hits_are_told_and_counted(board: wb.Board, tmp_path: Path) -> None:
    """A job is a miss where any of its packages was, and one job in `stats`."""
    assert jacobian(board, "traced", XS[:2]).hit.tolist() == [0, 0]
    assert jacobian(board, "traced", XS[:3]).hit.tolist() == [1, 1, 0]
    assert (board.stats()["misses"], board.stats()["hits_memory"]) == (3, 2)
    for name in ("traced", "residuals"):
        with wb.open(tmp_path / "cache.db") as kept:
            first = jacobian(kept, name, XS)
        with wb.open(tmp_path / "cache.db") as kept:
            again = jacobian(kept, name, XS)
            assert (again.hit.tolist(), kept.stats()["misses"]) == ([2] * 5, 0)
        assert first.grads[0].tobytes() == again.grads[0].tobytes()


def test_gradients_are_contracted(board: wb.Board) -> None:
    """`grads` of an op of Jacobians are ∂(Σy)/∂x from the one package, whatever is asked of it first."""
    done = board.call_many("residuals", XS)
    np.testing.assert_allclose(done.grads[0], board.call_many("traced", XS).grads[0], rtol=1e-13)
    assert board.bind("residuals").jacobian(XS[0]).shape == (3, 4)
    spec, sources = ops.get("residuals"), ArraySources("residuals", [XS])
    pulled = board.pipeline.evaluate(spec, None, sources, np.ones((5, 3)))
    assert pulled.grads[0].tobytes() == done.grads[0].tobytes()
    assert pulled.hit.tolist() == [1] * 5
    assert len(CALLS) == 5


def test_an_op_that_is_not_cached_runs_once(board: wb.Board) -> None:
    """Residuals are contracted with the Jacobians that are there, also where no store holds them."""
    ops.op("hidden", gradient="jacobian")(lambda x: residuals(np.array(x + 0 * id(x))))
    system = board.system("s")
    system.add_nodes([0, 1], theta=XS[:2])
    system.commit()
    with pytest.warns(wb.UncachedWarning):
        system.process(wb.JobBatch("hidden", [(0,), (1,)], target=np.zeros((2, 3))))
    assert len(CALLS) == 2
    assert system.waiting == 2


@pytest.mark.parametrize("seconds", [0.0, 0.12])
def test_components_share_a_run_however_long_it_takes(board: wb.Board, seconds: float) -> None:
    """A Jacobian of six components takes two runs: one for the gradients of ones, and one for all cotangents."""
    runs = []

    def slow(x: Any) -> Any:
        runs.append(1)
        time.sleep(seconds)

        def pull(cotangent: Any) -> Any:
            time.sleep(seconds / 3)
            return (2 * x * cotangent,)

        return x * x, pull

    ops.op(gradient="pullback", identity=f"slow {seconds}")(slow)
    x = np.arange(6.0)
    assert board.bind(slow).jacobian(x).tolist() == np.diag(2 * x).tolist()
    assert len(runs) == 2


def test_pairs_come_in_parts(board: wb.Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few components at a time, or all: the same bits."""
    whole = jacobian(board, "traced", XS)
    for most in (1, 4, 7):
        monkeypatch.setattr(jacobians, "MOST", most)
        with wb.open(":memory:") as another:
            assert jacobian(another, "traced", XS).grads[0].tobytes() == whole.grads[0].tobytes()


def test_what_a_page_of_jacobians_says(tmp_path: Path) -> None:
    """One package a job: y and its Jacobians; its lineage names the kind, which is part of the key."""
    ops.op("residuals", gradient="jacobian", identity="residuals 1")(residuals)
    with wb.open(tmp_path / "cache.db") as board:
        board.call_many("residuals", XS)
        board.flush()
        (page,) = board._store.summaries("residuals")
        assert page.arrays == {"y": ("<f8", (3,)), "g0": ("<f8", (3, 4))}
        assert (len(page.keys), page.lineage["gradient"]) == (5, "jacobian")
        assert board.verify().ok
    ops.op("residuals", gradient="returned", identity="residuals 1", replace=True)(lambda x: (x.sum(), np.ones_like(x)))
    with wb.open(tmp_path / "cache.db") as board:
        assert board.call("residuals", XS[0]).hit == "miss"
        assert board.call("residuals", XS[0]).y == XS[0].sum()


def test_a_page_of_other_shapes_is_a_miss(board: wb.Board) -> None:
    """A page whose Jacobians do not fit its y, or that has none, is no answer, whatever its keys say."""
    done = jacobian(board, "residuals", XS)
    for arrays in (
        {"y": done.y},
        {"y": done.y, "g0": np.ones((5, 4))},
        {"y": done.y, "g0": np.ones((5, 2, 4))},
        {"y": done.y, "g0": done.grads[0], "g1": done.grads[0]},
    ):
        with wb.open(":memory:", memory_bytes=0) as another:
            another.pipeline._store.put(Page("residuals", done.keys, arrays))
            another.flush()
            assert jacobian(another, "residuals", XS).hit.tolist() == [0] * 5
            assert another.stats()["corrupt"] == 1


def test_jacobians_are_not_adopted(board: wb.Board) -> None:
    """Gradients that came from elsewhere are no Jacobians."""
    sources = ArraySources("residuals", [XS])
    with pytest.raises(ParamError, match=r"op 'residuals': .*hold Jacobians, and not gradients"):
        board.pipeline.adopt(ops.get("residuals"), None, sources, np.ones((5, 3)), [np.ones((5, 4))])


def test_a_broken_promise_of_a_bin_is_found(board: wb.Board) -> None:
    """Jacobians of n jobs at once that depend on the bin are an error that names the row."""

    @ops.op(gradient="jacobian", batch="lead_axis")
    def mixed(x: Any) -> Any:
        return x * 2, 2 * np.eye(4)[None] + 0 * x[:, :, None] + x.sum() * 1e-9

    with pytest.raises(OpCheckError, match=r"op 'mixed': .* the gradient of source 0 of row 0 differs"):
        board.call_many("mixed", XS)


def test_wrong_packages_are_found_out(board: wb.Board, tmp_path: Path) -> None:
    """A hit that is computed again and has another Jacobian, or no longer the y, warns; so does one of y alone."""
    factor = [1.0]

    def scaled(x: Any) -> Any:
        end = np.sum(x) + 0 * np.linalg.norm(np.sin(np.linspace(0, 1, 400_000)))  # a few milliseconds
        return end * x[:2] * 0 + x[:2], factor[0] * np.eye(2)

    ops.op("scaled", gradient="jacobian", identity="scaled 1")(scaled)
    ops.op("alone", gradient="none", identity="alone 1")(lambda x: factor[0] * scaled(x)[0])
    x = np.array([1.0, 2.0])
    for name in ("scaled", "alone"):
        with wb.open(tmp_path / "cache.db") as kept:
            kept.call(name, x)
        factor[0] = 2.0
        with wb.open(tmp_path / "cache.db") as kept:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for _ in range(400):
                    kept.call(name, x)
            assert [each.category for each in caught] == [WrongHitWarning]
            assert kept.stats()["wrong"] == 1
        factor[0] = 1.0


def test_explain_tells_the_kinds_apart(board: wb.Board) -> None:
    """Hits of Jacobians and of y alone are explained, and a residual needs no other package of either."""
    ops.op("alone", gradient="none")(lambda x: 2 * x)
    system = board.system("s")
    system.add_nodes([0, 1], theta=XS[:2])
    system.commit()
    for name, more in (("residuals", {"target": [0.0, 1.0, 2.0]}), ("alone", {})):
        job = wb.Job(name, (0,), **more)  # type: ignore[arg-type]
        assert board.explain(job, system).reason == f"a miss: the store has no package of op {name!r}"
        system.process([job])
        assert board.explain(job, system).hit
        found = board.explain(wb.Job(name, (1,)), system)
        assert [difference.what for difference in found.differences] == ["source"]
    report = board.audit()
    assert (report.checked, report.ok) == (2, True)
