"""The side that asks: misses are cut by what their op costs, and go to workers where that pays."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass, replace
from typing import Any, Final

from whiteboard.concurrency import locks
from whiteboard.concurrency.parallel import cores
from whiteboard.errors import BinTimeoutError, ExecutorError, ParamError, WhiteboardError, WorkerWarning, warn
from whiteboard.evaluation.buffers import BufferPool, Lender
from whiteboard.evaluation.costs import Costs
from whiteboard.evaluation.execution import InThread, Outcome, Task, by_job
from whiteboard.evaluation.flights import is_nested
from whiteboard.identity import arithmetic, keys
from whiteboard.ops.spec import OpSpec
from whiteboard.types import Array, Ids
from whiteboard.workers.messages import BinDone, BinJob, Refused
from whiteboard.workers.passing import Passed, passed
from whiteboard.workers.processes import Processes
from whiteboard.workers.worker import compute, home

LEAST_NS: Final = 50_000
"""A job that costs less is computed here: to send one takes some 20 µs, beside what a bin of them takes."""
BYTE_NS: Final = 10
"""And so is one that costs less than this for each byte of its sources."""
BATCH_NS: Final = 20_000_000
"""And so is a batch that costs less than this in all."""
SHORTEST_NS: Final = 5_000_000
"""A bin is not cut below this so that all workers have one."""
PROBE_SECONDS: Final = 0.05
"""So long an op's first bin is waited for, to know what the next ones cost."""
_DRAIN_SECONDS: Final = 1.0
"""So long what is under way in a broken executor is waited for: it tells soon what is done and what is not."""
AHEAD: Final = 2
"""So many bins a worker are under way at once."""


@dataclass(frozen=True, slots=True)
class Workers:
    """An executor, and how bins are sent to it; `Workers.of` makes one of what a user gives.

    Parameters
    ----------
    executor : Executor
    lanes : int
        How many bins it computes at once.
    own : bool
        Whether it is the board's, and ends with it.
    bin_timeout : float, optional
        Seconds.
    """

    executor: Executor
    lanes: int
    own: bool
    bin_timeout: float | None

    @classmethod
    def of(cls, executor: Any, bin_timeout: Any) -> Workers | None:
        """Return what `wb.open` was given as `executor` and `bin_timeout`; None for None.

        Raises
        ------
        ParamError
        """
        number = isinstance(bin_timeout, int | float) and not isinstance(bin_timeout, bool)
        if bin_timeout is not None and not (number and bin_timeout > 0):
            msg = f"bin_timeout: expected seconds above 0, or None, got {bin_timeout!r}"
            raise ParamError(msg)
        if executor is None:
            return None
        if isinstance(executor, int) and not isinstance(executor, bool) and executor > 0:
            return cls(Processes(executor), executor, True, bin_timeout)
        if not isinstance(executor, Executor):
            msg = f"executor: expected a number of processes, a concurrent.futures.Executor or None, got {executor!r}"
            raise ParamError(msg)
        return cls(executor, _lanes(executor), False, bin_timeout)

    def execution(self, inside: InThread, costs: Costs) -> InWorkers:
        """Return what a pipeline computes with."""
        return InWorkers(self, inside, costs)

    def close(self) -> None:
        """End what is the board's own."""
        if self.own:
            self.executor.shutdown(cancel_futures=True)


def _lanes(executor: Any) -> int:
    """Return how many calls an executor runs at once; where it does not say, as many as there are cores."""
    client: Any = getattr(executor, "_client", None)  # of dask's
    if hasattr(client, "nthreads"):
        return max(1, int(sum(client.nthreads().values())))
    given = getattr(executor, "_max_workers", None) or getattr(executor, "num_workers", None)
    return given if isinstance(given, int) and given > 0 else cores()


@dataclass(slots=True, eq=False)
class _Sent:
    """A bin under way."""

    rows: Ids
    began: float | None = None


class InWorkers:
    """Bins computed by workers, or by the thread that asks, which alone sees the store.

    What is sent is worth it by what jobs of the op have cost so far, or, of a user's op of which nothing is known, to
    be found out: see `LEAST_NS`. What comes of a bin depends on nothing of this.
    """

    def __init__(self, workers: Workers, inside: InThread, costs: Costs) -> None:
        self._workers, self._inside, self._costs = workers, inside, costs
        self._shares = isinstance(workers.executor, ThreadPoolExecutor)
        self._passed: dict[Any, Passed] = {}
        self._stays: dict[Any, str] = {}
        self._refusals: dict[Any, int] = {}
        self._warned: set[Any] = set()
        self._lock = locks.lock()

    def most(self, spec: OpSpec, left: int) -> int:
        """Return how many of the jobs that are left a bin may have, so that each worker gets some."""
        cost = self._costs.of(spec)
        if cost is None or cost < LEAST_NS or spec.exactness == "tolerance" or self._why_not(spec):
            return left
        return max(1, int(SHORTEST_NS // cost), math.ceil(left / (AHEAD * self._workers.lanes)))

    def outcomes(self, task: Task, cut: Iterator[Ids]) -> Generator[Outcome, None, None]:
        """Yield what came of each bin, as it comes."""
        pending: dict[Future[Any], _Sent] = {}
        ended = False
        # Bins of ``tolerance`` may not depend on what is done when: until y's shape is known they are one at a time.
        alone = task.spec.exactness == "tolerance" and task.shape is None
        try:
            while True:
                while not ended and len(pending) < (1 if alone else AHEAD * self._workers.lanes):
                    rows = next(cut, None)
                    if rows is None:
                        ended = True
                    elif not self._goes(task):
                        for outcome in self._inside.outcomes(task, iter([rows])):
                            alone = alone and not len(outcome.rows)
                            yield outcome
                    else:
                        try:
                            pending[self._submit(task, rows)] = _Sent(rows)
                        except ExecutorError:
                            wait(pending, _DRAIN_SECONDS)
                            yield from self._arrived(task, pending)
                            raise
                        if self._costs.of(task.spec) is None and wait(pending, PROBE_SECONDS, FIRST_COMPLETED).done:
                            break
                if not pending:
                    return
                for outcome in self._arrived(task, pending):
                    alone = alone and not len(outcome.rows)
                    yield outcome
        finally:
            for future in pending:
                self._abandon(future)

    def _arrived(self, task: Task, pending: dict[Future[Any], _Sent]) -> Iterator[Outcome]:
        """Wait until something has come, and yield it."""
        limit = self._workers.bin_timeout
        done = wait(pending, None if limit is None else min(limit / 4, 1.0), FIRST_COMPLETED).done
        first: Exception | None = None
        for future in done:
            sent = pending.pop(future)
            try:
                yield from self._outcome(task, sent.rows, future)
            except Exception as error:  # what the others have done is kept first
                first = first or error
        if first is not None:
            raise first
        if limit is not None:
            yield from self._late(task, pending, limit)

    def _late(self, task: Task, pending: dict[Future[Any], _Sent], limit: float) -> Iterator[Outcome]:
        """Give up what runs for longer than it may."""
        now = time.monotonic()
        for future, sent in list(pending.items()):
            if sent.began is None:
                sent.began = self._began(future, now)
            elif now - sent.began > limit and not future.done():
                del pending[future]
                self._abandon(future)
                error = BinTimeoutError(f"{_told(task, sent.rows)}: not done after {limit:g} s (bin_timeout)")
                yield _failed(sent.rows, error)

    def _outcome(self, task: Task, rows: Ids, future: Future[Any]) -> Iterator[Outcome]:
        """Yield what came of a bin, the very array that was cut."""
        try:
            answer = future.result()
        except (BrokenExecutor, CancelledError) as error:
            raise self._broken(task, rows, error) from error
        except Exception as error:
            failure = ExecutorError(f"{_told(task, rows)}: {self._workers.executor!r}: {_named(error)}")
            failure.__cause__ = error
            yield _failed(rows, failure)
            return
        if isinstance(answer, Refused):
            self._refuse(task.spec, answer.told)
            yield from self._inside.outcomes(task, iter([rows]))
            return
        assert isinstance(answer, BinDone)
        self._refusals.pop(task.spec.code, None)
        if answer.error is not None:
            if isinstance(answer.error, WhiteboardError) and answer.error.row is not None:
                answer.error.row = int(rows[answer.error.row])
            raise answer.error
        for part in answer.outcomes:
            yield replace(part, bin=rows, rows=rows[part.rows], failed=by_job(part.failed, rows))

    def _submit(self, task: Task, rows: Ids) -> Future[Any]:
        try:
            return self._workers.executor.submit(compute, self._job(task, rows))
        except RuntimeError as error:  # broken, or shut down
            raise self._broken(task, rows, error) from error

    def _job(self, task: Task, rows: Ids) -> BinJob:
        spec = task.spec
        lend = Lender(BufferPool())  # what it lends is not given back, and so is the bin's own
        xs = task.sources.gather(rows, lend, share=spec.exactness == "tolerance")
        return BinJob(
            op=self._op(spec),
            name=spec.name,
            version=spec.version,
            fingerprint=spec.fingerprint,
            arithmetic=keys.Identity.of(spec, {}).arithmetic,
            blas=arithmetic.blas_settings(spec.blas) if spec.blas else None,
            params=task.params,
            shape=task.shape,
            n=len(rows),
            arrays=tuple(map(_sent, xs)),
            cotangent=None if task.cotangent is None else task.cotangent[rows],
            home=home(),
            own=self._workers.own,
        )

    def _goes(self, task: Task) -> bool:
        """Whether a bin is worth sending, and can be."""
        spec = task.spec
        cost = self._costs.of(spec)
        if is_nested() or self._why_not(spec) or (cost is None and (not spec.user or task.sources.n == 1)):
            return False
        if cost is None:
            return True
        if not self._costs.is_sure(spec):
            return False
        nbytes = task.sources.dtype.itemsize * sum(map(math.prod, task.sources.shapes))
        return cost >= max(LEAST_NS, BYTE_NS * nbytes, BATCH_NS / task.sources.n)

    def _why_not(self, spec: OpSpec) -> str:
        """Say why an op stays here; empty where it can go."""
        if self._shares:
            return self._stays.get(spec.code, "")
        if spec.fingerprint is None:
            self._stay(spec, spec.opaque)
        try:
            self._op(spec)
        except Exception as error:
            self._stay(spec, f"it cannot be pickled: {_named(error)}")
        return self._stays.get(spec.code, "")

    def _op(self, spec: OpSpec) -> Passed:
        if self._shares:
            return Passed(spec.name, here=spec)
        if (found := self._passed.get(spec.code)) is None:
            found = self._passed[spec.code] = passed(spec)
        return found

    def _refuse(self, spec: OpSpec, reason: str) -> None:
        """Count a refusal: one of several workers may be odd, but an op of which all is refused for a while stays."""
        with self._lock:
            refusals = self._refusals[spec.code] = self._refusals.get(spec.code, 0) + 1
            if refusals >= AHEAD * self._workers.lanes:
                self._stays[spec.code] = reason
        self._warn(spec, f"where {self._workers.executor!r} refuses it: {reason}")

    def _stay(self, spec: OpSpec, reason: str) -> None:
        """Compute an op here from now on."""
        self._stays[spec.code] = reason
        self._warn(spec, f"and not by {self._workers.executor!r}: {reason}")

    def _warn(self, spec: OpSpec, why: str) -> None:
        """Say, once an op, that it is computed here."""
        with self._lock:
            new = spec.code not in self._warned
            self._warned.add(spec.code)
        if new:
            warn(f"op {spec.name!r} is computed in this process, {why}", WorkerWarning)

    def _broken(self, task: Task, rows: Ids, error: BaseException) -> ExecutorError:
        told = f"{_told(task, rows)}: {self._workers.executor!r} is broken: {_named(error)}; what was done is kept"
        return ExecutorError(told)

    def _began(self, future: Future[Any], now: float) -> float | None:
        """Return since when a bin is computed, or None: another's executor only says that it is, and perhaps early."""
        executor = self._workers.executor
        if isinstance(executor, Processes):
            return executor.began(future)
        return now if future.running() else None

    def _abandon(self, future: Future[Any]) -> None:
        executor = self._workers.executor
        if isinstance(executor, Processes):
            executor.abandon(future)
        else:
            future.cancel()


def _sent(x: Array) -> Array:
    """Return a source of n jobs for a message: of one that all jobs share, the one row."""
    return x[:1] if len(x) > 1 and x.strides[0] == 0 else x


def _failed(rows: Ids, error: Exception) -> Outcome:
    return Outcome(rows, rows[:0], (), 0, dict.fromkeys(rows.tolist(), error))


def _told(task: Task, rows: Ids) -> str:
    some = f"job {rows[0]}" if len(rows) == 1 else f"jobs {rows[0]} to {rows[-1]}, {len(rows)} in a bin"
    return f"op {task.spec.name!r}, {some}"


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
