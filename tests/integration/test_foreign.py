"""Foreign systems of every make: how nodes are read, ops named, and impulses taken, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
import pytest

import whiteboard as wb
from whiteboard.errors import (
    DtypeError,
    NonFiniteError,
    ParamError,
    ShapeError,
    StaleImpulseError,
    UnknownNodeError,
    UnknownOpError,
    WhiteboardError,
)
from whiteboard.integration.bridge_v2 import (
    ForeignNames,
    Meaning,
    evaluate_op_v2,
    evaluate_ops_batched,
    push_impulses_from_op_v2,
    push_impulses_from_ops_batched,
)

A, B = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
NAMES = ForeignNames(
    {"times": "mul", "total": Meaning("sum", stack=True), "rows": Meaning("sum", {"axis": 0}, stack=True)},
    {"sum_k": "there the total, here a sum of rows"},
)


class Foreign:
    """A system of any nodes, which remembers its impulses."""

    def __init__(self, nodes: Any) -> None:
        self.nodes = nodes
        self.pushed: list[tuple[Any, Any, str, Any]] = []

    def impulse(self, src_id: Any, out_id: Any, op_name: str, vector: Any) -> None:
        """Remember an impulse."""
        self.pushed.append((src_id, out_id, op_name, vector))


@pytest.fixture
def cache() -> Iterator[wb.Board]:
    """Return a board in memory."""
    with wb.open(":memory:") as board:
        yield board


def objects(**more: Any) -> Foreign:
    """Return a system of a list of objects with theta, p and ctrl."""
    values = [A, B, A + B]
    made = [SimpleNamespace(theta=v.copy(), p=v[:2].copy(), ctrl=2 * v, **more) for v in values]
    return Foreign(made)


MAKES = {
    "a list of objects": lambda: objects().nodes,
    "a dict of objects": lambda: dict(enumerate(objects().nodes)),
    "a dict of dicts": lambda: {i: vars(node) for i, node in enumerate(objects().nodes)},
    "a list of dicts": lambda: [vars(node) for node in objects().nodes],
    "records": lambda: np.array(
        [(v, v[:2], 2 * v) for v in (A, B, A + B)], [("theta", "f8", 3), ("p", "f8", 2), ("ctrl", "f8", 3)]
    ),
}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_nodes_of_every_make_are_read(make: Any, cache: wb.Board) -> None:
    """An attribute by name, one a slot, and by a function: from objects, dicts and records, in lists and dicts."""
    foreign = Foreign(make())
    push = push_impulses_from_op_v2
    assert push(foreign, "mul", (0, 1), 2, residual=1.0, cache=cache).tolist() == (A * B).tolist()
    assert push(foreign, "mul", (0, 1), 2, read="ctrl", cache=cache).tolist() == (4 * A * B).tolist()
    y = push(foreign, "mul", [(0, "ctrl"), 1], 2, residual=1.0, weight="inv_length", cache=cache)
    assert y.tolist() == (2 * A * B).tolist()
    far = np.linalg.norm(A[:2] - (A + B)[:2])
    assert [source for source, *_ in foreign.pushed] == [0, 1, (0, "ctrl"), 1]
    np.testing.assert_allclose(foreign.pushed[2][3], -B / far)
    doubled = push(foreign, "mul", (0, 1), 2, read=lambda node: 2 * np.asarray(theta_of(node)), cache=cache)
    assert doubled.tolist() == (4 * A * B).tolist()


def theta_of(node: Any) -> Any:
    """Return the theta of an object, a dict or a record."""
    return node.theta if isinstance(node, SimpleNamespace) else node["theta"]


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_ops_call_takes_a_cache_and_parameters_and_writes_what_it_reads(make: Any, cache: wb.Board) -> None:
    """`Ops.call` passes all on, and y becomes the attribute that was read."""
    foreign = Foreign(make())
    y = wb.Ops.call(foreign, "clip", (1,), 2, cache=cache, op_args=(5.0,), op_kwargs={"hi": 5.5}, write_out=True)
    assert y.tolist() == [5.0, 5.0, 5.5]
    assert theta_of(foreign.nodes[2]).tolist() == y.tolist()
    wb.Ops.call(foreign, "total", (0, 1), 2, cache=cache, names=NAMES)
    wb.Ops.call(foreign, "mul", (0, 1), 2, cache=cache, read="ctrl", write_out=True, op_args=None, op_kwargs=None)
    node = foreign.nodes[2]
    assert (node.ctrl if isinstance(node, SimpleNamespace) else node["ctrl"]).tolist() == (4 * A * B).tolist()
    assert cache.stats()["misses"] == 3


def ours(board: wb.Board, name: str = "s") -> wb.System:
    """Return a system of ours with the nodes of `objects`."""
    system = board.system(name)
    values = np.stack([A, B, A + B])
    system.add_nodes(range(3), theta=values, p=values[:, :2], attrs={"ctrl": 2 * values})
    return system


CALLS: dict[str, Any] = {
    "read": (("mul", (0, 1), 2, None, None, 1.5), {"read": "ctrl"}),
    "pairs": (("mul", [(0, "ctrl"), (1, "theta")], 2, None, None, np.array([1.0, -2.0, 0.5])), {}),
    "stack": (("sum", (0, 1, 2), 2, None, {"axis": 0}, np.array([1.0, -2.0, 0.5])), {"stack": True}),
    "stack of pairs": (("total", (0, (1, "ctrl")), 2, None, None, 2.0), {"names": NAMES}),
    "floor": (("mul", (0, 2), 2, None, None, 1.0), {"weight": wb.InvLength(0.5)}),
    "weight": (("mul", (0, 1), 2, None, None, 1.0), {"weight": lambda source, out: source.p[0] * out.p[1]}),
    "one number": (("total", (0, 1), 2, None, None, [3.0]), {"names": NAMES}),
}


@pytest.mark.parametrize("case", CALLS.values(), ids=CALLS)
def test_a_foreign_system_and_ours_move_by_the_same_bits(case: Any, cache: wb.Board) -> None:
    """Whatever is asked for, what a System's commit sums is what a foreign system is given."""
    spec, options = case
    foreign, system = objects(), ours(cache)
    (y,) = push_impulses_from_ops_batched(foreign, [spec], cache=cache, **options)
    sums: list[bytes] = []

    def spy(rows: np.ndarray, summed: Any) -> np.ndarray:
        sums.extend(vector.tobytes() for vector in summed.vector)
        return rows

    assert push_impulses_from_ops_batched(system, [spec], **options)[0].tobytes() == y.tobytes()
    system.commit(spy)
    assert sorted(sums) == sorted(vector.tobytes() for *_, vector in foreign.pushed)


def test_floats_give_floats(cache: wb.Board) -> None:
    """A theta that is a number of Python's takes an impulse that is a float."""
    foreign = Foreign([SimpleNamespace(theta=theta) for theta in (2.0, np.float64(3.0), 4)])
    y = push_impulses_from_op_v2(foreign, "prod_k", (0, 1, 2), 0, residual=1.0, cache=cache)
    assert y == 24.0
    assert [type(vector) for *_, vector in foreign.pushed] == [float, np.float64, float]
    assert [float(vector) for *_, vector in foreign.pushed] == [-12.0, -8.0, -6.0]


def test_one_push_a_job(cache: wb.Board) -> None:
    """A hook gets all sources and vectors of a job at once; the system needs no method of its own."""
    system = SimpleNamespace(nodes=objects().nodes)
    got: list[Any] = []
    specs = [("times", (0, (1, "ctrl")), 2, None, None, 1.0), ("times", (1, 1), 0, None, None)]
    push_impulses_from_ops_batched(system, specs, cache=cache, names=NAMES, push=lambda *job: got.append(job))
    ((sources, out, name, vectors),) = got
    assert (sources, out, name) == ((0, (1, "ctrl")), 2, "times")
    assert [vector.tolist() for vector in vectors] == [(-2 * B).tolist(), (-A).tolist()]


def test_mixed_dtypes_are_taken_as_float64_when_asked(cache: wb.Board) -> None:
    """With promote, integers, float32 and booleans are float64, and so are y, gradients and impulses."""
    kinds = ["i4", "f4", "f8", "?", "f2"]
    foreign = Foreign([SimpleNamespace(theta=np.ones(2, kind)) for kind in kinds])
    for i, kind in enumerate(kinds):
        y, grads, _ = evaluate_op_v2(foreign, "mul", (i, 2), cache=cache, promote="float64")
        assert {y.dtype, *(grad.dtype for grad in grads)} == {np.dtype(np.float64)}, kind
    push_impulses_from_op_v2(foreign, "mul", (0, 1), 2, residual=1.0, cache=cache, promote="float64")
    assert {vector.dtype for *_, vector in foreign.pushed} == {np.dtype(np.float64)}


def test_an_evaluation_pushes_nothing_until_it_is_told(cache: wb.Board) -> None:
    """y, gradients and hit come back; a later residual is of the values that were evaluated, whatever they are now."""
    foreign, sink = objects(), wb.ListSink()
    spec = ("matvec", (0, 1), 2, None, None)
    foreign.nodes[0].theta = np.arange(6.0).reshape(2, 3)
    (evaluation,) = evaluate_ops_batched(foreign, [spec], cache=cache, result_sink=sink, job_ids=["first"])
    y, grads, hit = evaluation
    assert (y.tolist(), len(grads), hit, foreign.pushed) == ([17.0, 62.0], 2, "miss", [])
    assert ([result.job_id for result in sink], evaluation.job_id, evaluation.out_id) == (["first"], "first", 2)
    before = foreign.nodes[1].theta.copy()
    foreign.nodes[1].theta[:] = 0.0
    residual = y - [10.0, 70.0]
    evaluation.push(residual, scale=2.0)
    assert [source for source, *_ in foreign.pushed] == [0, 1]
    np.testing.assert_allclose(foreign.pushed[0][3], -2 * np.outer(residual, before))
    stats = cache.stats()
    assert (stats["misses"], stats["without_residual"]) == (2, 1)  # the VJP of that residual was new
    evaluation.push(residual, scale=2.0)
    assert cache.stats()["hits_memory"] == stats["hits_memory"] + 1
    assert foreign.pushed[2][3].tobytes() == foreign.pushed[0][3].tobytes()


def test_a_later_residual_of_ours_belongs_to_a_version(cache: wb.Board) -> None:
    """An evaluation over a System pushes into it, until one of its sources has another version."""
    system = ours(cache)
    evaluation = evaluate_op_v2(system, "mul", (0, 1), job_id="j")
    evaluation.push(1.0, scale=2.0)
    assert system.waiting == 2
    system.commit(lambda rows, sums: rows + sums.vector)
    assert np.asarray(system.nodes[0].theta).tolist() == (A - 2 * B).tolist()
    with pytest.raises(StaleImpulseError, match=r"op 'mul', job 'j': evaluated at versions \(0, 0\) .* have \(1, 1\)"):
        evaluation.push(1.0)
    assert system.waiting == 0


def spring(x: Any, k: float = 2.0) -> Any:
    """Return the force of a spring."""
    return k * x


def cubed(x: Any) -> Any:
    """Return x³: no op yet."""
    return x * x * x


def test_a_job_brings_its_function(cache: wb.Board) -> None:
    """A function that `wb.op` has, one that is no op yet, and one with an identity that stands for its code."""
    foreign, sink = objects(), wb.ListSink()
    wb.op(name="foreign spring", kind="elementwise", vjp=lambda g, y, x, k: g * k, replace=True)(spring)
    specs = [
        (spring, (0,), 1, (3.0,), None, 1.0),
        (cubed, (0,), 1, None, None, 1.0),
        ((cubed, "law 1"), (0,), 1, None, None, 1.0),
        ((cubed, "law 2"), (0,), 1, None, None, 1.0),
    ]
    ys = push_impulses_from_ops_batched(foreign, specs, cache=cache, result_sink=sink)
    assert [y.tolist() for y in ys] == [(3 * A).tolist(), *[(A**3).tolist()] * 3]
    names = [name for _, _, name, _ in foreign.pushed]
    module = __name__
    assert names == ["foreign spring", "cubed", f"{module}.cubed law 1", f"{module}.cubed law 2"]
    assert [result.hit for result in sink] == ["miss"] * 4

    def other() -> Any:
        def cubed(x: Any) -> Any:
            return x**3 + 0.0 * anp.sum(x)

        cubed.__qualname__ = "cubed"
        return cubed

    evaluation = evaluate_op_v2(foreign, other(), (0,), cache=cache, identity="law 1")
    assert (evaluation.hit, evaluation.y.tolist()) == ("memory", (A**3).tolist())


@wb.op(name="foreign part", vjp=lambda g, y, x, where: put(x, where, g))
def part(x: Any, *, where: Any) -> Any:
    """Return some elements of x."""
    return x[where]


def put(x: Any, where: Any, g: Any) -> Any:
    """Return g at its places."""
    grad = np.zeros_like(x)
    grad[where] = g
    return grad


class Device:
    """An array of another library: it says what it is by `__array__`."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.values


PARAMETERS = {
    "a slice": ("take", {"indices": slice(0, 2)}, A[:2]),
    "a slice with a step": ("take", {"indices": slice(None, None, -2)}, A[::-2]),
    "an array of another library": ("take", {"indices": Device([2, 0])}, A[[2, 0]]),
    "a slice of one's own": (part, {"where": slice(1, 3)}, A[1:3]),
    "arrays in a tuple": (part, {"where": (Device([1, 2]),)}, A[1:3]),
}


@pytest.mark.parametrize("case", PARAMETERS.values(), ids=PARAMETERS)
def test_slices_and_foreign_arrays_are_parameters(case: Any, cache: wb.Board) -> None:
    """They have keys: asked again, they are hits, and nothing is warned of."""
    op, params, expected = case
    hits = []
    for _ in range(2):
        y, grads, hit = evaluate_op_v2(objects(), op, (0,), op_kwargs=params, cache=cache)
        assert (y.tolist(), grads[0].sum()) == (expected.tolist(), len(expected))
        hits.append(hit)
    assert hits == ["miss", "memory"]


WITH_JAX = """
import jax.numpy as jnp, whiteboard as wb
from types import SimpleNamespace as N
from whiteboard.integration.bridge_v2 import evaluate_op_v2
system = N(nodes=[N(theta=jnp.asarray([1.0, 2.0, 3.0], "float32"))])
with wb.open(":memory:") as board:
    for expected in ("miss", "memory"):
        y, _, hit = evaluate_op_v2(system, "take", (0,), op_kwargs={"indices": jnp.asarray([2, 0])}, cache=board)
        assert (y.tolist(), str(y.dtype), hit) == ([3.0, 1.0], "float32", expected)
"""


@pytest.mark.peers
def test_arrays_of_jax_are_parameters_and_thetas() -> None:
    """JAX's arrays are taken as NumPy's: as a parameter, and as what a node has. In a process that nobody forks."""
    if find_spec("jax") is None:
        pytest.skip("JAX is not installed: scripts/test --peers installs it")
    assert subprocess.run([sys.executable, "-W", "error", "-c", WITH_JAX], check=False).returncode == 0


def note(got: list[Any], result: wb.OpResult) -> None:
    """Remember the id of a job."""
    got.append(result.job_id)


def test_job_ids_reach_the_sink(cache: wb.Board) -> None:
    """The ids that the caller gives come back in results, foreign or not; without any they are the specs' numbers."""
    specs = [("mul", (0, 1), 2, None, None), ("sum", (0,), 2, None, None), ("mul", (1, 2), 0, None, None)]
    for system in (objects(), ours(cache)):
        got: list[Any] = []
        sink = wb.CallbackSink(partial(note, got))
        push_impulses_from_ops_batched(system, specs, cache=cache, result_sink=sink, job_ids=["a", ("b", 1), 7])
        push_impulses_from_ops_batched(system, specs, cache=cache, result_sink=sink)
        push_impulses_from_op_v2(system, "mul", (0, 1), 2, cache=cache, result_sink=sink, job_id="lone")
        assert got == ["a", ("b", 1), 7, 0, 1, 2, "lone"]


def test_negative_ids_are_ids_where_the_nodes_are_a_dict(cache: wb.Board) -> None:
    """A dict says what its ids are; a list would count from the end."""
    foreign = Foreign({-1: SimpleNamespace(theta=A), 1: SimpleNamespace(theta=B)})
    assert push_impulses_from_op_v2(foreign, "mul", (-1, 1), 1, cache=cache).tolist() == (A * B).tolist()


class Misuse(NamedTuple):
    """What is asked for beside a good call, and the error that it must be."""

    change: dict[str, Any]
    error: type[WhiteboardError]
    says: str


MISUSES = {
    "-1": Misuse({"src_ids": (0, -1)}, UnknownNodeError, "job 0, slot 1: no node -1: the nodes are a list, whose ids"),
    "out -1": Misuse(
        {"out_id": -1, "weight": "inv_length"}, UnknownNodeError, "no node -1: the nodes are a list, whose ids"
    ),
    "no attribute": Misuse({"read": "lift"}, UnknownNodeError, "slot 0: node 0 has no lift"),
    "no attribute of a pair": Misuse({"src_ids": ((0, "lift"), 1)}, UnknownNodeError, "slot 0: node 0 has no lift"),
    "read nothing": Misuse({"read": lambda node: None}, UnknownNodeError, "slot 0: node 0 has no value"),
    "read text": Misuse({"read": lambda node: "a"}, DtypeError, "slot 0: value of node 0: non-numeric dtype <U1"),
    "read 3": Misuse({"read": 3}, ParamError, "read: expected an attribute's name or a function of the node, got 3"),
    "a number": Misuse({"src_ids": 3}, ParamError, "job 0: src_ids: expected a sequence of ids, or of .*, got 3"),
    "a text": Misuse({"src_ids": "ab"}, ParamError, "src_ids: expected a sequence of ids"),
    "a bare pair": Misuse({"src_ids": (0, "ctrl")}, ParamError, "expected an id, or .id, attribute., got 'ctrl'"),
    "a triple": Misuse({"src_ids": ((0, 1, 2),)}, ParamError, r"expected an id, or .id, attribute., got \(0, 1, 2\)"),
    "a float id": Misuse({"src_ids": (0, 1.5)}, DtypeError, "expected integer ids"),
    "mixed dtypes": Misuse(
        {"src_ids": (0, (1, "single"))}, DtypeError, "job 0: .*slot 1: .*float64 .*, got float32; promote='float64'"
    ),
    "promote": Misuse({"promote": "float32"}, ParamError, "promote: expected None or 'float64', got 'float32'"),
    "promote text": Misuse({"promote": "float64", "read": "name"}, DtypeError, "name of node 0: non-numeric dtype"),
    "op_args": Misuse({"op_args": 3}, ParamError, "job 0: op_args: expected a tuple, or None, got 3"),
    "op_kwargs": Misuse({"op_kwargs": [1]}, ParamError, r"job 0: op_kwargs: expected a mapping of names, .*got \[1\]"),
    "stack": Misuse({"stack": True}, ParamError, "job 0: .*stack: expected an op of one source, this one takes 2"),
    "stack of shapes": Misuse(
        {"op_name": "sum", "stack": True, "src_ids": (0, (1, "p"))}, ShapeError, r"slot 1: expected shape \(3,\) as in"
    ),
    "refused": Misuse(
        {"op_name": "sum_k", "names": NAMES}, UnknownOpError, "foreign op 'sum_k' has no equal here: there the total"
    ),
    "no name": Misuse(
        {"op_name": "mul", "names": NAMES},
        UnknownOpError,
        "'mul' is not in the table of names .it has rows, times, tot",
    ),
    "set by the table": Misuse(
        {"op_name": "rows", "names": NAMES, "op_kwargs": {"axis": 1}}, ParamError, "'axis' is set by the table of names"
    ),
    "identity of a name": Misuse({"identity": "law 1"}, ParamError, "expected a name, a function, or .function, id"),
    "no identity": Misuse({"op_name": cubed, "identity": ""}, ParamError, "identity: expected a text that changes"),
    "no function": Misuse({"op_name": (3, "law 1")}, ParamError, "op: expected a name, a function, or .function, id"),
    "a built-in": Misuse({"op_name": len, "identity": "1"}, ParamError, "expected a function written in Python"),
    "no op": Misuse({"op_name": 3}, ParamError, "op: expected the name of an op, or a function, got 3"),
    "coincident": Misuse(
        {"out_id": 1, "weight": "inv_length"},
        NonFiniteError,
        "slot 1: weight 'inv_length': nodes 1 and 1 lie at one po",
    ),
    "nan position": Misuse(
        {"out_id": 3, "weight": "inv_length"},
        NonFiniteError,
        "impulse on node 0 .* its weight to node 3 is nan, at a sc",
    ),
    "text position": Misuse(
        {"out_id": 4, "weight": "inv_length"}, DtypeError, "position p of node 4: expected numbers, got 'here'"
    ),
    "weight of text": Misuse(
        {"weight": lambda source, out: "a"}, ParamError, "slot 0: weight of node 0 to 2: expected a"
    ),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
def test_a_misuse_is_named_and_pushes_nothing(misuse: Misuse, cache: wb.Board) -> None:
    """Each says op and job, and what was wrong, without a warning before; nothing is pushed."""
    foreign = objects(single=A.astype("f4"), name="a")
    foreign.nodes += [SimpleNamespace(theta=A, p=[np.nan, 0.0]), SimpleNamespace(theta=A, p="here")]
    good: dict[str, Any] = {"op_name": "mul", "src_ids": (0, 1), "out_id": 2, "residual": 1.0}
    with pytest.raises(misuse.error, match=misuse.says):
        push_impulses_from_op_v2(foreign, cache=cache, **(good | misuse.change))
    assert foreign.pushed == []


OURS = {
    "read": Misuse(
        {"read": lambda node: node.theta}, ParamError, "system 's': read: the nodes of a System are read by"
    ),
    "promote": Misuse({"promote": "float64"}, ParamError, "system 's': promote: its nodes have the dtypes"),
    "push": Misuse({"push": print}, ParamError, "system 's': push: it takes its impulses itself"),
    "attribute": Misuse({"src_ids": (0, (1, "lift"))}, UnknownNodeError, "slot 1: node 1 has no 'lift'"),
    "name": Misuse({"read": "a b"}, ParamError, "attr: expected an attribute's name, or one a slot, got .*'a b'"),
}


@pytest.mark.parametrize("misuse", OURS.values(), ids=OURS)
def test_what_is_not_asked_of_a_system_of_ours(misuse: Misuse, cache: wb.Board) -> None:
    """A System reads by name, keeps its dtypes and takes its impulses itself; nothing waits after an error."""
    system = ours(cache)
    good: dict[str, Any] = {"src_ids": (0, 1), "out_id": 2, "residual": 1.0}
    with pytest.raises(misuse.error, match=misuse.says):
        push_impulses_from_op_v2(system, "mul", **(good | misuse.change))
    assert system.waiting == 0


def test_other_misuses(cache: wb.Board) -> None:
    """What is no argument of one call: ids of jobs, a residual too early, a system that takes no impulses, tables."""
    foreign = objects()
    spec = ("mul", (0, 1), 2, None, None, 1.0)
    nodes_only = SimpleNamespace(nodes=foreign.nodes)
    cases: list[tuple[Any, type[Exception], str]] = [
        (
            lambda: push_impulses_from_ops_batched(foreign, [spec], job_ids=[1, 2]),
            ShapeError,
            "job_ids: expected 1, one",
        ),
        (lambda: evaluate_ops_batched(foreign, [spec]), ParamError, "spec 0: an evaluation takes no residual"),
        (
            lambda: push_impulses_from_ops_batched(nodes_only, [spec]),
            ParamError,
            "SimpleNamespace has no method impulse",
        ),
        (lambda: evaluate_op_v2(nodes_only, "mul", (0, 1)).push(1.0), ParamError, "has no method impulse"),
        (lambda: evaluate_op_v2(foreign, "mul", (0, 1)).push([1.0, 2.0]), ShapeError, "job 0: residual: expected"),
        (
            lambda: wb.Ops.call(foreign, "mul", (0, 1), 9, residual=1.0, write_out=True),
            UnknownNodeError,
            "out_id: no no",
        ),
        (
            lambda: wb.Ops.call(foreign, "mul", (0, 1), -1, residual=1.0, write_out=True),
            UnknownNodeError,
            "count from 0",
        ),
        (
            lambda: wb.Ops.call(foreign, "mul", (0, 1), 2, read=lambda node: node.theta, write_out=True),
            ParamError,
            "write_out: expected read to be the attribute that y becomes",
        ),
        (lambda: ForeignNames({"a": "no op"}), UnknownOpError, "no op"),
        (lambda: ForeignNames({"a": "mul"}, {"a": "no"}), ParamError, "'a' has a meaning and is refused"),
        (lambda: ForeignNames({"a": Meaning("mul", {"x": 1})}), ParamError, "'a': unknown parameter 'x' of op 'mul'"),
    ]
    for use, error, says in cases:
        with pytest.raises(error, match=says):
            use()
    assert foreign.pushed == []


def test_an_evaluation_of_nodes_alone(cache: wb.Board) -> None:
    """What has nodes can be evaluated, and pushed by a hook."""
    got: list[Any] = []
    evaluation = evaluate_op_v2(SimpleNamespace(nodes=objects().nodes), "mul", (0, 1), cache=cache)
    evaluation.push(1.0, push=lambda *job: got.append(job))
    assert [(sources, out, name) for sources, out, name, _ in got] == [((0, 1), None, "mul")]


@pytest.mark.usefixtures("builtin_ops_only")
def test_what_came_from_a_foreign_system_is_computed_again(tmp_path: Path) -> None:
    """An audit checks its packages, those of stacks and of cotangents too, where their sources are kept."""

    def product(a: Any, b: Any) -> Any:
        return (a * b).sum(), (b, a)

    def total(stack: Any) -> Any:
        return stack.sum(0)

    wb.op(gradient="returned", keep_sources=True, identity="product")(product)
    wb.op(vjp=lambda c, y, x: np.broadcast_to(c, x.shape) * 1.0, keep_sources=True, identity="total")(total)
    sys, names = objects(), ForeignNames({"product": "product", "all": Meaning("total", stack=True)})
    with wb.open(tmp_path / "a.db") as board:
        push_impulses_from_op_v2(sys, "product", (0, (1, "ctrl")), 2, residual=0.5, cache=board, names=names)
        push_impulses_from_op_v2(sys, "all", (0, 1, 0), 2, residual=A, cache=board, names=names)
    with wb.open(tmp_path / "a.db") as board:
        report = board.audit()
        assert {name: (each.sampled, each.checked, each.kept) for name, each in report.ops.items()} == {
            "product": (1, 1, 1),
            "total": (2, 2, 2),
        }
        assert not report.differences
        assert not report.unchecked
