"""Batch-invariant bits: an exact op's results are the same alone, in any bin, at any place in memory, on any BLAS."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.blas_threads import on_blas_threads
from whiteboard import ops
from whiteboard.ops.catalogue import FAMILY
from whiteboard.ops.checking.conformance import draw
from whiteboard.ops.checking.run_once import line_up
from whiteboard.ops.spec import Example, OpSpec

EXACT = [name for name in FAMILY if ops.get(name).exactness != "tolerance"]

LARGE = {
    "vecdot": Example(((9001,), (9001,))),
    "distance": Example(((20011,), (20011,))),
    "matvec": Example(((130, 257), (257,))),
    "vecmat": Example(((257,), (257, 130))),
    "matmul": Example(((67, 129), (129, 70))),
    "linear": Example(((65, 129), (70, 129), (70,))),
    "einsum": Example(((9001,), (9001,)), {"subscripts": "i,i->"}),
    "sum": Example(((10007,),)),
    "mean": Example(((3, 4099),), {"axis": 1}),
    "norm": Example(((70, 130),), {"axis": 0}),
    "softmax": Example(((10007,),)),
    "logsumexp": Example(((70, 130),), {"axis": 0}),
    "exp": Example(((1003,),)),
    "power": Example(((67, 1), (1, 67)), domain=(0.3, 2.0)),
}
"""Jobs longer than NumPy's buffers, or big enough that BLAS would use threads."""

EXTREME = (
    0.0,
    -0.0,
    np.nan,
    np.inf,
    -np.inf,
    1e-320,
    1e-300,
    1e300,
    -745.2,
    709.7,
    88.7,
    1e5,
    1e22,
    0.5,
    -1.0,
    1.0,
    3.0,
)


def results(spec: OpSpec, xs: list[np.ndarray], params: Any, cotangent: np.ndarray | None = None) -> list[np.ndarray]:
    """Return y and the gradients, as the op returns them, of sources where they lie."""
    sources = tuple(line_up(spec, xs))
    with np.errstate(all="ignore"):
        y, saved = spec.forward(sources, None, **spec.bind(params))
        ones = np.broadcast_to(np.ones((), xs[0].dtype), y.shape)
        grads = spec.vjp(saved, ones if cotangent is None else cotangent, (True,) * len(xs), **spec.bind(params))
        return [np.array(y), *(np.array(grad) for grad in grads)]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    """Whether two lists of arrays have the same bytes; any NaN counts as any other.

    Which of two NaNs ``a + b`` and ``a · b`` return, and so its sign, differs in NumPy between vector and remainder.
    """
    return [np.where(np.isnan(x), np.nan, x).tobytes() for x in a] == [
        np.where(np.isnan(x), np.nan, x).tobytes() for x in b
    ]


def placed(x: np.ndarray, offset: int) -> np.ndarray:
    """Return a C-contiguous copy that starts `offset` elements into a buffer."""
    buffer = np.empty(x.size + offset, x.dtype)
    copy = buffer[offset:].reshape(x.shape)
    copy[...] = x
    return copy


def cases(rng: np.random.Generator, name: str, n: int) -> list[tuple[Example, list[np.ndarray]]]:
    """Return sources for n jobs of each of an op's examples, in both dtypes."""
    spec = ops.get(name)
    return [(e, draw(rng, e, n, dtype)) for e in spec.examples for dtype in (np.float64, np.float32)]


@pytest.mark.parametrize("name", EXACT)
def test_a_job_has_the_same_bits_in_bins_of_any_size(name: str) -> None:
    """Jobs of a bin of 300 alone, in bins of 2 to 129, shuffled, and at other places in memory."""
    spec, rng = ops.get(name), np.random.default_rng(1)
    for example, xs in cases(rng, name, 300):
        whole = results(spec, xs, example.params)
        for size in (1, 2, 3, 7, 16, 33, 129):
            rows = rng.permutation(300)[:size]
            part = [placed(x[rows], int(rng.integers(0, 9))) for x in xs]
            assert same(results(spec, part, example.params), [r[rows] for r in whole]), (example, size)


@pytest.mark.parametrize("name", EXACT)
def test_extreme_neighbours_do_not_change_a_job(name: str) -> None:
    """NaN, infinities, subnormal and huge values in the same vector register leave a job's bits alone."""
    spec, rng = ops.get(name), np.random.default_rng(2)
    for example, xs in cases(rng, name, 9):
        with np.errstate(over="ignore"):
            wild = [
                np.where(rng.uniform(size=x.shape) < 0.4, rng.choice(EXTREME, x.shape), x).astype(x.dtype) for x in xs
            ]
        whole = results(spec, wild, example.params)
        for i in range(9):
            alone = results(spec, [x[i : i + 1].copy() for x in wild], example.params)
            assert same(alone, [r[i : i + 1] for r in whole]), (example, [x[i] for x in wild])


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_large_jobs_keep_their_bits(name: str, dtype: type[np.floating]) -> None:
    """Longer than a buffer, or more than BLAS gives to one thread: alone as in a bin."""
    spec, rng = ops.get(name), np.random.default_rng(3)
    xs = draw(rng, LARGE[name], 3, dtype)
    whole = results(spec, xs, LARGE[name].params)
    for i in range(3):
        alone = results(spec, [placed(x[i : i + 1], i) for x in xs], LARGE[name].params)
        assert same(alone, [r[i : i + 1] for r in whole])


@given(data=st.data())
@settings(max_examples=60)
def test_any_split_of_any_bin_gives_the_same_bits(data: st.DataObject) -> None:
    """Any op, example, dtype, number of jobs, order and way of cutting: one job, one result."""
    spec = ops.get(data.draw(st.sampled_from(EXACT)))
    example = data.draw(st.sampled_from(spec.examples))
    n = data.draw(st.integers(1, 40))
    dtype = np.float64 if data.draw(st.booleans()) else np.float32
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    xs = draw(rng, example, n, dtype)
    y = results(spec, xs, example.params)[0]
    cotangent = rng.standard_normal(y.shape).astype(dtype)
    whole = results(spec, xs, example.params, cotangent)
    order = np.array(data.draw(st.permutations(range(n))))
    cuts = data.draw(st.lists(st.integers(0, n)).map(sorted))
    for rows in np.split(order, cuts):
        if len(rows):
            part = results(spec, [x[rows] for x in xs], example.params, cotangent[rows])
            assert same(part, [r[rows] for r in whole])


THREADS = """
import hashlib, sys
import numpy as np
from whiteboard import ops
from whiteboard.ops.checking.conformance import draw
from whiteboard.ops.spec import Example
from whiteboard.ops.checking.run_once import run
jobs = {
    "vecdot": Example(((50000,), (50000,))),
    "distance": Example(((50000,), (50000,))),
    "matvec": Example(((700, 701), (701,))),
    "vecmat": Example(((701,), (701, 700))),
    "matmul": Example(((300, 400), (400, 200))),
    "linear": Example(((200, 400), (300, 400), (300,))),
    "outer": Example(((500,), (500,))),
    "einsum": Example(((300, 400), (400, 200)), {"subscripts": "ik,kj->ij"}),
    "sum": Example(((50000,),)),
    "norm": Example(((300, 400),), {"axis": 0}),
}
for name, example in jobs.items():
    trial = run(ops.get(name), draw(np.random.default_rng(0), example, 2, np.float64), example.params)
    print(name, hashlib.blake2b(b"".join(a.tobytes() for a in (trial.y, *trial.grads))).hexdigest())
"""


def test_the_number_of_blas_threads_does_not_change_a_bit() -> None:
    """Large jobs, in processes with one and two threads of OpenBLAS, MKL or Accelerate."""
    one, two = on_blas_threads(THREADS)
    assert len(one) == 10
    assert one == two
