"""What a job of each op has cost so far in this process: how many are computed before what is done is kept."""

from __future__ import annotations

from typing import Final

from whiteboard.evaluation import promises
from whiteboard.ops.spec import OpSpec

BIN_NS: Final = 100_000_000
"""So long a bin takes, about: what is killed loses no more, and what waits for a part of it waits no longer."""
SURE_NS: Final = 2_000_000
"""So long a bin of few jobs has to take to say what one costs."""
GROWTH: Final = 8
"""A bin has at most so many times the jobs of the op's last one, as jobs may cost unequally."""


class Costs:
    """The cost of jobs by op, in nanoseconds, and the size of the next bin."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, bytes | None], tuple[float, int]] = {}

    def of(self, spec: OpSpec) -> float | None:
        """Return what a job cost in the op's last bin; None where there was none."""
        known = self._known.get(spec.code)
        return None if known is None else known[0]

    def is_sure(self, spec: OpSpec) -> bool:
        """Whether that bin had more than a few short jobs, which tell more of what was done for the first time."""
        cost, n = self._known.get(spec.code, (0.0, 0))
        return n >= promises.ROWS or cost * n >= SURE_NS

    def seconds(self, spec: OpSpec, n: int) -> float | None:
        """Return how long a bin of n jobs will take; None where nothing is known of them."""
        cost = self.of(spec)
        return None if cost is None else n * cost / 1e9

    def learn(self, spec: OpSpec, n: int, cost_ns: int) -> None:
        """Hear what a bin of n jobs has cost."""
        self._known[spec.code] = cost_ns / n, n

    def jobs(self, spec: OpSpec, at_most: int) -> int:
        """Return how many jobs the next bin should have.

        Of an op whose bits depend on its bin as many as may be: no clock has a part in results.
        """
        if spec.exactness == "tolerance":
            return at_most
        known = self._known.get(spec.code)
        if known is None:
            return min(at_most, self.first(spec)) if spec.user else at_most
        cost, n = known
        return max(1, min(at_most, int(BIN_NS // max(cost, 1.0)), max(GROWTH * n, promises.ROWS)))

    @staticmethod
    def first(spec: OpSpec) -> int:
        """Return how many jobs the first bin of an op has of which nothing is known."""
        return promises.ROWS if spec.batch == "lead_axis" else 1
