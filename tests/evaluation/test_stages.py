"""The small stages: bins, triage, separate, pool and queue."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whiteboard.errors import ClosedError
from whiteboard.evaluation import bins, separate
from whiteboard.evaluation.buffers import BufferPool
from whiteboard.evaluation.queue import JobQueue, Ticket
from whiteboard.evaluation.triage import Form, compute_all, triage
from whiteboard.records.packages import Found, Page
from whiteboard.storage.base import PackageStore

F8 = np.dtype(np.float64)


def page(values: Sequence[float]) -> Page:
    """Return a page of scalar packages with these values."""
    return Page("op", np.zeros((len(values), 16), np.uint8), {"y": np.array(values, np.float64)})


class Shelf(PackageStore):
    """A store that knows keys by their first byte."""

    def __init__(self, known: dict[bytes, float]) -> None:
        self.known = known
        self.rejected: list[Page] = []

    def reject(self, page: Page) -> None:
        """Hear of a page that is not what it should be."""
        self.rejected.append(page)

    def put(self, page: Page) -> None:
        """Take nothing."""

    def flush(self) -> None:
        """Have nothing to write."""

    def close(self) -> None:
        """Have nothing to close."""

    def stats(self) -> dict[str, float]:
        """Count nothing."""
        return {}

    def find(self, keys: Sequence[bytes]) -> Found:
        """Find what is known, all in one page."""
        names = list(self.known)
        slot = np.array([names.index(k) if k in self.known else -1 for k in keys], np.int64)
        hit = slot >= 0
        return Found(
            [page(list(self.known.values()))], np.where(hit, 0, -1), slot, np.where(hit, 2, 0).astype(np.uint8)
        )


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=2), max_size=20))
def test_signatures_part_the_jobs(arenas: list[list[int]]) -> None:
    """Every job is in one group, groups are uniform, and come in order of first appearance."""
    groups = bins.by_signature(np.array(arenas, np.int64).reshape(-1, 2))
    assert sorted(i for group in groups for i in group.tolist()) == list(range(len(arenas)))
    seen = [[arenas[i] for i in group.tolist()] for group in groups if len(group)]
    assert all(row == rows[0] for rows in seen for row in rows)
    assert [rows[0] for rows in seen] == list(map(list, dict.fromkeys(map(tuple, arenas))))


@given(st.integers(0, 50), st.integers(0, 100), st.integers(1, 300), st.integers(1, 20))
def test_bins_hold_their_bounds(n: int, size: int, max_bytes: int, max_jobs: int) -> None:
    """Bins cover the positions in order, hold both bounds, and are never empty."""
    cut = list(bins.cut(np.arange(n), size, max_bytes, max_jobs))
    assert [i for part in cut for i in part.tolist()] == list(range(n))
    assert all(1 <= len(part) <= max_jobs and (len(part) == 1 or len(part) * size <= max_bytes) for part in cut)


def test_job_bytes_counts_value_and_gradients() -> None:
    """A job's package is y and one gradient a source."""
    assert bins.job_bytes((), ((2,), (2,)), 8) == 40


def test_triage_computes_each_missing_key_once() -> None:
    """Repeated misses share one computation, and count as hits in memory; hits keep their tier."""
    plan = triage(Shelf({b"a": 1.0}), [b"b", b"a", b"b", b"c", b"b"], lambda: Form("op", F8, (), ()))
    assert plan.todo.tolist() == [0, 3]
    plan.place(plan.todo, page([2.0, 3.0]))
    plan.settle()
    assert plan.hit.tolist() == [0, 2, 1, 0, 1]
    assert separate.columns({"y": ()}, plan.pages, plan.page, plan.slot, F8)[0].tolist() == [2.0, 1.0, 2.0, 3.0, 2.0]


@pytest.mark.parametrize("form", [Form("other", F8, (), ()), Form("op", F8, (2,), ()), Form("op", F8, (), ((),))])
def test_a_page_that_the_op_does_not_make_is_no_hit(form: Form) -> None:
    """Its jobs are misses, and the store hears of it."""
    shelf = Shelf({b"a": 1.0})
    plan = triage(shelf, [b"b", b"a"], lambda: form)
    assert (plan.todo.tolist(), plan.hit.tolist(), plan.pages) == ([0, 1], [0, 0], [])
    assert len(shelf.rejected) == 1


def test_a_page_is_looked_at_whatever_is_known_of_others() -> None:
    """One that is told to be of the kind of the last that fitted does too; of another kind, or of none, it is asked."""
    form = Form("op", F8, (), ())
    fit, other = (
        replace(page([1.0]), kind=object()),
        replace(page([1.0]), arrays={"y": np.zeros((1, 2))}, kind=object()),
    )
    for _ in range(2):
        assert form.fits(fit)
        assert not form.fits(other)
        assert not form.fits(replace(other, kind=None))
        assert not form.fits(replace(other, op="other", arrays=fit.arrays))
        assert form.fits(replace(fit, kind=None))


def test_what_cannot_be_cached_is_computed_job_by_job() -> None:
    """Without keys every job is a miss of its own."""
    plan = compute_all(3)
    plan.place(plan.todo, page([1.0, 2.0, 3.0]))
    plan.settle()
    assert (plan.hit.tolist(), plan.slot.tolist()) == ([0, 0, 0], [0, 1, 2])


@given(st.lists(st.integers(0, 3), max_size=30), st.randoms())
def test_columns_come_back_in_the_order_of_the_jobs(numbers: list[int], random: Any) -> None:
    """Packages scattered over pages come back each to its job, read-only and owned."""
    pages = [page([10.0 * number + slot for slot in range(5)]) for number in range(4)]
    slots = [random.randrange(5) for _ in numbers]
    got = separate.columns({"y": ()}, pages, np.array(numbers, np.int64), np.array(slots, np.int64), F8)[0]
    assert got.tolist() == [10.0 * number + slot for number, slot in zip(numbers, slots, strict=True)]
    assert not got.flags.writeable
    assert got.base is None


def test_a_buffer_comes_back_poisoned_and_is_used_again() -> None:
    """What was lent is filled with NaN when it returns, also after an error, and lent again."""
    pool = BufferPool(poison=True)
    lent = []

    def fails() -> None:
        with pool.lend() as lend:
            lent.append(lend((2, 3), F8))
            lent[0][:] = 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    (kept,) = lent
    assert np.isnan(kept).all()
    assert pool.idle_bytes == 48
    with pool.lend() as lend:
        assert np.shares_memory(lend((6,), F8), kept)
        assert not np.shares_memory(lend((6,), F8), kept)
    assert pool.idle_bytes == 96


def test_the_pool_keeps_no_more_than_its_bound() -> None:
    """Idle buffers beyond the bound are let go."""
    pool = BufferPool(100)
    with pool.lend() as lend:
        for _ in range(4):
            lend((5,), F8)
    assert pool.idle_bytes == 80


def test_threads_never_share_a_buffer() -> None:
    """Buffers lent at the same time are different ones, whatever the thread."""
    pool, wrong = BufferPool(), []

    def work(mark: float) -> None:
        for _ in range(200):
            with pool.lend() as lend:
                buffer = lend((64,), F8)
                buffer[:] = mark
                if not (buffer == mark).all():
                    wrong.append(mark)

    threads = [threading.Thread(target=work, args=(float(i),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_queue_is_first_in_first_out_and_leaves_out_what_was_cancelled() -> None:
    """What is run comes in order, without cancelled futures; closing the queue ends the rest, and takes no more."""
    queue: JobQueue[str, int] = JobQueue()
    futures: list[Future[int]] = [queue.submit(item) for item in "abc"]
    futures[1].cancel()
    ran: list[str] = []

    def run(tickets: Sequence[Ticket[str, int]]) -> None:
        for ticket in tickets:
            ran.append(ticket.item)
            ticket.future.set_result(len(ran))

    assert (queue.drain(run), queue.drain(run), len(queue)) == (2, 0, 0)
    assert (ran, [futures[0].result(), futures[2].result()]) == (["a", "c"], [1, 2])
    last = queue.submit("d")
    queue.close()
    assert (last.cancelled(), len(queue)) == (True, 0)
    with pytest.raises(ClosedError):
        queue.submit("e")


def test_what_an_interrupt_left_in_the_queue_is_run_again_or_ended() -> None:
    """A job whose future was not done stays; the next drain runs it, and a close ends it with an error."""
    queue: JobQueue[str, int] = JobQueue()
    futures: list[Future[int]] = [queue.submit(item) for item in "abc"]

    def interrupted(tickets: Sequence[Ticket[str, int]]) -> None:
        tickets[0].future.set_result(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        queue.drain(interrupted)
    taken: list[str] = []
    assert queue.drain(lambda tickets: taken.extend(ticket.item for ticket in tickets)) == 2
    assert (taken, len(queue)) == (["b", "c"], 2)
    queue.close()
    assert [future.done() for future in futures] == [True] * 3
    with pytest.raises(CancelledError, match="closed before"):
        futures[2].result()
