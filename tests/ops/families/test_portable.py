"""Portable ops: the same bits whatever instructions NumPy takes and however many threads BLAS has."""

from __future__ import annotations

import pytest

from tests.arithmetic_levels import at, levels
from whiteboard import ops
from whiteboard.ops.catalogue import FAMILY

RESULTS = """
import hashlib, sys
import numpy as np
from tests.ops.families.test_exactness import EXTREME, LARGE
from whiteboard import ops
from whiteboard.ops.catalogue import FAMILY
from whiteboard.evaluation.session import Session
from whiteboard.ops.checking.conformance import draw
from whiteboard.ops.spec import Example

MORE = {
    "concat": [Example(((1003,), (9,)))],
    "cumsum": [Example(((2003,),)), Example(((70, 33),), {"axis": 0})],
    "einsum": [Example(((65, 129), (129, 70)), {"subscripts": "ik,kj->ij"})],
    "gather": [Example(((301,),), {"indices": tuple(range(300, -1, -1)) * 3})],
    "max": [Example(((1003,),)), Example(((33, 70),), {"axis": 0})],
    "mean_k": [Example(((203,),) * 11)],
    "norm": [Example(((10007,),))],
    "outer": [Example(((203,), (101,)))],
    "prod": [Example(((1003,),), domain=(0.5, 2.0))],
    "prod_k": [Example(((203,),) * 11)],
    "scatter": [Example(((300,),), {"indices": tuple(range(100)) * 3, "size": 101})],
    "squared_distance": [Example(((20011,), (20011,)))],
    "sum": [Example(((70, 130),), {"axis": 0})],
    "sum_k": [Example(((203,),) * 11)],
    "take": [Example(((300,),), {"indices": tuple(range(100)) * 3})],
    "var": [Example(((10007,),)), Example(((70, 33),), {"axis": 0})],
    "vecdot": [Example(((100003,), (100003,)))],
}

def bins(spec):
    # Each example in bins of three sizes; those of large jobs in one of two jobs.
    yield from ((example, n) for example in spec.examples for n in (1, 7, 67))
    if spec.kind == "elementwise":
        params = next((e.params for e in spec.examples[::-1]), {})
        yield Example(((1003,),) * (spec.arity or 3), params, spec.examples[0].domain), 3
    large = [LARGE[spec.name]] if spec.name in LARGE else []
    yield from ((example, 2) for example in [*large, *MORE.get(spec.name, [])])


for name in sorted(FAMILY):
    spec = ops.get(name)
    for dtype in (np.float64, np.float32):
        rng, digest = np.random.default_rng(7), hashlib.blake2b(digest_size=8)
        for example, n in bins(spec):
            plain = draw(rng, example, n, dtype)
            with np.errstate(all="ignore"):
                wild = [np.where(rng.uniform(size=x.shape) < 0.3, rng.choice(EXTREME, x.shape), x) for x in plain]
                ties = [rng.choice([0.0, -0.0, 1.0, -1.0], x.shape) for x in plain]
                for xs in (plain, wild, ties):
                    xs = [np.ascontiguousarray(x, dtype) for x in xs]
                    for ones in (True, False):
                        params = spec.bind(example.params)
                        with Session(spec, params, xs) as session:
                            shape = spec.shape(spec.name, tuple(x.shape[1:] for x in xs), params)
                            given = None if ones else rng.standard_normal((n, *shape)).astype(dtype)
                            for array in session.run(given):
                                digest.update(array.tobytes())
        print(name, np.dtype(dtype).name, digest.hexdigest())
"""


def test_portable_ops_have_the_same_bits_at_every_level() -> None:
    """y, gradients of ones and of cotangents of all examples and of large jobs, with ties of 0 and −0 and extremes."""
    first, *others = levels()
    here = at(first, RESULTS)
    assert len(here) == 2 * len(FAMILY)
    portable = {name for name in FAMILY if ops.get(name).exactness == "portable"}
    assert len(portable) == 40
    for level in others:
        differ = [line.split()[:2] for line, before in zip(at(level, RESULTS), here, strict=True) if line != before]
        assert [each for each in differ if each[0] in portable] == [], level
        if level == "2 threads":
            assert {name for name, _ in differ} <= {"linear_gemm", "matmul_gemm"}
        else:
            assert {name for name, _ in differ}, f"{level}: nothing rounds otherwise there, so it shows nothing"


@pytest.mark.parametrize("name", ["exp", "sin", "power", "softmax", "logsumexp"])
def test_what_takes_kernels_of_the_processor_is_not_called_portable(name: str) -> None:
    """Exponentials and trigonometry are no basic operations of IEEE's: each library rounds them as it does."""
    assert ops.get(name).exactness == "exact"
