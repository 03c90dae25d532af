"""The pipeline: nothing is left of a bin that failed, buffers never leave, and threads do not meet."""

from __future__ import annotations

import gc
import sys
import threading
import warnings
import weakref
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard import ops
from whiteboard.errors import DtypeError, ShapeError
from whiteboard.evaluation.buffers import BufferPool
from whiteboard.evaluation.pipeline import Pipeline
from whiteboard.evaluation.sources import ArraySources
from whiteboard.ops.spec import OpSpec
from whiteboard.records.packages import Page
from whiteboard.storage import open_store

F8 = np.dtype(np.float64)


pytestmark = pytest.mark.usefixtures("builtin_ops_only")


def identity(pull: Any) -> OpSpec:
    """Return an op y = x with this VJP, under a fingerprint of its own."""
    return OpSpec(
        "same", 1, "general", lambda xs, out: (xs[0], xs), pull, lambda op, shapes, params: shapes[0], fingerprint=b"x"
    )


class Kept:
    """Something that a forward saves, which can be seen to go."""


def test_nothing_is_kept_after_an_exception() -> None:
    """What the forward saved is gone, the buffers are back, no page was put, and the next evaluation is right."""
    saved: list[weakref.ref[Kept]] = []

    def forward(xs: Any, out: Any) -> Any:
        kept = Kept()
        saved.append(weakref.ref(kept))
        return xs[0], kept

    def vjp(state: Any, cotangent: Any, need: Any) -> Any:
        raise ZeroDivisionError

    stores = open_store(":memory:", memory_bytes=2**20)
    pool = BufferPool()
    pipeline = Pipeline(stores.packages, pool, max_bin_jobs=2)
    spec = OpSpec("fails", 1, "general", forward, vjp, lambda op, shapes, params: shapes[0], fingerprint=b"f")
    x = np.arange(12.0).reshape(6, 2)[::-1]  # not contiguous: it is gathered into buffers of the pool
    with pytest.raises(ZeroDivisionError):
        pipeline.evaluate(spec, None, ArraySources("fails", [x]))
    gc.collect()
    assert [ref() for ref in saved] == [None]
    assert pool.idle_bytes == 2 * x[0].nbytes
    assert stores.packages.stats()["puts"] == 0
    done = pipeline.evaluate(identity(lambda state, c, need: (c,)), None, ArraySources("same", [x]))
    assert done.y.tolist() == x.tolist()
    stores.close()


@pytest.mark.parametrize("contiguous", [False, True])
def test_a_result_that_is_its_source_is_still_owned(contiguous: bool) -> None:
    """An op that returns its sources as y and gradients: no result aliases a buffer, a source or another result."""
    stores = open_store(":memory:", memory_bytes=2**20)
    pipeline = Pipeline(stores.packages, BufferPool(poison=True), max_bin_jobs=4)
    x = np.random.default_rng(0).normal(size=(10, 3))
    x = x if contiguous else x[::-1]
    before = x.copy()
    done = pipeline.evaluate(identity(lambda state, c, need: state), None, ArraySources("same", [x]))
    x[...] = 0
    for column in (done.y, *done.grads):
        assert column.tobytes() == before.tobytes()
        assert not column.flags.writeable
    assert not np.shares_memory(done.y, done.grads[0])
    stores.close()


def test_a_result_keeps_no_more_alive_than_itself_and_cannot_be_made_writable() -> None:
    """Columns are as large as what they are views of, whether they are a page or were gathered from several."""
    x = np.random.default_rng(0).normal(size=(100, 8))
    with wb.open(":memory:", bin_jobs=30) as board:
        for rows in (slice(0, 30), slice(0, 100), slice(10, 20), slice(0, 30)):
            result = board.call_many("tanh", x[rows])
            for column in (result.y, *result.grads):
                base = column if column.base is None else column.base
                assert isinstance(base, np.ndarray)
                assert base.nbytes == column.nbytes
                if column.base is not None:
                    with pytest.raises(ValueError, match="WRITEABLE"):
                        column.flags.writeable = True


def test_threads_get_their_own_results() -> None:
    """Different ops and values from many threads at once: each answer is the right one."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(60, 5)) for _ in range(6)]
    wrong: list[str] = []
    with wb.open(":memory:", bin_jobs=7, memory_bytes=20_000) as board:

        def work(number: int) -> None:
            x = values[number]
            for name, function in (("tanh", np.tanh), ("exp", np.exp), ("square", np.square)) * 5:
                if not np.allclose(board.call_many(name, x).y, function(x), rtol=1e-12):
                    wrong.append(name)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_an_op_that_cannot_be_seen_through_is_computed_each_time_with_one_warning() -> None:
    """A mutable global in its code: results are right, nothing is put, and the warning names it once."""
    state = [2.0]

    @ops.op(name="opaque_scale", kind="elementwise", vjp=lambda c, y, x: c * 3.0)
    def scale(x: Any) -> Any:
        return x * state[0]

    with wb.open(":memory:") as board:
        with pytest.warns(wb.UncachedWarning, match="op 'opaque_scale' is computed and not cached: 'state'"):
            assert board.call("opaque_scale", [1.0]).y.tolist() == [2.0]
        state[0] = 5.0
        again = board.call("opaque_scale", [1.0])  # a second warning would be an error here
        assert (again.y.tolist(), again.hit) == ([5.0], "miss")
        assert board.stats()["puts"] == 0


def test_ops_of_one_name_and_other_code_never_share_packages(tmp_path: Path) -> None:
    """An op whose constant was edited is computed anew; put back, it finds its packages again."""

    def register(factor: float) -> None:
        @ops.op(name="scaled", kind="elementwise", vjp=lambda c, y, x: c * factor, replace=True)
        def scaled(x: Any) -> Any:
            return x * factor

    answers = []
    for factor in (2.0, 3.0, 2.0):
        register(factor)
        with wb.open(tmp_path / "cache.db") as board:
            result = board.call("scaled", [1.0])
            answers.append((result.y.tolist(), result.grads[0].tolist(), result.hit))
    assert answers == [([2.0], [2.0], "miss"), ([3.0], [3.0], "miss"), ([2.0], [2.0], "disk")]


def test_packages_of_gemm_are_never_those_of_the_exact_op() -> None:
    """The same sources through matmul and matmul_gemm are two packages."""
    a = np.random.default_rng(0).normal(size=(3, 3))
    with wb.open(":memory:") as board:
        assert [board.call(op, a, a).hit for op in ("matmul", "matmul_gemm", "matmul", "matmul_gemm")] == [
            *("miss", "miss"),
            *("memory", "memory"),
        ]


def test_what_was_computed_elsewhere_is_found(tmp_path: Path) -> None:
    """Adopted packages are what later calls find, each key once, NaNs as a session gives them; what is there stays."""
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3))
    a[4], b[4] = a[3], b[3]
    spec = ops.get("mul")
    y, grads = a * b, [b.copy(), a.copy()]
    y[2, 0] = -np.nan
    with wb.open(tmp_path / "a.db") as board:
        board.call("mul", a[1], b[1])
        wrong = [grad + 1 for grad in grads]
        added = board.pipeline.adopt(spec, None, ArraySources("mul", [a[:2], b[:2]]), y[:2], [g[:2] for g in wrong])
        assert added.tolist() == [True, False]
        assert board.pipeline.adopt(spec, {}, ArraySources("mul", [a, b]), y, grads).tolist() == [0, 0, 1, 1, 0]
    with wb.open(tmp_path / "a.db") as board:
        found = board.call_many("mul", a, b)
        assert found.hit.tolist() == [2] * 5
        assert found.y[2].tobytes() == np.array([np.nan, *y[2, 1:]]).tobytes()
        np.testing.assert_array_equal(found.grads[0][0], b[0] + 1)
        np.testing.assert_array_equal(found.grads[0][1:], b[1:])
        assert board.stats()["seconds_saved"] < 1


MISFITS = [
    ("y of another shape", lambda y, g: (y[:, :2], g), ShapeError, "op 'mul', y: expected shape (3,), got (2,)"),
    ("y of another dtype", lambda y, g: (y.astype("f4"), g), DtypeError, "y: expected dtype float64"),
    ("a gradient too few", lambda y, g: (y, g[:1]), ShapeError, "one gradient for each of 2 sources, got 1"),
    ("a gradient of another shape", lambda y, g: (y, [g[0], g[1][:, None]]), ShapeError, "grads[1]: expected shape"),
    ("a job too few", lambda y, g: (y[:4], g), ShapeError, "y: expected"),
]


@pytest.mark.parametrize(("change", "kind", "word"), [case[1:] for case in MISFITS], ids=[case[0] for case in MISFITS])
def test_what_does_not_fit_the_op_is_not_adopted(change: Any, kind: type[Exception], word: str) -> None:
    """Arrays that the op would not give are refused with op, array, expected and got, and nothing is stored."""
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3))
    with wb.open(":memory:") as board:
        with pytest.raises(kind) as raised:
            board.pipeline.adopt(ops.get("mul"), None, ArraySources("mul", [a, b]), *change(a * b, [b, a]))
        assert word in str(raised.value)
        assert board.stats()["puts"] == 0


def test_what_has_no_fingerprint_is_not_adopted() -> None:
    """An op that cannot be seen through has no keys, so that nothing can be stored of it."""
    x = np.ones((2, 3))
    spec = replace(identity(lambda state, c, need: (c,)), fingerprint=None, opaque="it reads a file")
    with (
        wb.open(":memory:") as board,
        pytest.warns(wb.UncachedWarning),
        pytest.raises(wb.ParamError, match="no finger"),
    ):
        board.pipeline.adopt(spec, None, ArraySources("same", [x]), x, [x])


ODD: dict[str, dict[str, Any]] = {
    "no y": {"y": None},
    "no gradient": {"g1": None},
    "one gradient more": {"g2": np.zeros((2, 3))},
    "another name": {"g1": None, "g7": np.zeros((2, 3))},
    "another dtype": {"y": np.zeros((2, 3), np.float32)},
    "integers": {"g0": np.zeros((2, 3), np.int64)},
    "bytes the other way": {"y": np.zeros((2, 3), ">f8")},
    "another shape of y": {"y": np.zeros((2, 4))},
    "scalars": {"y": np.zeros(2)},
    "another shape of a gradient": {"g0": np.zeros((2, 3, 1))},
    "another op": {},
}


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("odd", ODD)
def test_a_page_that_is_not_what_the_op_gives_is_a_counted_miss(tmp_path: Path, odd: str, readonly: bool) -> None:
    """A page under the right keys, whose digests fit, but of other columns: computed again, and replaced."""
    path = tmp_path / "a.db"
    a, b = np.arange(6.0).reshape(2, 3), np.full((2, 3), 3.0)
    with wb.open(":memory:") as board:
        found = board.pipeline.evaluate(ops.get("mul"), None, ArraySources("mul", [a, b]))
    columns = {"y": np.zeros((2, 3)), "g0": np.zeros((2, 3)), "g1": np.zeros((2, 3)), **ODD[odd]}
    op = "add" if odd == "another op" else "mul"
    with open_store(path) as stores:
        stores.packages.put(Page(op, found.keys, {name: each for name, each in columns.items() if each is not None}))
    with wb.open(path, readonly=readonly) as board:
        for hit in (0, 1):
            many = board.call_many("mul", a, b)
            assert (many.y.tolist(), many.hit.tolist()) == ((a * b).tolist(), [hit, hit])
            assert many.grads[0].tolist() == b.tolist()
        assert (board.stats()["corrupt"], board.stats()["misses"]) == (1, 2)
    with wb.open(path) as board:
        assert board.call_many("mul", a, b).hit.tolist() == ([0, 0] if readonly else [2, 2])


_scale = 1.0
_when = 0.0


def _edit(x: Any) -> None:
    """Do what somebody does in a notebook while the op runs in a thread."""
    global _scale
    if x[0] == _when:
        _scale = 5.0


def scaled(x: Any) -> Any:
    """Return x times what the module says."""
    _edit(x)
    return x * _scale


@pytest.mark.parametrize(
    ("before", "many"), [(0, False), (0, True), (5, False), (5, True)], ids=["call", "bins", "cheap call", "cheap bins"]
)
def test_what_was_edited_while_it_ran_is_not_kept(before: int, many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key is that of the code as it was: what the edit made of the results answers nobody, and that is told."""
    module = sys.modules[__name__]
    monkeypatch.setattr(module, "_scale", 1.0)
    wb.op(gradient="none", ignore=("_edit",))(scaled)
    x = np.arange(1.0, 9.0)[:, None]
    with wb.open(":memory:", bin_jobs=2) as board:
        for number in range(before):  # then it is known to be cheap
            board.call("scaled", [100.0 + number])
        monkeypatch.setattr(module, "_when", 4.0)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            board.call_many("scaled", x) if many else board.call("scaled", x[3])
        assert _scale == 5.0
        if many or not before:  # a call in a straight line says nothing, and keeps nothing
            assert [str(each.message).rpartition(", ")[2] for each in told] == ["was edited while it ran"]
        monkeypatch.setattr(module, "_when", 0.0)
        monkeypatch.setattr(module, "_scale", 1.0)
        again = board.call_many("scaled", x)
        assert again.y.tolist() == x.tolist()
        assert again.hit.tolist() == [many] * 3 + [0] * 5
        assert board.stats()["wrong"] == 0


@dataclass(frozen=True)
class Law:
    """What an op keeps something of once it has run."""

    rate: float = 2.0

    @cached_property
    def double(self) -> float:
        """Computed when it is first asked for."""
        return 2 * self.rate


_LAW = Law()


def lawful(x: Any) -> Any:
    """Return x times four."""
    return x * _LAW.double


def test_what_an_op_keeps_for_itself_is_no_edit() -> None:
    """A property that is computed once changes an object that the op leads to, and nothing of what it computes."""
    wb.op(gradient="none")(lawful)
    with wb.open(":memory:") as board:
        assert "double" not in vars(_LAW)
        assert [board.call("lawful", [1.0]).hit for _ in range(2)] == ["miss", "memory"]
        assert "double" in vars(_LAW)
