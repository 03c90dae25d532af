"""The bridge: any object with nodes and impulse is served, from the cache, by the bytes of its values."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.errors import DtypeError, NonFiniteError, ParamError, ShapeError, UnknownNodeError, UnknownOpError
from whiteboard.integration.bridge_v2 import push_impulses_from_op_v2, push_impulses_from_ops_batched


class Legacy:
    """A system that counts epochs, edits theta in place, and knows nothing of Whiteboard."""

    def __init__(self, *thetas: Any, versions: bool = False) -> None:
        self.nodes = {i: SimpleNamespace(theta=theta, p=np.array([float(i), 0.0])) for i, theta in enumerate(thetas)}
        if versions:
            for node in self.nodes.values():
                node.version = 0
        self.epoch = 0
        self.pushed: list[tuple[int, int, str, np.ndarray]] = []

    def impulse(self, src_id: int, out_id: int, op_name: str, vector: np.ndarray) -> None:
        """Remember the impulse."""
        self.pushed.append((src_id, out_id, op_name, vector))


@pytest.fixture
def cache() -> Iterator[wb.Board]:
    """Return a board in memory."""
    with wb.open(":memory:") as board:
        yield board


A, B = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
SHAPES = {
    "scalars": (np.float64(2.0), np.float64(3.0)),
    "vectors": (A, B),
    "matrices": (np.outer(A, B), np.outer(B, A)),
    "float32": (A.astype("f4"), B.astype("f4")),
}


@pytest.mark.parametrize("versions", [False, True])
@pytest.mark.parametrize("thetas", SHAPES.values(), ids=SHAPES)
def test_impulses_reach_any_system(thetas: tuple[Any, Any], versions: bool, cache: wb.Board) -> None:
    """y comes back and −scale · Jᵀ · residual is pushed onto each source, whatever theta's shape."""
    legacy = Legacy(*(np.array(theta) for theta in thetas), versions=versions)
    sink = wb.ListSink()
    y = push_impulses_from_op_v2(legacy, "mul", (0, 1), 7, residual=2.0, scale=0.5, cache=cache, result_sink=sink)
    a, b = thetas
    assert y.tolist() == (a * b).tolist()
    assert [(src, out, op) for src, out, op, _ in legacy.pushed] == [(0, 7, "mul"), (1, 7, "mul")]
    assert [v.tolist() for *_, v in legacy.pushed] == [(-b).tolist(), (-a).tolist()]
    assert all(v.dtype == np.asarray(a).dtype for *_, v in legacy.pushed)
    (result,) = sink.results
    assert (result.out_id, result.hit, result.y.tolist()) == (7, "miss", y.tolist())
    push_impulses_from_op_v2(legacy, "mul", (0, 1), 7, residual=2.0, scale=0.5, cache=cache, result_sink=sink)
    assert sink.results[1].hit == "memory"
    assert [v.tobytes() for *_, v in legacy.pushed[:2]] == [v.tobytes() for *_, v in legacy.pushed[2:]]


def test_a_theta_edited_in_place_is_never_answered_with_the_old_one(cache: wb.Board) -> None:
    """A legacy node is told by its bytes: an edit in place is a miss, an edit back is a hit, an epoch is nothing."""
    legacy = Legacy(A.copy(), B.copy())
    sink = wb.ListSink()

    def call() -> np.ndarray:
        return push_impulses_from_op_v2(legacy, "mul", (0, 1), 0, residual=1.0, cache=cache, result_sink=sink)

    call()
    legacy.epoch += 1
    call()
    legacy.nodes[0].theta[0] = 9.0
    assert call().tolist() == [36.0, 10.0, 18.0]
    legacy.nodes[0].theta[0] = 1.0
    assert call().tolist() == [4.0, 10.0, 18.0]
    assert [result.hit for result in sink.results] == ["miss", "memory", "miss", "memory"]


def test_no_residual_pushes_nothing_and_is_counted(cache: wb.Board) -> None:
    """Without a residual there is a result, no impulse, and a count of it; for a System too."""
    legacy = Legacy(A, B)
    assert push_impulses_from_op_v2(legacy, "mul", (0, 1), 0, cache=cache).tolist() == (A * B).tolist()
    assert legacy.pushed == []
    system = cache.system("s")
    system.add_nodes([0, 1], theta=np.stack([A, B]))
    assert push_impulses_from_op_v2(system, "mul", (0, 1), 0).tolist() == (A * B).tolist()
    assert cache.stats()["without_residual"] == 2
    assert cache.stats()["hits_memory"] == 1
    assert system.commit().changed == 2


def test_a_batch_mixes_ops_shapes_and_residuals(cache: wb.Board) -> None:
    """Specs of different ops, parameters and shapes give their y in order, and their impulses in order."""
    matrix = np.arange(6.0).reshape(2, 3)
    legacy = Legacy(A, B, matrix)
    residual = np.array([1.0, -2.0])
    ys = push_impulses_from_ops_batched(
        legacy,
        [
            ("matvec", (2, 0), 1, (), None, residual),
            ("mul", (0, 1), 2, (), {}),
            ("sum", (2,), 0, (1,), None, residual),
            ("sum", (2,), 0, (), {"axis": 0}, 1.0),
            ("mul", (1, 1), 0, (), None, A),
        ],
        scale=2.0,
        cache=cache,
    )
    expected = [matrix @ A, A * B, matrix.sum(1), matrix.sum(0), B * B]
    assert [y.tolist() for y in ys] == [y.tolist() for y in expected]
    vectors = [
        (2, -2 * np.outer(residual, A)),
        (0, -2 * matrix.T @ residual),
        (2, -2 * np.broadcast_to(residual[:, None], (2, 3))),
        (2, -2 * np.ones((2, 3))),
        (1, -2 * A * B),
        (1, -2 * A * B),
    ]
    assert [src for src, *_ in legacy.pushed] == [src for src, _ in vectors]
    for (*_, got), (_, want) in zip(legacy.pushed, vectors, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-14)


def test_a_foreign_system_and_ours_get_the_same_bits(cache: wb.Board) -> None:
    """A System fed by the bridge moves by the very impulses that a legacy system is given."""
    legacy = Legacy(A, B)
    system = cache.system("s")
    system.add_nodes([0, 1], theta=np.stack([A, B]), p=np.array([[0.0, 0.0], [1.0, 0.0]]))
    legacy.nodes[5] = SimpleNamespace(p=np.array([0.0, 3.0]))
    system.add_nodes([5], p=np.array([[0.0, 3.0]]))
    for sys_ in (legacy, system):
        push_impulses_from_op_v2(
            sys_, "mul", (0, 1), 5, residual=np.array([0.3, -1.0, 2.0]), weight="inv_length", cache=cache
        )
    moved: list[np.ndarray] = []

    def spy(rows: np.ndarray, sums: Any) -> np.ndarray:
        moved.append(sums.vector)
        return rows

    system.commit(spy)
    assert [v.tobytes() for *_, v in legacy.pushed] == [v.tobytes() for v in moved[0]]
    np.testing.assert_allclose(legacy.pushed[0][3], -np.array([0.3, -1.0, 2.0]) * B / 3)


def test_packages_outlive_the_process(tmp_path: Path) -> None:
    """What one process pushed, the next one finds on disk, for another system of equal values; nothing is printed."""
    code = (
        "import sys, numpy as np, whiteboard as wb\n"
        "from types import SimpleNamespace as N\n"
        "from whiteboard.integration.bridge_v2 import push_impulses_from_op_v2 as push\n"
        "s = N(nodes=[N(theta=np.arange(3.0)), N(theta=np.ones(3))], impulse=lambda *a: None)\n"
        "k = wb.ListSink()\n"
        "with wb.open('c.db') as b: push(s, 'mul', (0, 1), 0, residual=1.0, cache=b, result_sink=k)\n"
        "sys.exit({'miss': 10, 'memory': 11, 'disk': 12}[k.results[0].hit])\n"
    )
    for expected in (10, 12, 12):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=os.environ, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (expected, b"", b"")


Case = tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]
BAD: dict[str, Case] = {
    "op": (("nope", (0, 1), 0), {}, UnknownOpError, "nope"),
    "node": (("mul", (0, 9), 0), {}, UnknownNodeError, "op 'mul', job 0, slot 1: no node 9"),
    "dtype": (("mul", (0, 2), 0), {}, DtypeError, "slot 1: theta of node 2: integer dtype int64 is refused"),
    "no theta": (("mul", (0, 3), 0), {}, UnknownNodeError, "op 'mul', job 0, slot 1: node 3 has no theta"),
    "shape": (("mul", (0, 4), 0), {}, ShapeError, "op 'mul', job 0"),
    "nan": (("mul", (0, 1), 0), {"residual": np.nan}, NonFiniteError, "job 0, slot 0: the impulse on node 0"),
    "residual": (("mul", (0, 1), 0), {"residual": [1.0]}, ShapeError, "residual"),
    "args": (("mul", (0, 1), 0), {"op_args": (1,)}, ParamError, "at most 0 op_args, got 1"),
    "twice": (("sum", (0,), 0), {"op_args": (0,), "op_kwargs": {"axis": 0}}, ParamError, "'axis' is in op_args and in"),
    "weight": (("mul", (0, 1), None), {"residual": 1.0, "weight": "inv_length"}, ParamError, "needs out_id"),
    "no position": (
        ("mul", (0, 1), 2),
        {"residual": 1.0, "weight": "inv_length"},
        ParamError,
        "node 2 has no position",
    ),
    "positions": (
        ("mul", (0, 1), 5),
        {"residual": 1.0, "weight": "inv_length"},
        ShapeError,
        "dimension 2, that.* of 3",
    ),
    "a position": (("mul", (0, 6), 5), {"residual": 1.0, "weight": "inv_length"}, ShapeError, r"node 6 .*shape \(3,\)"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_input_pushes_nothing(case: Case, cache: wb.Board) -> None:
    """A bad op, node, theta, residual or parameter is named, and no impulse of the call is pushed."""
    arguments, options, error, says = case
    legacy = Legacy(A, B, np.arange(3), None, np.ones(2), B, B)
    del legacy.nodes[2].p
    legacy.nodes[5].p = legacy.nodes[6].p = np.zeros(3)
    with pytest.raises(error, match=says):
        push_impulses_from_op_v2(legacy, *arguments, cache=cache, **options)
    assert legacy.pushed == []


def test_a_spec_of_the_wrong_length_is_named(cache: wb.Board) -> None:
    """A spec without its parts is refused with the form that it must have."""
    with pytest.raises(ParamError, match=r"spec 0: expected \(op_name.*got 3 items"):
        push_impulses_from_ops_batched(Legacy(A), [("mul", (0, 0), 0)], cache=cache)


def test_ops_call_writes_out(cache: wb.Board) -> None:
    """`Ops.call` returns y, and with write_out puts it into the out node: at once, or with a System's next commit."""
    legacy = Legacy(A, B, np.zeros(3))
    sink = wb.ListSink()
    assert wb.Ops.call(legacy, "mul", (0, 1), 2, write_out=True, sink=sink).tolist() == (A * B).tolist()
    assert legacy.nodes[2].theta.tolist() == (A * B).tolist()
    assert len(sink.results) == 1
    system = cache.system("s")
    system.add_nodes([0, 1, 2], theta=np.stack([A, B, B]), fixed=[False, False, True])
    wb.Ops.call(system, "mul", (0, 1), 2, residual=1.0, write_out=True)
    assert np.asarray(system.nodes[2].theta).tolist() == B.tolist()
    system.commit(lambda rows, sums: rows + sums.vector)
    assert np.asarray(system.nodes[2].theta).tolist() == (A * B).tolist()
    assert np.asarray(system.nodes[0].theta).tolist() == (A - B).tolist()
    assert [system.nodes[i].version for i in range(3)] == [1, 1, 1]
