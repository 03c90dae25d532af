"""Execution: bins in, what came of them out, as it comes. Here they are computed by the thread that asks."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from whiteboard.errors import WhiteboardError
from whiteboard.evaluation import contents
from whiteboard.evaluation.buffers import BufferPool
from whiteboard.evaluation.costs import BIN_NS
from whiteboard.evaluation.flights import computing
from whiteboard.evaluation.promises import Promises
from whiteboard.evaluation.results import Columns
from whiteboard.evaluation.session import Session
from whiteboard.evaluation.sources import Sources
from whiteboard.ops.spec import OpSpec
from whiteboard.types import Array, Ids, Shape


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What n jobs of one signature ask for.

    Parameters
    ----------
    spec : OpSpec
        As it is at this signature.
    params : dict
        Its full parameters.
    shape : tuple of int or None
        y's of one job; None where only a run tells.
    sources : Sources
    cotangent : ndarray, (n, *y_shape), or None
        What the gradients are VJPs of; None for ones.
    """

    spec: OpSpec
    params: dict[str, Any]
    shape: Shape | None
    sources: Sources
    cotangent: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What came of a bin, or of a part of it.

    Parameters
    ----------
    bin : ndarray of int64
        The bin, the very array that was cut.
    rows : ndarray of int64
        The jobs that were computed.
    arrays : tuple of ndarray
        y and what lies beside it in a package, a row each of `rows`, in memory of their own; () where there is none.
    cost_ns : int
        Time that all jobs of the bin took, in nanoseconds.
    failed : dict of int to Exception
        What the others raised, by job.
    """

    bin: Ids
    rows: Ids
    arrays: tuple[Array, ...]
    cost_ns: int
    failed: dict[int, Exception] = field(default_factory=dict)


class Execution(Protocol):
    """Whatever computes bins."""

    def most(self, spec: OpSpec, left: int) -> int:
        """Return how many of the jobs that are left a bin may have; of ops of ``tolerance`` all of them."""
        ...

    def outcomes(self, task: Task, cut: Iterator[Ids]) -> Generator[Outcome, None, None]:
        """Yield what came of each bin, in whatever order they are done.

        `cut` is asked for the next bin when there is room for one, and knows then of all that was yielded before. Each
        job of a bin is in one outcome.
        """
        ...


class InThread:
    """Bins computed one after another by the thread that asks."""

    def __init__(self, pool: BufferPool, promises: Promises) -> None:
        self._pool, self._promises = pool, promises

    def most(self, spec: OpSpec, left: int) -> int:  # noqa: ARG002 - the Protocol's
        return left

    def outcomes(self, task: Task, cut: Iterator[Ids]) -> Generator[Outcome, None, None]:
        columns = _columns(task)
        for rows in cut:
            for part in self._parts(task, rows, columns):
                yield replace(part, bin=rows)

    def _parts(self, task: Task, rows: Ids, columns: Columns | None) -> Iterator[Outcome]:
        """Yield what came of a bin: of a user's function that takes a bin at once, and raises, of its halves.

        So it is asked again, down to the jobs that it raises for.
        """
        start = time.perf_counter_ns()
        try:
            yield from self._session(task, rows, columns)
        except WhiteboardError as error:
            error.row = None if error.row is None else int(rows[error.row])
            raise
        except Exception as error:
            if not task.spec.user or task.spec.batch == "loop":
                raise
            if len(rows) == 1:
                yield Outcome(rows, rows[:0], (), time.perf_counter_ns() - start, {int(rows[0]): error})
                return
            for half in np.array_split(rows, 2):
                yield from self._parts(task, half, columns)

    def _session(self, task: Task, rows: Ids, columns: Columns | None) -> Iterator[Outcome]:
        """Run one session over a bin; what is done after `BIN_NS` is handed over, whatever the rest takes."""
        spec = task.spec
        failed: dict[int, Exception] = {}
        given = None if task.cotangent is None else task.cotangent[rows]
        start = time.perf_counter_ns()
        with self._pool.lend() as lend:
            xs = task.sources.gather(rows, lend, share=spec.exactness == "tolerance")
            with Session(spec, task.params, xs, task.shape, None if columns is None else columns.place) as session:
                parts = session.parts(given, failed, lambda: time.perf_counter_ns() - start >= BIN_NS)
                while True:
                    with computing(), np.errstate(all="ignore"):  # non-finite results are results
                        part = next(parts, None)
                        cost = time.perf_counter_ns() - start
                        if part is not None and not failed:
                            self._promises.test(spec, task.params, xs, part[1], given)
                    if part is None:
                        return
                    yield _outcome(rows[part[0]], part[1], cost, failed, part[0].start)
                    failed.clear()
                    start = time.perf_counter_ns()


def _columns(task: Task) -> Columns | None:
    """Return where the results of a task go; a user's function may keep what it was given to write to."""
    if task.spec.user or task.shape is None:
        return None
    shapes = (task.shape, *contents.beside(task.spec.gradient, task.shape, task.sources.shapes))
    return Columns(task.sources.n, shapes, task.sources.dtype)


def _outcome(rows: Ids, arrays: tuple[Array, ...], cost: int, failed: dict[int, Exception], first: int) -> Outcome:
    """Return what came of some rows of a bin, of which others stand before the first."""
    if not failed:
        return Outcome(rows, rows, arrays, cost)
    told = {row - first: error for row, error in failed.items()}
    fine = np.delete(np.arange(len(rows)), list(told))
    return Outcome(rows, rows[fine], tuple(array[fine] for array in arrays), cost, by_job(told, rows))


def by_job(failed: dict[int, Exception], rows: Ids) -> dict[int, Exception]:
    """Return errors by job that were by row of a bin."""
    for row, error in failed.items():
        if isinstance(error, WhiteboardError):
            error.row = int(rows[row])
    return {int(rows[row]): error for row, error in failed.items()}
