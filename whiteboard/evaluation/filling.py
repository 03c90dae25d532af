"""Filling: the misses of a batch, computed bin by bin, or waited for where another thread or process computes them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from whiteboard.errors import StoreError
from whiteboard.evaluation import bins, contents, triage
from whiteboard.evaluation.costs import Costs
from whiteboard.evaluation.elsewhere import Elsewhere, is_dear
from whiteboard.evaluation.execution import Execution, Outcome, Task
from whiteboard.evaluation.flights import Flight, Flights, is_nested
from whiteboard.evaluation.progress import Meter
from whiteboard.evaluation.triage import Form, Triage
from whiteboard.records.packages import MEMORY, MISS, Found, Page
from whiteboard.storage.base import Claim, PackageStore
from whiteboard.types import Ids

_log = logging.getLogger(__name__)

_BINS_LOOKED_THROUGH: Final = 32
_LOOKED_THROUGH: Final = 512
"""For a bin that no other process computes, so many bins, or jobs, are looked through in one transaction."""

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
        Makes the page of an outcome, and puts it where it may be put, for a claim where there is one.
    since : int
        How many flights were over before the triage.
    shared : bool
        Whether equal keys are computed once, of all threads and processes.
    meter : Meter, optional
        Is told how far it is.
    """

    ground: Ground
    task: Task
    plan: Triage
    keys: Sequence[bytes]
    form: Callable[[], Form]
    keep: Callable[[Outcome, Claim | None], Page]
    since: int
    shared: bool
    meter: Meter | None = None
    _computing: int = 0
    _flying: dict[int, tuple[Ids, Flight, Claim | None]] = field(default_factory=dict)
    _held: list[tuple[int, Flight]] = field(default_factory=list)
    _claims: list[Claim] = field(default_factory=list)
    _elsewhere: Elsewhere = field(init=False)

    def __post_init__(self) -> None:
        self._elsewhere = Elsewhere(self.ground.store.holders)

    def fill(self) -> None:
        """Compute what nobody computes, bin by bin, and only then wait for the rest."""
        self._tell()
        self.shared = self.shared and self.task.spec.exactness != "tolerance" and not is_nested()
        left = self.plan.todo
        running = threading.Lock()
        with running:
            try:
                while len(left) or self._elsewhere.rows:
                    with closing(self.ground.execution.outcomes(self.task, self._cut(left, running))) as outcomes:
                        for outcome in outcomes:
                            self._take(outcome)
                    left = self._awaited()
            finally:
                for _, flight, _ in self._flying.values():
                    self.ground.flights.end(flight)
                for claim in self._claims:
                    claim.release()

    def _cut(self, left: Ids, running: object) -> Iterator[Ids]:
        """Yield the jobs to compute in bins; each may be placed before the next one is asked for."""
        while len(left):
            size = self._size(len(left))
            if not self.shared:
                yield self._begins(left[:size])
                left = left[size:]
                continue
            seconds = self.ground.costs.seconds(self.task.spec, size)
            claim = self.ground.store.claim() if is_dear(self.task.spec, seconds) else None
            some = size if claim is None else max(size, min(_LOOKED_THROUGH, _BINS_LOOKED_THROUGH * size))
            rows, later = self._begun(left[:some], size, running, claim, seconds)
            left = np.concatenate([later, left[some:]])
            if len(rows):
                yield self._begins(rows)

    def _begins(self, rows: Ids) -> Ids:
        self._computing += len(rows)
        self._tell()
        return rows

    def _begun(
        self, rows: Ids, size: int, running: object, claim: Claim | None, seconds: float | None
    ) -> tuple[Ids, Ids]:
        """Return a bin of those jobs that nobody computes, or has computed since the triage, and the others."""
        flights = self.ground.flights
        flight, mine, others = flights.take(self._keys(rows), running)
        self._held += [(int(rows[position]), other) for position, other in others.items()]
        rows = rows[mine]
        # Who had these keys before has put its packages before they were given up.
        if flights.landed != self.since and len(rows):
            rows = self._found(rows, flight)
        if claim is not None:
            self._claims.append(claim)
            if len(rows):
                rows = self._claimed(rows, size, flight, claim, seconds)
        rows, later = rows[:size], rows[size:]
        flights.give_up(flight, self._keys(later))
        if len(rows):
            self._flying[id(rows)] = rows, flight, claim
        else:
            self._end(flight, claim)
        return rows, later

    def _found(self, rows: Ids, flight: Flight | None = None) -> Ids:
        """Answer jobs whose packages are in the store by now, and return the others."""
        keys = self._keys(rows)
        found = triage.find(self.ground.store, keys, self.form)
        self.plan.answer(rows, found)
        if flight is not None:
            for position in np.flatnonzero(found.page >= 0).tolist():
                flight.places[keys[position]] = found.pages[found.page[position]], int(found.slot[position])
        return rows[found.page < 0]

    def _claimed(self, rows: Ids, size: int, flight: Flight, claim: Claim, seconds: float | None) -> Ids:
        """Claim a bin of some jobs, and return it and, behind it, those that nobody computes."""
        try:
            claim.take(self._keys(rows), size, seconds=seconds, instead=self._elsewhere.overdue)
        except StoreError as error:
            _log.warning("op %r: a bin is computed without a claim: %s", self.task.spec.name, error)
            return rows
        held, found = rows[claim.held], rows[claim.found]
        self.ground.flights.give_up(flight, self._keys(held))
        self._elsewhere.rows += held.tolist()
        # What is in the index and not found is damaged, or its place is another key's.
        missing = self._found(found, flight) if len(found) else found
        self.plan.waited += len(found) - len(missing)
        return np.concatenate([rows[claim.mine], missing, rows[claim.left]])

    def _take(self, outcome: Outcome) -> None:
        """Place and keep what came of a bin."""
        if _log.isEnabledFor(logging.DEBUG):
            told = (self.task.spec.name, len(outcome.rows), outcome.cost_ns / 1e6, len(outcome.failed))
            _log.debug("op %r: a bin of %d jobs took %.3f ms, %d failed", *told)
        done = len(outcome.rows) + len(outcome.failed)
        if done and outcome.cost_ns:
            self.ground.costs.learn(self.task.spec, done, outcome.cost_ns)
        self._remember(outcome.failed)
        flying = self._flying.get(id(outcome.bin))
        page = self.keep(outcome, flying and flying[2]) if len(outcome.rows) else None
        if page is not None:
            self.plan.place(outcome.rows, page)
        self._computing -= done
        self._tell()
        if flying is None:
            return
        _, flight, claim = flying
        if page is not None:
            flight.places |= {key: (page, row) for row, key in enumerate(self._keys(outcome.rows))}
        flight.failed |= {self.keys[row]: error for row, error in outcome.failed.items()}
        if flight.is_whole:
            del self._flying[id(outcome.bin)]
            self._end(flight, claim)

    def _remember(self, failed: dict[int, Exception]) -> None:
        """Keep errors; of many the tracebacks would keep every bin's arrays, so only the first ones have theirs."""
        for row, error in failed.items():
            if len(self.plan.failed) >= _TRACED:
                error.__traceback__ = None
            self.plan.failed[row] = error

    def _end(self, flight: Flight, claim: Claim | None) -> None:
        self.ground.flights.end(flight)
        self.since += 1
        if claim is not None:
            claim.release()
            self._claims.remove(claim)

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
        if not left and self._elsewhere.rows:
            free = np.array(self._elsewhere.wait(self.keys), np.int64)
            left = self._found(free).tolist()
            self.plan.waited += len(free) - len(left)
        return np.array(left, np.int64)

    def _keys(self, rows: Ids) -> list[bytes]:
        return [self.keys[row] for row in rows.tolist()]

    def _size(self, left: int) -> int:
        """How many of the jobs that are left the next bin has."""
        task, ground = self.task, self.ground
        shape = task.shape
        if shape is None:
            if not self.plan.pages:  # what y takes is not known yet
                return ground.costs.first(task.spec)
            shape = self.plan.pages[0].arrays["y"].shape[1:]
        beside = contents.beside(task.spec.gradient, shape, task.sources.shapes)
        size = bins.job_bytes(shape, beside, task.sources.dtype.itemsize)
        most = min(bins.most(size, ground.max_bin_bytes, ground.max_bin_jobs), ground.execution.most(task.spec, left))
        if task.cotangent is not None and task.spec.batch == "loop":
            return most  # jobs that differ in their cotangents alone share a forward, where they are in one bin
        return ground.costs.jobs(task.spec, most)

    def _tell(self) -> None:
        if self.meter is not None:
            self.meter.tell(self.plan, self._computing)
