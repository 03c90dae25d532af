"""Elsewhere: jobs that another process on the same store computes, for which this one waits.

It polls with growing pauses, and looks at who computes: a process that is no more leaves its keys at once, and one that
is stopped does not keep them longer than a lease. What it puts after that is what all others put, and does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from whiteboard.ops.spec import OpSpec
from whiteboard.records.claims import Holder

LEASE: Final = 10.0
"""Seconds that one waits behind a process that is stopped."""

DEAR_NS: Final = 20_000_000
"""A bin that takes less is computed by each who wants it: to claim it costs a write."""

_FIRST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.005, 0.5, 1.5
_UNSEEN_TIMES, _UNSEEN_SECONDS = 10, 600.0


def is_dear(spec: OpSpec, seconds: float | None) -> bool:
    """Whether a bin is worth a claim: one of a user's op of which nothing is known is."""
    return spec.user if seconds is None else 1e9 * seconds >= DEAR_NS


@dataclass(slots=True)
class Elsewhere:
    """Jobs of one batch.

    Parameters
    ----------
    holders : callable
        Says who computes some keys at this moment (`PackageStore.holders`).
    lease : float
        Seconds that a holder may be stopped. One that cannot be looked at, as it runs on another machine or in another
        container, has them too, or ten times what it was expected to take, or ten minutes where nobody knows that.
    """

    holders: Callable[[Sequence[bytes]], list[Holder]]
    lease: float = LEASE
    rows: list[int] = field(default_factory=list)
    overdue: set[int] = field(default_factory=set)
    """Numbers of holders that are waited for no more."""
    _since: dict[int, float] = field(default_factory=dict)

    def wait(self, keys: Sequence[bytes]) -> list[int]:
        """Return the jobs that nobody computes any more, once there are any: they are there, or to be computed here.

        Parameters
        ----------
        keys : sequence of bytes
            Of all jobs.
        """
        pause = _FIRST_PAUSE
        while self.rows:
            busy = self._busy([keys[row] for row in self.rows])
            free = [row for position, row in enumerate(self.rows) if position not in busy]
            if free:
                self.rows = [row for position, row in enumerate(self.rows) if position in busy]
                return free
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, _GROWTH * pause)
        return []

    def _busy(self, keys: Sequence[bytes]) -> set[int]:
        """Positions of the keys that are worth waiting for."""
        found = self.holders(keys)
        now = time.monotonic()
        self._since = {each.number: self._since.get(each.number, now) for each in found if each.stopped is not False}
        for each in found:
            if each.number in self._since and now - self._since[each.number] >= self._patience(each):
                self.overdue.add(each.number)
        return {row for each in found if each.number not in self.overdue for row in each.rows.tolist()}

    def _patience(self, holder: Holder) -> float:
        if holder.stopped:
            return self.lease
        seconds = _UNSEEN_SECONDS if holder.seconds is None else _UNSEEN_TIMES * holder.seconds
        return max(self.lease, seconds)
