"""Filling: the misses of a batch, computed bin by bin, or waited for where another thread computes them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from whiteboard.concurrency import locks
from whiteboard.evaluation import bins, contents, triage
from whiteboard.evaluation.costs import Costs
from whiteboard.evaluation.execution import Execution, Outcome, Task
from whiteboard.evaluation.flights import Flight, Flights, is_nested
from whiteboard.evaluation.triage import Form, Triage
from whiteboard.records.packages import MEMORY, MISS, Found, Page
from whiteboard.storage.base import PackageStore
from whiteboard.types import Ids

_log = logging.getLogger(__name__)

_TRACED: Final = 16
"""So many errors of a batch keep their tracebacks."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What all batches of one pipeline share."""

    store: PackageStore
    execution: Execution
    flights: Flights
    costs: Costs
    max_bin_bytes: int
    max_bin_jobs: int


@dataclass(slots=True, eq=False)
class Filling:
    """The misses of one batch.

    Parameters
    ----------
    ground : Ground
    task : Task
    plan : Triage
        What is filled.
    keys : sequence of bytes
        One a job.
    form : callable
        What a page has to hold that is found meanwhile.
    keep : callable
        Makes the page of an outcome, and puts it where it may be put.
    since : int
        How many flights were over before the triage.
    shared : bool
        Whether equal keys are computed once.
    """

    ground: Ground
    task: Task
    plan: Triage
    keys: Sequence[bytes]
    form: Callable[[], Form]
    keep: Callable[[Outcome], Page]
    since: int
    shared: bool
    _flying: dict[int, tuple[Ids, Flight]] = field(default_factory=dict)
    _held: list[tuple[int, Flight]] = field(default_factory=list)

    def fill(self) -> None:
        """Compute what nobody computes, bin by bin, and only then wait for the rest."""
        self.shared = self.shared and self.task.spec.exactness != "tolerance" and not is_nested()
        left = self.plan.todo
        running = locks.lock()
        with running:
            try:
                while len(left):
                    for outcome in self.ground.execution.outcomes(self.task, self._cut(left, running)):
                        self._take(outcome)
                    left = self._awaited()
            finally:
                for _, flight in self._flying.values():
                    self.ground.flights.end(flight)

    def _cut(self, left: Ids, running: object) -> Iterator[Ids]:
        """Yield the jobs to compute in bins; each may be placed before the next one is asked for."""
        while len(left):
            size = self._size()
            rows, left = left[:size], left[size:]
            if self.shared and not len(rows := self._begun(rows, running)):
                continue
            yield rows

    def _begun(self, rows: Ids, running: object) -> Ids:
        """Return those of a bin that nobody computes, or has computed since the triage."""
        flights = self.ground.flights
        flight, mine, others = flights.take(self._keys(rows), running)
        self._held += [(int(rows[position]), other) for position, other in others.items()]
        rows = rows[mine]
        # Who had these keys before has put its packages before they were given up.
        if flights.landed != self.since and len(rows):
            found = triage.find(self.ground.store, flight.keys, self.form)
            self.plan.answer(rows, found)
            for position in np.flatnonzero(found.page >= 0).tolist():
                flight.places[flight.keys[position]] = found.pages[found.page[position]], int(found.slot[position])
            rows = rows[found.page < 0]
        if len(rows):
            self._flying[id(rows)] = rows, flight
        else:
            self._end(flight)
        return rows

    def _take(self, outcome: Outcome) -> None:
        """Place and keep what came of a bin."""
        if _log.isEnabledFor(logging.DEBUG):
            told = (self.task.spec.name, len(outcome.rows), outcome.cost_ns / 1e6, len(outcome.failed))
            _log.debug("op %r: a bin of %d jobs took %.3f ms, %d failed", *told)
        if done := len(outcome.rows) + len(outcome.failed):
            self.ground.costs.learn(self.task.spec, done, outcome.cost_ns)
        self._remember(outcome.failed)
        page = self.keep(outcome) if len(outcome.rows) else None
        if page is not None:
            self.plan.place(outcome.rows, page)
        if (flying := self._flying.get(id(outcome.bin))) is None:
            return
        _, flight = flying
        if page is not None:
            flight.places |= {key: (page, row) for row, key in enumerate(self._keys(outcome.rows))}
        flight.failed |= {self.keys[row]: error for row, error in outcome.failed.items()}
        if flight.is_whole:
            del self._flying[id(outcome.bin)]
            self._end(flight)

    def _remember(self, failed: dict[int, Exception]) -> None:
        """Keep errors; of many the tracebacks would keep every bin's arrays, so only the first ones have theirs."""
        for row, error in failed.items():
            if len(self.plan.failed) >= _TRACED:
                error.__traceback__ = None
            self.plan.failed[row] = error

    def _end(self, flight: Flight) -> None:
        self.ground.flights.end(flight)
        self.since += 1

    def _awaited(self) -> Ids:
        """Wait for what others compute, and return the jobs of which nothing has come."""
        held, self._held = self._held, []
        left: list[int] = []
        for row, flight in held:
            flight.wait()
            key = self.keys[row]
            if key in flight.places:
                page, slot = flight.places[key]
                one = np.array([slot])
                self.plan.answer(np.array([row]), Found([page], np.zeros(1, np.int64), one, np.array([MEMORY])))
            elif key in flight.failed:
                self.plan.failed[row] = flight.failed[key]
                self.plan.hit[row] = MISS
            else:
                left.append(row)
        return np.array(left, np.int64)

    def _keys(self, rows: Ids) -> list[bytes]:
        return [self.keys[row] for row in rows.tolist()]

    def _size(self) -> int:
        """How many jobs the next bin has."""
        task, ground = self.task, self.ground
        shape = task.shape
        if shape is None:
            if not self.plan.pages:  # what y takes is not known yet
                return ground.costs.first(task.spec)
            shape = self.plan.pages[0].arrays["y"].shape[1:]
        beside = contents.beside(task.spec.gradient, shape, task.sources.shapes)
        size = bins.job_bytes(shape, beside, task.sources.dtype.itemsize)
        return ground.costs.jobs(task.spec, bins.most(size, ground.max_bin_bytes, ground.max_bin_jobs))
