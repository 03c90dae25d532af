"""One foreign call at a time answers and pushes as many at once do: the same bits, results and counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import whiteboard as wb
from whiteboard.errors import NonFiniteError, ParamError, ShapeError, UnknownNodeError, UnknownOpError
from whiteboard.evaluation.pipeline import Pipeline
from whiteboard.integration.bridge_v2 import push_impulses_from_op_v2, push_impulses_from_ops_batched

OPS = {"mul": 2, "tanh": 1, "distance": 2, "sum": 1, "sum_k": 3, "softmax": 1, "vecdot": 2}


class Foreign:
    """A system of nodes of one shape, which remembers its impulses."""

    def __init__(self, seed: int, dtype: Any) -> None:
        rng = np.random.default_rng(seed)
        self.nodes = [SimpleNamespace(theta=rng.normal(size=4).astype(dtype)) for _ in range(4)]
        self.pushed: list[Any] = []

    def impulse(self, src_id: Any, out_id: Any, op_name: str, vector: Any) -> None:
        """Remember an impulse, to the bit."""
        self.pushed.append((src_id, out_id, op_name, vector.dtype, vector.shape, vector.tobytes()))


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, tuple[int, ...], Any]:
    """Return an op, its sources, and a residual that is a number, an array, or none."""
    name = draw(st.sampled_from(sorted(OPS)))
    sources = draw(st.tuples(*[st.integers(0, 3)] * OPS[name]))
    residual = draw(st.sampled_from([None, 0.5, -3.0, 0.0, 1, np.float64(2.0), np.array(1.5)]))
    return name, sources, residual


def told(results: list[Any]) -> list[Any]:
    """Return what a sink got, to the bit."""
    return [
        (each.job_id, each.out_id, each.y.tobytes(), [grad.tobytes() for grad in each.grads], each.hit)
        for each in results
    ]


@given(st.lists(calls(), min_size=1, max_size=5), st.sampled_from([np.float32, np.float64]), st.integers(0, 3))
def test_one_by_one_is_as_many(asked: list[Any], dtype: Any, seed: int) -> None:
    """Asked twice in each way, so that all of the second time are hits."""
    one, many = Foreign(seed, dtype), Foreign(seed, dtype)
    sinks = wb.ListSink(), wb.ListSink()
    with wb.open(":memory:") as first, wb.open(":memory:") as second:
        for _ in range(2):
            for number, (name, sources, residual) in enumerate(asked):
                how: dict[str, Any] = {"scale": 0.25, "result_sink": sinks[0], "job_id": number}
                push_impulses_from_op_v2(one, name, sources, 9, residual=residual, cache=first, **how)
            specs = [(name, sources, 9, None, None, residual) for name, sources, residual in asked]
            push_impulses_from_ops_batched(many, specs, scale=0.25, cache=second, result_sink=sinks[1])
        a, b = first.stats(), second.stats()
    assert one.pushed == many.pushed
    assert told(list(sinks[0]))[len(asked) :] == told(list(sinks[1]))[len(asked) :]
    counts = ("hits_memory", "misses", "puts", "without_residual")
    assert {name: a[name] for name in counts} == {name: b[name] for name in counts}


def test_a_hit_does_not_go_through_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fast is in use, and what is not finite is refused as it always is."""
    sys = Foreign(0, np.float64)
    with wb.open(":memory:") as board:
        push_impulses_from_op_v2(sys, "mul", (0, 1), 2, residual=0.5, cache=board)
        with pytest.raises(NonFiniteError, match="op 'mul', job 0, slot 0: the impulse on node 0 is not finite"):
            push_impulses_from_op_v2(sys, "mul", (0, 1), 2, residual=float("inf"), cache=board)
        monkeypatch.setattr(Pipeline, "evaluate", None)
        push_impulses_from_op_v2(sys, "mul", (0, 1), 2, residual=0.5, cache=board)
    assert sys.pushed[:2] == sys.pushed[2:]


WRONG: dict[str, tuple[tuple[Any, ...], dict[str, Any], type[Exception]]] = {
    "a spec": (("mul", (0, 1), 2), {}, ParamError),
    "job ids": (("mul", (0, 1), 2, (), None, 0.5), {"job_ids": (1, 2)}, ShapeError),
    "a node": (("mul", (0, 4), 2, (), None, 0.5), {}, UnknownNodeError),
    "a node that is counted from the end": (("mul", (0, -1), 2, (), None, 0.5), {}, UnknownNodeError),
    "an op": (("mull", (0, 1), 2, (), None, 0.5), {}, UnknownOpError),
    "a parameter": (("mul", (0, 1), 2, (1.0,), None, 0.5), {}, ParamError),
    "a promise": (("mul", (0, 1), 2, (), None, 0.5), {"promote": "float16"}, ParamError),
    "how to read": (("mul", (0, 1), 2, (), None, 0.5), {"read": 5}, ParamError),
    "a residual": (("mul", (0, 1), 2, (), None, np.ones(5)), {}, ShapeError),
}


@pytest.mark.parametrize(("spec", "how", "error"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_of_a_hit(spec: Any, how: dict[str, Any], error: type[Exception]) -> None:
    """Though the package lies in memory; nothing is pushed."""
    sys = Foreign(0, np.float64)
    with wb.open(":memory:") as board:
        push_impulses_from_op_v2(sys, "mul", (0, 1), 2, residual=None, cache=board)
        with pytest.raises(error):
            push_impulses_from_ops_batched(sys, [spec], cache=board, **how)
    assert sys.pushed == []


def test_who_takes_no_impulses_is_refused_of_a_hit() -> None:
    """A system without a method for them, where there are some."""
    sys = SimpleNamespace(nodes=Foreign(0, np.float64).nodes)
    with wb.open(":memory:") as board:
        for _ in range(2):
            assert push_impulses_from_op_v2(sys, "mul", (0, 1), 2, cache=board).shape == (4,)
            with pytest.raises(ParamError, match="has no method impulse"):
                push_impulses_from_op_v2(sys, "mul", (0, 1), 2, residual=0.5, cache=board)
