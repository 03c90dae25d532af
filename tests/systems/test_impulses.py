"""Impulses: the same bits for one multiset, however it arrived."""

from __future__ import annotations

import itertools
import math
import operator
import threading
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whiteboard.systems.impulses import Impulses, Inbox, Measure, Parcel, fsum, ordered_sum

RNG = np.random.default_rng(7)


def impulses(m: int, rng: np.random.Generator, *, shape: tuple[int, ...] = (3,), nodes: int = 1000) -> Impulses:
    """Return m random impulses of very different sizes onto few nodes, some of them of equal sources and slot."""
    vectors = rng.normal(size=(m, *shape)) * 10.0 ** rng.integers(-8, 8, size=(m,) + (1,) * len(shape))
    src_ids = rng.integers(0, nodes, (m, 2)) * (1, -1)
    return Impulses(0, rng.integers(0, 4, m), b"job", src_ids, rng.integers(0, 2, m), rng.uniform(0.1, 2, m), vectors)


def bits(inbox: Inbox) -> list[Any]:
    """Return everything that an inbox sums up to, as bytes."""
    return [
        (arena, rows.tolist(), sums.vector.tobytes(), sums.weight.tobytes(), sums.count.tolist())
        for arena, (rows, sums) in inbox.sums().items()
    ]


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 1000, 2**62]), st.data())
def test_any_order_and_any_split_give_the_same_bits(m: int, seed: int, nodes: int, data: st.DataObject) -> None:
    """A permutation of the impulses, pushed in any pieces, sums to the same bits."""
    whole = impulses(m, np.random.default_rng(seed), nodes=nodes)
    order = np.array(data.draw(st.permutations(range(m))))
    cuts = sorted(data.draw(st.lists(st.integers(0, m), max_size=5)))
    one, other = Inbox(), Inbox()
    one.push(Parcel.of([whole]))
    for rows in np.split(order, cuts):
        other.push(Parcel.of([whole.take(rows)]))
    assert bits(one) == bits(other)


@pytest.mark.parametrize("far", [1, 2**62])
def test_the_order_is_by_job_then_sources_then_slot(far: int) -> None:
    """Of any number of sources, in words or column by column: no key, code or machine has a part in it."""
    jobs = [(b"a", (7,), 0), *((b"a", (-far, 3), slot) for slot in (0, 1)), (b"a", (far, -9), 0), (b"b", (-far, 0), 1)]
    vectors = RNG.normal(size=5) * 10.0 ** RNG.integers(-3, 3, 5)

    def pushed(at: int) -> Impulses:
        job, ids, slot = jobs[at]
        zero, one = np.zeros(1, np.int64), np.ones(1)
        return Impulses(0, zero, job, np.array([ids]), zero + slot, one, vectors[at : at + 1])

    # One after another: Python's own sum of floats is exact since 3.12.
    in_order = reduce(operator.add, vectors.tolist())
    for order in itertools.permutations(range(5)):
        (_, sums) = ordered_sum([pushed(at) for at in order])
        assert sums.vector.tolist() == [in_order]
    orders = map(list, itertools.permutations(range(5)))
    assert len({reduce(operator.add, vectors[order].tolist()) for order in orders}) > 1


def test_threads_push_the_same_bits() -> None:
    """Eight threads that push pieces at once give the bits of one push."""
    whole = impulses(4000, RNG)
    one, other = Inbox(), Inbox()
    one.push(Parcel.of([whole]))

    def push(first: int) -> None:
        for row in range(first, 4000, 8):
            other.push(Parcel.of([whole.take(np.array([row]))]))

    threads = [threading.Thread(target=push, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bits(one) == bits(other)
    assert len(other) == 4000


def test_sums_are_right_and_by_arena() -> None:
    """Each node's sum is that of its impulses, in each arena apart, for scalars and matrices too."""
    for shape in ((), (2, 2)):
        whole = impulses(50, RNG, shape=shape)
        rows, sums = ordered_sum([whole])
        assert rows.tolist() == sorted(set(whole.rows.tolist()))
        for i, row in enumerate(rows):
            mine = whole.rows == row
            np.testing.assert_allclose(sums.vector[i], whole.vectors[mine].sum(0), rtol=1e-9, atol=1e-3)
            assert sums.weight[i] == pytest.approx(whole.weights[mine].sum())
            assert sums.count[i] == mine.sum()


def test_a_repeated_impulse_counts_twice() -> None:
    """Impulses are a multiset: the same one pushed twice is summed twice."""
    one = impulses(5, RNG).take(np.array([0]))
    inbox = Inbox()
    inbox.push(parcel := Parcel.of([one, one]))
    (_, sums) = inbox.sums()[0]
    assert sums.vector.tobytes() == (one.vectors + one.vectors).tobytes()
    assert (len(inbox), inbox.holds(parcel), inbox.holds(Parcel.of([one, one])), parcel.consumed) == (
        2,
        True,
        False,
        False,
    )
    inbox.consume()
    assert parcel.consumed


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=30), st.randoms())
def test_fsum_knows_no_order(values: list[float], random: Any) -> None:
    """The sum of measures is exactly rounded: the same for any order and split."""
    shuffled = values.copy()
    random.shuffle(shuffled)
    half = len(values) // 2
    assert fsum([np.array(values)]) == fsum([np.array(shuffled[:half]), np.array(shuffled[half:])])


def test_measures_without_a_number_stay_without() -> None:
    """Stress is None where a target was zero; what overflows or is undefined is said to be so."""
    inbox = Inbox()
    assert (len(inbox), inbox.sums(), inbox.stress(), inbox.residual_norm()) == (0, {}, None, None)
    inbox.push(Parcel.of([], [Measure(np.array([1.0, 3.0]), np.array([4.0, 5.0]))]))
    assert (inbox.stress(), inbox.residual_norm()) == (4.0, 3.0)
    inbox.push(Parcel.of([], [Measure(None, np.array([7.0]))]))
    assert (inbox.stress(), inbox.residual_norm()) == (None, 4.0)
    assert fsum([np.array([1e308, 1e308])]) == math.inf
    assert math.isnan(fsum([np.array([math.nan, 1.0])]))
