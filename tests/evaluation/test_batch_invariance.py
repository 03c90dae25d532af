"""Batch-invariant bits of the whole pipeline: a job has one result, whatever the bin, tier and door."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import whiteboard as wb
from tests.blas_threads import on_blas_threads
from whiteboard import ops
from whiteboard.evaluation.sources import ArraySources
from whiteboard.ops.catalogue import FAMILY
from whiteboard.ops.spec import Example
from whiteboard.types import Array

EXACT = [name for name in FAMILY if ops.get(name).exactness != "tolerance"]
WILD = (0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 5e-324, 1e300, -745.2, 1e22)

Bits = tuple[bytes, ...]


class Program(NamedTuple):
    """Jobs of one op and shape: its sources, each (nodes, *shape), and which of them each job takes, (n, k)."""

    op: str
    example: Example
    values: list[Array]
    picks: Array

    @property
    def sources(self) -> list[Array]:
        """The sources of the jobs, one column a slot."""
        return [values[pick] for values, pick in zip(self.values, self.picks.T, strict=True)]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Draw an exact op, one of its examples, a dtype, values with NaN and the like among them, and jobs that repeat."""
    op = draw(st.sampled_from(EXACT))
    example = draw(st.sampled_from(ops.get(op).examples))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    wild = draw(st.sampled_from([0.0, 0.3]))
    nodes, n = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    values = []
    for shape in example.shapes:
        value = rng.uniform(*example.domain, (nodes, *shape))
        with np.errstate(over="ignore"):
            values.append(
                np.where(rng.uniform(size=value.shape) < wild, rng.choice(WILD, value.shape), value).astype(dtype)
            )
    return Program(op, example, values, rng.integers(0, nodes, (n, len(values))))


def bits(y: Array, grads: tuple[Array, ...]) -> list[Bits]:
    """Return the bytes of y and the gradients of each job."""
    return [tuple(column[i].tobytes() for column in (y, *grads)) for i in range(len(y))]


def alone(program: Program) -> list[Bits]:
    """Return the bits of each job on a board of its own kind: no cache, bins of one, one call a job."""
    with wb.open(":memory:", memory_bytes=0, persist="never", bin_jobs=1) as board:
        results = [
            board.call(program.op, *xs, params=program.example.params) for xs in zip(*program.sources, strict=True)
        ]
    return [tuple(np.asarray(array).tobytes() for array in (r.y, *r.grads)) for r in results]


def scattered(array: Array, how: str) -> Array:
    """Return the values of an array at another place in memory, or with other strides."""
    if how == "offset":
        buffer = np.empty(array.size + 3, array.dtype)
        buffer[3:] = array.reshape(-1)
        return buffer[3:].reshape(array.shape)
    if how == "strided":
        buffer = np.zeros((*array.shape, 3), array.dtype)
        buffer[..., 1] = array
        return buffer[..., 1]
    if how == "reversed":
        return np.ascontiguousarray(array[::-1])[::-1]
    if how == "fortran":
        return np.asfortranarray(array)
    if how == "unaligned":
        raw = np.empty(array.nbytes + 1, np.uint8)
        view = raw[1:].view(array.dtype).reshape(array.shape)
        view[...] = array
        return view
    return array


def through(board: wb.Board, program: Program, rows: Array, door: str, place: str, name: str) -> list[Bits]:
    """Answer some of the jobs by one of the ways into the library; return the bits of each."""
    params = program.example.params
    if door == "call":
        called = [board.call(program.op, *(x[row] for x in program.sources), params=params) for row in rows]
        return [tuple(np.asarray(array).tobytes() for array in (r.y, *r.grads)) for r in called]
    if door == "call_many":
        many = board.call_many(program.op, *(scattered(x[rows], place) for x in program.sources), params=params)
        return bits(many.y, many.grads)
    system = board.system(name)
    count = len(program.values[0])
    if not len(system.nodes):
        for slot, values in enumerate(program.values):
            system.add_nodes(np.arange(count) + slot * count, theta=scattered(values, place))
    src_ids = program.picks[rows] + np.arange(len(program.values)) * count
    if door == "batch":
        batch = system.process(wb.JobBatch(program.op, src_ids, params=params))
        return bits(batch.y, batch.grads)
    jobs = [wb.Job(program.op, ids, params=params) for ids in src_ids.tolist()]
    return [tuple(array.tobytes() for array in (r.y, *r.grads)) for r in system.process(jobs)]


@given(data=st.data(), program=programs())
@settings(max_examples=150)
def test_any_way_through_gives_the_same_bits(data: st.DataObject, program: Program) -> None:
    """Any bins, tiers, hits and misses, order, door and place in memory: each job has the bits it has alone."""
    expected = alone(program)
    with wb.open(
        ":memory:",
        memory_bytes=data.draw(st.sampled_from([0, 3000, 20_000, 2**24])),
        persist=data.draw(st.sampled_from(["always", "never", "auto"])),
        bin_jobs=data.draw(st.integers(1, 50)),
        bin_bytes=data.draw(st.sampled_from([1, 100, 1000, 2**20])),
    ) as board:
        for turn in range(data.draw(st.integers(1, 4))):
            rows = np.array(data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=60)))
            door = data.draw(st.sampled_from(["call", "call_many", "batch", "list"]))
            place = data.draw(st.sampled_from(["", "offset", "strided", "reversed", "fortran", "unaligned"]))
            got = through(board, program, rows, door, place, f"s{turn}")
            assert got == [expected[row] for row in rows]
            if data.draw(st.booleans()):
                board.flush()


@given(program=programs(), cut=st.integers(1, 50), seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_cotangents_do_not_know_their_bin(program: Program, cut: int, seed: int) -> None:
    """Gradients of a cotangent, as a residual sends it, have the bits they have alone."""
    sources = program.sources
    spec = ops.get(program.op)
    shape = spec.shape(spec.name, tuple(x.shape[1:] for x in sources), spec.bind(program.example.params))
    assert shape is not None
    cotangent = np.random.default_rng(seed).normal(size=(len(sources[0]), *shape)).astype(sources[0].dtype)
    answers = []
    for size in (cut, 1):
        with wb.open(":memory:", persist="never", memory_bytes=0, bin_jobs=size) as board:
            done = board.pipeline.evaluate(spec, program.example.params, ArraySources(spec.name, sources), cotangent)
        answers.append(bits(done.y, done.grads))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_nan_is_the_same(dtype: type[np.floating]) -> None:
    """The sign and the payload of a NaN say nothing of the place in a vector register that it came from."""
    n = 37
    plus, minus = np.full(n, np.nan, dtype), -np.full(n, np.nan, dtype)
    with wb.open(":memory:") as board:
        for a, b in ((plus, minus), (minus, plus), (minus, minus)):
            result = board.call("add", a, b)
            assert result.y.tobytes() == plus.tobytes()
            result = board.call("mul", a, b)
            assert [x.tobytes() for x in (result.y, *result.grads)] == [plus.tobytes()] * 3


THREADS = """
import hashlib, numpy as np, whiteboard as wb
jobs = {"matmul": ((120, 400), (400, 130)), "linear": ((90, 300), (110, 300), (110,)), "vecdot": ((20000,), (20000,)),
        "matvec": ((300, 301), (301,)), "outer": ((300,), (301,)), "norm": ((300, 400),), "softmax": ((20000,),),
        "distance": ((20000,), (20000,)), "prod_k": ((999,), (999,), (999,))}
rng = np.random.default_rng(0)
with wb.open(":memory:", bin_jobs=3) as board:
    for name, shapes in jobs.items():
        sources = [rng.uniform(0.5, 1.5, (4, *shape)) for shape in shapes]
        system = board.system(name)
        for slot, values in enumerate(sources):
            system.add_nodes(np.arange(4) + 4 * slot, theta=values)
        ids = np.arange(4)[:, None] + 4 * np.arange(len(shapes))
        result = system.process(wb.JobBatch(name, ids, residual=rng.normal(size=4)))
        system.commit(wb.rules.Relax(0.1, 0.1, 0.1))
        said = b"".join(column.tobytes() for column in (result.y, *result.grads))
        print(name, hashlib.blake2b(said).hexdigest(), system.digest())
"""


def test_the_pipeline_has_the_same_bits_with_one_and_two_blas_threads() -> None:
    """Large jobs through board, system and commit, in processes with one and two threads of BLAS."""
    one, two = on_blas_threads(THREADS)
    assert len(one) == 9
    assert one == two


def test_a_shared_weight_is_one_gemm_and_never_a_copy() -> None:
    """Jobs of a tolerance op that all take one node get it as a broadcast; those of an exact op never do."""
    rng = np.random.default_rng(0)
    seen: list[tuple[int, ...]] = []

    def affine(x: Any, w: Any, scale: float = 1.0) -> Any:
        seen.append(w.strides)
        return np.matmul(x[:, None], w)[:, 0] * scale

    def back(cotangent: Any, y: Any, x: Any, w: Any, scale: float = 1.0) -> Any:
        up = cotangent * scale
        return np.matmul(up[:, None], w.swapaxes(1, 2))[:, 0], x[:, :, None] * up[:, None]

    x, weight = rng.normal(size=(20, 3)), rng.normal(size=(1, 3, 2))
    try:
        for exactness in ("tolerance", "exact"):
            rules: Any = {"shape": lambda x, w, scale: (w[1],), "batch": "lead_axis", "exactness": exactness}
            ops.op("shared", vjp=back, replace=True, **rules)(affine)
            with wb.open(":memory:", persist="never") as board:
                system = board.system("s")
                system.add_nodes(range(20), theta=x)
                system.add_nodes([20], theta=weight)
                ids = np.stack([rng.permutation(20), np.full(20, 20)], 1)
                with pytest.warns(wb.UncachedWarning, match="'seen'"):
                    result = system.process(wb.JobBatch("shared", ids))
            np.testing.assert_allclose(result.y, x[ids[:, 0]] @ weight[0], rtol=1e-12)
            np.testing.assert_allclose(result.grads[1][4], np.outer(x[ids[4, 0]], np.ones(2)), rtol=1e-12)
    finally:
        ops.registry._entries.pop("shared", None)
    assert [strides[0] == 0 for strides in seen[:2]] == [True, False]  # then rows alone, to see that they may be
