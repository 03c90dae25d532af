"""One job at a time answers as columns do: the same bits, hits, counts, errors and checks."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import whiteboard as wb
from whiteboard.evaluation.agreement import Agreement
from whiteboard.evaluation.costs import Costs
from whiteboard.evaluation.single import asked
from whiteboard.identity import keys
from whiteboard.storage import open_store
from whiteboard.storage.cache.page_summaries import summaries
from whiteboard.types import FLOATS

pytestmark = pytest.mark.usefixtures("builtin_ops_only")

OPS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("mul", 2, {}),
    ("tanh", 1, {}),
    ("sum", 1, {"axis": 0}),
    ("sum_k", 3, {}),
    ("distance", 2, {}),
    ("vecdot", 2, {}),
    ("linear_gemm", 0, {}),
)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[str, list[Any], dict[str, Any]]:
    """Return an op, its sources in any layout that callers have them in, and parameters."""
    name, arity, params = draw(st.sampled_from(OPS))
    dtype: Any = draw(st.sampled_from(FLOATS))
    n = draw(st.integers(1, 5))
    shapes: list[tuple[int, ...]] = [(n,)] * arity or [(n,), (2, n), (2,)]
    layout = draw(st.sampled_from(["plain", "strided", "list", "read-only", "swapped"]))
    values = st.floats(-4, 4, width=32)
    sources: list[Any] = []
    for shape in shapes:
        array = draw(hnp.arrays(dtype, shape, elements=values))
        if layout == "strided":
            array = np.repeat(array, 2, axis=-1)[..., ::2]
        if layout == "list" and dtype == np.float64:
            array = array.tolist()
        if layout == "read-only":
            array.flags.writeable = False
        if layout == "swapped":
            array = array.astype(array.dtype.newbyteorder())
        sources.append(array)
    return name, sources, params


def answered(board: wb.Board, name: str, sources: list[Any], params: dict[str, Any], *, columns: bool) -> Any:
    """Return bits and hit of one job, asked by itself or as a column of one, or what it raised."""
    try:
        if columns:
            many = board.call_many(name, *[np.asarray(each)[None] for each in sources], params=params)
            return many.y[0].tobytes(), [grad[0].tobytes() for grad in many.grads], int(many.hit[0])
        one = board.call(name, *sources, params=params)
        code = ("miss", "memory", "disk").index(one.hit)
        return one.y.tobytes(), [grad.tobytes() for grad in one.grads], code
    except wb.WhiteboardError as error:
        return type(error)


@given(st.lists(st.tuples(jobs(), st.integers(1, 3)), min_size=1, max_size=6), st.sampled_from([2**20, 3000, 0]))
def test_one_by_one_is_as_columns(asked: list[Any], memory_bytes: int) -> None:
    """Two boards that are asked the same, one in each way: equal answers and equal counts."""
    with (
        wb.open(":memory:", memory_bytes=memory_bytes) as single,
        wb.open(":memory:", memory_bytes=memory_bytes) as many,
    ):
        for (name, sources, params), times in asked:
            for _ in range(times):
                one = answered(single, name, sources, params, columns=False)
                other = answered(many, name, sources, params, columns=True)
                if isinstance(one, tuple) and memory_bytes < 2**20:  # a clock says when what waits is written
                    one, other = ((*each[:2], min(each[2], 1)) for each in (one, other))
                assert one == other
        a, b = single.stats(), many.stats()
        counts = ("misses", "puts", "packages", "checked", "wrong")
        assert {name: a[name] for name in counts} == {name: b[name] for name in counts}
        assert a["hits_memory"] + a["hits_disk"] == b["hits_memory"] + b["hits_disk"]


@given(st.data())
def test_keys_are_those_of_columns(data: st.DataObject) -> None:
    """A key made of the sources themselves is the one that is made of their tokens, small and large."""
    dtype: Any = data.draw(st.sampled_from(FLOATS))
    shapes = st.sampled_from([(), (0,), (3,), (2, 5), (127,), (128,), (2, 256)])
    sources = data.draw(st.lists(hnp.arrays(dtype, shapes), min_size=1, max_size=3))
    sources = [np.asarray(source, order="C") for source in sources]
    tokens = np.stack([keys.tokens(source[None]) for source in sources], axis=1)
    identity = keys.Identity("mul", 1, b"", "exact", b"", keys.NO_PARAMS, "ones")
    recipe = keys.Recipe.of(identity, sources[0].dtype, [source.shape for source in sources])
    prefix = keys.key_prefix(identity, len(sources), keys.scheme_of(source.nbytes for source in sources))
    assert recipe.tokens(sources) == tokens.tobytes()
    assert [recipe.key(tokens.tobytes())] == keys.keys(prefix, tokens)


VALUES = (0.0, -0.0, 1.0, 1, True, "1", float("nan"), np.float64(1), None, 2**70, (1, 1.0), (1.0, 1))
PARAMS: list[dict[str, Any]] = [{}, *({"by": value} for value in VALUES), {"other": 1, "by": 1}]


def test_parameters_that_differ_have_keys_that_do() -> None:
    """What is kept of jobs with plain parameters is of these alone: asked twice, in any order, each has its own key."""

    @wb.op("with_these", gradient="none", identity="with these", replace=True)
    def _with_these(x: Any, *, by: Any = 2.0, other: Any = ()) -> Any:
        return x

    x = np.arange(3.0)
    for some in (PARAMS, PARAMS[::-1]):
        for params in some:
            spec = wb.ops.get("with_these")
            job = asked(Agreement(), spec, params, [x])
            identity = keys.Identity.of(spec, spec.bind(params), "none")
            prefix = keys.key_prefix(identity, 1, keys.SMALL)
            assert job is not None
            assert [job[2]] == keys.keys(prefix, keys.tokens(x[None])[None])


def test_hits_in_memory_do_not_go_through_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fast is in use: of `call` and of bound ops, built in and a user's."""

    def square(x: Any, *, by: float = 1.0) -> Any:
        return by * anp.sum(x**2)

    wb.op(name="squares", identity="single")(square)
    x = np.arange(3.0)
    with wb.open(":memory:") as board:
        f = board.bind("squares", by=2.0)
        first = f.value_and_grad(x), board.call("tanh", x), board.call("squares", x, params={"by": 2.0})
        monkeypatch.setattr(type(board.pipeline), "evaluate", None)
        value, grad = f.value_and_grad(x)
        assert (value, grad.tolist()) == (first[0][0], first[0][1].tolist())
        grad += 1.0  # the caller's own
        assert board.call("tanh", x).hit == "memory"
        again = board.call("squares", x, params={"by": 2.0})
        assert (again.hit, float(again.y), again.grads[0].tolist()) == ("memory", value, first[0][1].tolist())
        with pytest.raises(ValueError, match="read-only"):
            again.grads[0][0] = 1.0
        assert board.stats()["hits_memory"] == 4


def test_cheap_misses_do_not_go_through_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once an op's cost is known: packages, provenance, counts and errors are those of columns."""

    def fussy(x: Any) -> Any:
        if x[0] == 13.0:
            raise ZeroDivisionError("thirteen")
        return anp.sum(x**2)

    wb.op(name="fussy", identity="single")(fussy)
    X = np.arange(20.0)[:, None] + np.arange(3.0)
    kept = []
    for single in (False, True):
        path = tmp_path / f"{single}.db"
        with wb.open(path) as board, monkeypatch.context() as patch:
            for op in ("tanh", "fussy"):
                board.call(op, X[0])
            patch.setattr(Costs, "of", lambda *_: 1000.0 if single else None)  # noqa: B023
            if single:
                patch.setattr(type(board.pipeline), "evaluate", None)
            for x in X[1:]:
                board.call("tanh", x)
                with pytest.raises(ZeroDivisionError, match="thirteen") if x[0] == 13.0 else nullcontext():
                    board.call("fussy", x)
            counts = [board.stats()[name] for name in ("misses", "puts", "packages")]
        with open_store(path, readonly=True) as stores:
            pages = [page for op in ("tanh", "fussy") for page in summaries(stores.database, op)]
        rows = {
            key.tobytes(): (page.op, page.lineage, page.arrays, tokens.tobytes())
            for page in pages
            if page.tokens is not None
            for key, tokens in zip(page.keys, page.tokens, strict=True)
        }
        kept.append((counts, rows))
    assert len(kept[0][1]) == 39
    assert kept[0] == kept[1]


def test_hits_are_checked_as_those_of_columns(tmp_path: Path) -> None:
    """The first hits of a user's op are computed again here too: what is another then is not believed."""
    state = [1.0]

    def drifting(x: Any) -> Any:
        total = x.sum()
        for _ in range(200):
            total = np.sqrt(total * total)
        return total * state[0]

    wb.op(gradient="none", identity="drifting")(drifting)
    with wb.open(tmp_path / "a.db") as board:
        x = np.ones(3)
        board.call("drifting", x)
        state[0] = 2.0
        with pytest.warns(wb.WrongHitWarning):
            answers = [float(board.call("drifting", x).y) for _ in range(2000)]
        assert (board.stats()["wrong"], answers[-1]) == (1, 6.0)


def test_jobs_of_many_sources() -> None:
    """Every source has its gradient, of a hit too."""
    sources = [np.full(2, float(number)) for number in range(1100)]
    with wb.open(":memory:") as board:
        first, again = board.call("sum_k", *sources), board.call("sum_k", *sources)
    assert (first.hit, again.hit, len(again.grads)) == ("miss", "memory", 1100)
    assert [grad.tobytes() for grad in again.grads] == [grad.tobytes() for grad in first.grads]


def test_a_result_keeps_no_more_alive_than_itself() -> None:
    """One row of a page of many is a copy."""
    with wb.open(":memory:") as board:
        x = np.random.default_rng(0).normal(size=(50, 4))
        board.call_many("tanh", x)
        result = board.call("tanh", x[7])
        assert result.hit == "memory"
        assert all(array.base is None or array.base.nbytes == array.nbytes for array in (result.y, *result.grads))
