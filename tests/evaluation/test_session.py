"""Sessions: one forward, one backward, and every mistake of an op named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whiteboard import ops
from whiteboard.errors import ClosedError, DtypeError, SecondBackwardError, ShapeError, WhiteboardError
from whiteboard.evaluation.session import Session, alone
from whiteboard.ops.spec import OpSpec
from whiteboard.types import FLOATS

BUILTIN = [name for name in ops.names() if not ops.get(name).user]


def broadcast(op: str, shapes: tuple[tuple[int, ...], ...], params: Any) -> tuple[int, ...]:
    """Return the broadcast shape."""
    return np.broadcast_shapes(*shapes)


def product(xs: Any, out: Any) -> Any:
    """Multiply two sources."""
    return np.multiply(xs[0], xs[1], out=out), xs


def product_vjp(saved: Any, cotangent: Any, need: Any) -> Any:
    """Return the plain formula: the session sums back what was broadcast."""
    return cotangent * saved[1], cotangent * saved[0]


MUL = OpSpec("times", 2, "elementwise", product, product_vjp, broadcast)
LOOP = OpSpec("times_loop", 2, "elementwise", product, product_vjp, broadcast, batch="loop")


def both(spec: OpSpec, *xs: np.ndarray) -> list[np.ndarray]:
    """Return y and the gradients of one session."""
    with Session(spec, {}, xs) as session:
        return [session.forward(), *session.backward()]


def test_a_second_forward_or_backward_raises() -> None:
    """A session takes one forward and one backward; a second of either is an error that names the op."""
    with Session(MUL, {}, [np.ones((2, 3)), np.ones((2, 3))]) as session:
        session.forward()
        with pytest.raises(SecondBackwardError, match="times"):
            session.forward()
        session.backward()
        with pytest.raises(SecondBackwardError, match="exactly one backward"):
            session.backward()


def test_a_session_is_wiped_at_its_end() -> None:
    """After the block nothing can be asked of a session, also when the block failed."""
    session = Session(MUL, {}, [np.ones((1, 1))] * 2)

    def fails() -> None:
        with session:
            session.forward()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with pytest.raises(ClosedError, match="wiped"):
        session.backward()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40), st.sampled_from([((3,), (2, 3)), ((), (4,)), ((2, 1), (1, 5)), ((0,), (2, 0)), ((1,), (7,))])
)
def test_broadcast_gradients_sum_back_with_the_bits_of_a_lone_job(n: int, shapes: Any) -> None:
    """A gradient has its source's shape, the right value, and the same bits alone, in a bin, and in a loop op."""
    rng = np.random.default_rng(n)
    xs = [rng.normal(size=(n, *shape)) for shape in shapes]
    whole = both(MUL, *xs)
    looped = both(LOOP, *xs)
    for i in range(n):
        alone = both(MUL, *(x[i : i + 1].copy() for x in xs))
        for batched, single, loop in zip(whole, alone, looped, strict=True):
            assert batched[i].tobytes() == single[0].tobytes() == loop[i].tobytes()
    full = np.broadcast_shapes(*shapes)
    for slot, other in ((0, 1), (1, 0)):
        ones = np.broadcast_to(xs[other][0], full)
        axes = tuple(range(len(full) - len(shapes[slot])))
        expected = ones.sum(axes)
        kept = tuple(i for i, size in enumerate(shapes[slot]) if size == 1 and expected.shape[i] != 1)
        np.testing.assert_allclose(whole[1 + slot][0], expected.sum(kept, keepdims=True), rtol=1e-12)


def test_what_leaves_is_owned() -> None:
    """Results share no memory with the sources or with each other, even where the VJP returns its inputs."""
    spec = OpSpec("same", 1, "elementwise", lambda xs, out: (xs[0], None), lambda s, c, n: (c,), broadcast)
    x = np.ones((2, 3))
    y, grad = both(spec, x)
    assert y.tolist() == x.tolist()
    assert not any(np.shares_memory(a, b) for a, b in ((x, y), (x, grad), (y, grad)))
    assert y.flags.writeable


def test_sources_cannot_be_written() -> None:
    """An op that writes into its inputs fails loudly."""

    def writes(xs: Any, out: Any) -> Any:
        xs[0][:] = 0
        return xs[0], None

    with pytest.raises(ValueError, match="read-only"):
        both(OpSpec("writes", 1, "elementwise", writes, product_vjp, broadcast), np.ones((1, 1)))


WRONG: dict[str, tuple[Any, Any, type[WhiteboardError], str]] = {
    "y shape": (lambda xs, out: (np.ones(5), None), None, ShapeError, r"forward: expected shape \(2, 3\), got \(5,\)"),
    "y dtype": (lambda xs, out: (np.ones((2, 3), "f4"), None), None, DtypeError, "expected dtype float64, got float32"),
    "y none": (lambda xs, out: (None, None), None, ShapeError, "forward: expected an array, got NoneType"),
    "y masked": (
        lambda xs, out: (np.ma.masked_array(xs[0]), None),
        None,
        DtypeError,
        "forward: a masked array is refused",
    ),
    "grad masked": (
        None,
        lambda s, c, n: (np.ma.masked_array(c),),
        DtypeError,
        "vjp, slot 0: a masked array is refused",
    ),
    "grad count": (None, lambda s, c, n: (c, c), ShapeError, "vjp: expected 1 gradients, got 2"),
    "grad shape": (None, lambda s, c, n: (np.ones((2, 4)),), ShapeError, "vjp, slot 0"),
    "grad dtype": (None, lambda s, c, n: (c.astype("f4"),), DtypeError, "vjp, slot 0: expected dtype float64"),
    "grad none": (None, lambda s, c, n: (None,), ShapeError, "vjp, slot 0: expected an array, got NoneType"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_an_op_that_returns_the_wrong_thing_is_named(case: tuple[Any, Any, type[WhiteboardError], str]) -> None:
    """A wrong shape, dtype or number from forward or VJP names op, place, expected and got."""
    forward, vjp, error, says = case
    spec = OpSpec(
        "wrong", 1, "general", forward or (lambda xs, out: (xs[0], None)), vjp or (lambda s, c, n: (c,)),
        lambda op, shapes, params: shapes[0],
    )  # fmt: skip
    with pytest.raises(error, match=says) as caught:
        both(spec, np.ones((2, 3)))
    assert "op 'wrong'" in str(caught.value)


@pytest.mark.parametrize("ends", [(), (0,), (1, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("bad", [(), (2,), (0, 1), (3, 4)])
def test_a_run_in_parts_is_the_run(ends: tuple[int, ...], bad: tuple[int, ...]) -> None:
    """Wherever it is handed over, the parts are the whole, each in its own memory, without those that have failed."""

    def forward(xs: Any, out: Any) -> Any:
        if xs[0][0] in bad:
            raise ZeroDivisionError
        return xs[0] * 2, None

    spec = OpSpec("parts", 1, "general", forward, lambda s, c, n: (c * 2,), lambda *_: None, batch="loop")
    x = np.arange(5.0)[:, None] * np.ones(3)
    job = iter(range(5))
    failed: dict[int, Exception] = {}
    found = {}
    with Session(spec, {}, [x]) as session:
        for rows, results in session.parts(None, failed, lambda: next(job) in ends):
            for each in results:
                assert len(each) == rows.stop - rows.start
                assert each.base is None
            found.update({row: [each[row - rows.start] for each in results] for row in range(5)[rows] if results})
    assert sorted(failed) == list(bad)
    for row in set(range(5)) - set(bad):
        assert [each.tolist() for each in found[row]] == [[2.0 * row] * 3, [2.0] * 3]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", BUILTIN)
def test_one_job_alone_is_a_session_of_one(name: str, dtype: Any) -> None:
    """Of all examples of all ops the same bits, in memory of their own, or nothing where a session has to answer."""
    spec = ops.get(name)
    rng = np.random.default_rng(0)
    answered = 0
    for example in spec.examples:
        params = spec.bind(example.params)
        sources = [rng.uniform(*example.domain, size=shape).astype(dtype) for shape in example.shapes]
        for source in sources[:1]:
            source[source > 1.5] = np.nan
        shape = spec.shape(name, example.shapes, params)
        with np.errstate(all="ignore"), Session(spec, params, [each[None] for each in sources], shape) as session:
            want = session.run()
            found = alone(spec, params, sources, shape)
        if found is None:
            assert spec.kind == "elementwise"
            assert {source.shape for source in sources} != {shape}
            continue
        answered += 1
        assert [(each.shape, each.dtype, each.tobytes()) for each in found] == [
            (each.shape, each.dtype, each.tobytes()) for each in want
        ]
        assert all(each.base is None for each in found)
        assert not any(np.shares_memory(each, source) for each in found for source in sources)
    assert answered


@pytest.mark.parametrize("change", [{"user": True}, {"batch": "loop"}, {"gradient": "none"}], ids=str)
def test_what_is_to_be_looked_at_is_for_a_session(change: Any) -> None:
    """A user's op, one that is called job by job, one without gradients, and what gives another shape than it said."""
    x = np.ones(3)
    assert alone(MUL, {}, [x, x], (3,)) is not None
    assert alone(replace(MUL, **change), {}, [x, x], (3,)) is None
    assert alone(MUL, {}, [x, x], None) is None
    assert alone(replace(MUL, kind="general"), {}, [x, np.ones(1)], (3,)) is None
    assert alone(replace(MUL, forward=lambda xs, out: (xs[0][:, :2], xs)), {}, [x, x], (3,)) is None
