"""Where results lie: those of a batch one behind the other, and read-only; a user's in no such place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.evaluation import results
from whiteboard.evaluation.results import Columns, copies, place
from whiteboard.memory.room import Region
from whiteboard.types import Array

RNG = np.random.default_rng(0)
WIDTH = 20_000


def region(array: Array) -> Region | None:
    """What an array lies in, where that is memory that is lent."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    owner = base.obj if isinstance(base, memoryview) else base
    return owner if isinstance(owner, Region) else None


def processed(op: str, n: int = 20) -> Sequence[Array]:
    """y and gradients of jobs over nodes that have one source in common, and those of the same jobs again."""
    with wb.open(":memory:") as board:
        system = board.system("s")
        x = RNG.normal(size=(n + 1, WIDTH))
        system.add_nodes(range(n + 1), theta=x)
        jobs = wb.JobBatch(op, np.array([(number, n) for number in range(n)]))
        first, again = system.process(jobs), system.process(jobs)
        alone = board.call(op, x[3], x[n])
        assert alone.hit == "memory"
        for column, same, one in zip(
            (first.y, *first.grads), (again.y, *again.grads), (alone.y, *alone.grads), strict=True
        ):
            assert column.tobytes() == same.tobytes()
            assert column[3].tobytes() == one.tobytes()
        return first.y, *first.grads, again.y


def test_a_column_is_no_copy() -> None:
    """What a batch has computed is what the tier holds, and nobody can write to it."""
    y, g0, g1, again = processed("mul")
    assert region(y) is region(g0) is region(g1) is not None
    assert np.shares_memory(y, again)
    for array in (y, g0, g1, y[3]):
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_what_is_much_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was let go of more than a bound would stay in memory too long."""
    monkeypatch.setattr(results, "_MOST_BYTES", 2**20)
    y, _, _, again = processed("mul")
    assert not np.shares_memory(y, again)


def test_a_function_of_a_users() -> None:
    """It may keep what it was given to write to, so that is no memory that is lent."""
    kept: list[Array] = []

    def double(x: Array, out: Array | None = None) -> Array:
        return x * 2.0

    with wb.open(":memory:") as board:
        many = board.call_many(wb.op(gradient="none", batch="lead_axis")(double), RNG.normal(size=(20, WIDTH)))
        kept.append(many.y)
    assert region(kept[0]) is None


def test_one_call() -> None:
    """Large arrays of one call lie in memory that is cheap to touch, small ones do not."""
    with wb.open(":memory:") as board:
        board.call("mul", np.ones(4), np.ones(4))
        large = board.call("mul", x := RNG.normal(size=WIDTH), x + 1)
        small = board.call("mul", x[:10], x[:10] + 1)
    assert [region(array) is not None for array in (large.y, *large.grads)] == [True] * 3
    assert region(small.y) is None
    assert large.grads[0].tobytes() == (x + 1).tobytes()


@pytest.mark.parametrize(
    ("shapes", "lent"),
    [
        ([(WIDTH,), (WIDTH,)], [True, True]),
        ([(4,), (WIDTH,)], [False, True]),  # who keeps it is not to keep the other
        ([(), (WIDTH,), (100, 200)], [False, True, True]),
        ([(3,), (5,)], [False, False]),
        ([], []),
    ],
)
def test_copies(shapes: Sequence[tuple[int, ...]], lent: Sequence[bool]) -> None:
    """Large arrays lie in memory that is cheap to touch, and what is small beside them in its own."""
    arrays = [RNG.normal(size=shape).astype(dtype) for shape, dtype in zip(shapes, "dfd", strict=False)]
    made = copies([np.asarray(array) for array in arrays])
    assert [region(array) is not None for array in made] == lent
    for array, copy in zip(arrays, made, strict=True):
        assert (array.dtype, array.shape, array.tobytes()) == (copy.dtype, copy.shape, copy.tobytes())
        assert not np.shares_memory(array, copy)
        assert copy.ctypes.data % copy.itemsize == 0


def test_one_call_of_a_batch() -> None:
    """What a call is given of a batch keeps no more of it alive."""
    x = RNG.normal(size=(20, WIDTH))
    with wb.open(":memory:") as board:
        many = board.call_many("mul", x, x + 1)
        one = board.call("mul", x[3], x[3] + 1)
    assert one.hit == "memory"
    for column, array in zip((many.y, *many.grads), (one.y, *one.grads), strict=True):
        assert column[3].tobytes() == array.tobytes()
        assert region(array) is not region(column)
        assert not array.flags.writeable


def test_places() -> None:
    """Bins of any size lie behind one another in each column, and one for which there is no room by itself."""
    columns = Columns(100, [(2000,), (1500, 2)], np.dtype(np.float64))
    made = [
        columns.place(number, (n, *shape)) for n in (30, 70, 1) for number, shape in enumerate([(2000,), (1500, 2)])
    ]
    assert [target.shape for target, _ in made] == [(n, *s) for n in (30, 70, 1) for s in [(2000,), (1500, 2)]]
    for at, (target, result) in enumerate(made):
        target[...] = at
        assert result is target or not result.flags.writeable
    assert all((result == at).all() for at, (_, result) in enumerate(made))
    first, second = made[0].result, made[2].result
    assert second.ctypes.data == first.ctypes.data + first.nbytes
    assert region(made[1].result) is region(first) is not region(made[5].result)
    target, result = place((2, 3), np.dtype(np.float32))
    assert target is result
