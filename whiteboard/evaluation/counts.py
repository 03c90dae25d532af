"""What a pipeline has answered so far: how many jobs, by where their packages were, and what that spared."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from whiteboard.concurrency import locks
from whiteboard.evaluation.triage import Triage
from whiteboard.records.packages import DISK, MEMORY, MISS, Page


@dataclass(slots=True, eq=False)
class Counts:
    """Counters that several threads add to."""

    hits_memory: int = 0
    hits_disk: int = 0
    misses: int = 0
    seconds_saved: float = 0.0
    waited: int = 0
    """Hits that another process computed while they were asked for here."""
    without_residual: int = 0
    """Jobs over nodes that had neither residual nor target, and so sent no impulse."""
    lock: threading.Lock = field(default_factory=locks.lock, repr=False)

    def hit(self, page: Page, tier: int = MEMORY, *, drives: bool = True) -> None:
        """Count a job that a page has answered; without `drives` it had no residual, and was over nodes."""
        with self.lock:
            if tier == MEMORY:
                self.hits_memory += 1
            else:
                self.hits_disk += 1
            self.seconds_saved += page.cost_ns / len(page.keys) / 1e9
            if not drives:
                self.without_residual += 1

    def miss(self) -> None:
        """Count a job that was computed."""
        with self.lock:
            self.misses += 1

    def batch(self, plan: Triage, *, jobs: bool) -> None:
        """Count the tiers of jobs, and the time that hits of pages with a known cost have saved."""
        saved = plan.saved_ns() / 1e9
        with self.lock:
            self.seconds_saved += saved
            self.waited += plan.waited
            if jobs:
                self.tally(np.bincount(plan.hit, minlength=3))

    def tally(self, tiers: NDArray[np.int64]) -> None:
        """Count so many jobs of each hit code, (3,), for whoever has the lock."""
        self.misses += int(tiers[MISS])
        self.hits_memory += int(tiers[MEMORY])
        self.hits_disk += int(tiers[DISK])
