"""Trust, but check: some hits of a user's op are computed again, and compared with what was kept.

A fingerprint covers what can be seen. What cannot (a file behind a library, a driver, a flag of a compiler) may change
under it; then packages under one key are not what the op computes now. The first hits of a process tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, Final, TypeAlias

import numpy as np

from whiteboard.concurrency import locks
from whiteboard.errors import WrongHitWarning, warn
from whiteboard.evaluation.buffers import BufferPool
from whiteboard.evaluation.flights import computing
from whiteboard.evaluation.session import Session
from whiteboard.evaluation.sources import Sources
from whiteboard.evaluation.triage import Triage
from whiteboard.ops.spec import OpSpec
from whiteboard.records.packages import MISS, Page
from whiteboard.types import Array

SHARE: Final = 0.01
"""So much of the time that hits have saved goes into checks, at most."""
FIRST: Final = 16
"""So many hits of an op are checked in a process."""
CLOSE: Final = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-9}
"""Relative difference that is allowed to ops of ``tolerance``, whose bits depend on the bin."""

Identity: TypeAlias = tuple[str, int, bytes | None]


@dataclass(slots=True)
class Agreement:
    """What the hits of one process have saved, what checks of them cost, and what these found."""

    checked: int = 0
    wrong: int = 0
    saved_ns: float = 0.0
    spent_ns: int = 0
    _checks: dict[Identity, int] = field(default_factory=dict)
    _distrusted: set[Identity] = field(default_factory=set)
    _lock: Any = field(default_factory=locks.lock)

    def distrusts(self, spec: OpSpec) -> bool:
        """Whether a package of the op, under its fingerprint of now, was found wrong in this process."""
        return bool(self._distrusted) and spec.code in self._distrusted

    def passes(self, spec: OpSpec, cost_ns: float) -> bool:
        """Count the time that one hit has saved, unless a check of it is due: then nothing is counted."""
        with self._lock:
            due = self._checks.get(spec.code, 0) < FIRST
            if due and self.spent_ns + cost_ns < SHARE * (self.saved_ns + cost_ns):
                return False
            self.saved_ns += cost_ns
        return True

    def holds(
        self,
        spec: OpSpec,
        params: dict[str, Any],
        sources: Sources,
        plan: Triage,
        cotangent: Array | None,
        pool: BufferPool,
    ) -> bool:
        """Compute one of a batch's hits again if it is due, and say whether it is what was kept.

        Parameters
        ----------
        plan : Triage
            With the pages of hits, and of nothing else.
        cotangent : ndarray, (n, *y_shape), optional
        """
        if not spec.user or not plan.pages:
            return True
        hits = np.flatnonzero(plan.hit != MISS)
        costs = np.array([page.cost_ns / page.n for page in plan.pages])
        row = hits[:1]
        page, slot = plan.pages[plan.page[row[0]]], int(plan.slot[row[0]])
        with self._lock:
            self.saved_ns += float(costs[plan.page[hits]].sum())
            done = self._checks.get(spec.code, 0)
            if (
                done >= FIRST or self.spent_ns + page.cost_ns / page.n >= SHARE * self.saved_ns
            ):  # of unknown cost: never
                return True
            self._checks[spec.code] = done + 1
            self.checked += 1
        start = perf_counter_ns()
        with pool.lend() as lend:
            xs = sources.gather(row, lend)
            what = _difference(spec, params, xs, page, slot, None if cotangent is None else cotangent[row])
        with self._lock:
            self.spent_ns += perf_counter_ns() - start
        if what:
            self._refuse(spec, bytes(page.keys[slot]).hex(), what)
        return not what

    def _refuse(self, spec: OpSpec, key: str, what: str) -> None:
        self.wrong += 1
        self._distrusted.add(spec.code)
        print_of = spec.fingerprint.hex() if spec.fingerprint else ""
        warn(
            f"op {spec.name!r}: {what} of the package under key {key} is not what the op computes now: something has "
            f"changed that its fingerprint {print_of} does not see, or its results are not the same twice. Its "
            "packages of that fingerprint are misses in this process; raise version= of wb.op to leave them for good",
            WrongHitWarning,
        )


def _difference(
    spec: OpSpec, params: dict[str, Any], xs: list[Array], page: Page, slot: int, cotangent: Array | None
) -> str:
    """Return which array of a package is another when computed again; empty where none is."""
    with computing(), np.errstate(all="ignore"), Session(spec, params, xs) as session:
        computed = session.run(cotangent)
    for number, now in enumerate(computed):
        name, what = ("y", "y") if number == 0 else (f"g{number - 1}", f"the gradient of source {number - 1}")
        if not _same(spec, page.arrays[name][slot], now[0]):
            return what
    return ""


def _same(spec: OpSpec, kept: Array, now: Array) -> bool:
    if kept.shape != now.shape or kept.dtype != now.dtype:
        return False
    if spec.exactness == "tolerance":
        return bool(np.allclose(kept, now, rtol=CLOSE[now.dtype], atol=0, equal_nan=True))
    return kept.tobytes() == now.tobytes()
