"""How far a batch is: what is told as results come, and how it is shown in a terminal or a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from whiteboard.errors import ParamError
from whiteboard.evaluation.triage import Triage
from whiteboard.records.packages import MISS

_PAUSE: Final = 0.1
"""Seconds between two reports at least."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch of n jobs is.

    Parameters
    ----------
    n, hits, computed, failed, computing : int
        All jobs; those that are answered from the cache, are computed, have failed, and are being computed now.
    saved, seconds : float
        Seconds that hits have saved, by what computing them took; and that have passed.
    """

    n: int
    hits: int
    computed: int
    failed: int
    computing: int
    saved: float
    seconds: float

    @property
    def done(self) -> int:
        return self.hits + self.computed + self.failed

    @property
    def rate(self) -> float | None:
        """Jobs computed a second; None before the first."""
        came = self.computed + self.failed
        return came / self.seconds if came and self.seconds > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take at that rate; None where nothing tells."""
        if self.done == self.n:
            return 0.0
        return None if self.rate is None else (self.n - self.done) / self.rate

    def __str__(self) -> str:
        parts = [f"hits {self.hits:,}", f"computing {self.computing:,}"]
        parts += [f"failed {self.failed:,}"] if self.failed else []
        parts += [f"{self.rate:.3g}/s"] if self.rate is not None else []
        parts += [f"left {_clock(self.left)}"] if self.left is not None else []
        return "  ".join([*parts, f"saved {self.saved:.1f} s"])


Reporter: TypeAlias = Callable[[Progress], None]
"""Called by the thread that asks: at the beginning, now and then as bins begin and end, and at the end."""


class Meter:
    """Tells a reporter how far the misses of a batch are."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._began = reporter, time.monotonic()
        self._next = 0.0

    def tell(self, plan: Triage, computing: int, *, now: bool = False) -> None:
        """Report, but for what comes too soon after the last; `computing` is how many jobs are in bins that have begun.

        With `now` report in any case.
        """
        if not now and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PAUSE
        placed = plan.page >= 0
        hits = int(np.count_nonzero(placed & (plan.hit != MISS)))
        computed = int(np.count_nonzero(placed)) - hits
        seconds = time.monotonic() - self._began
        self._reporter(
            Progress(len(plan.page), hits, computed, len(plan.failed), computing, plan.saved_ns() / 1e9, seconds)
        )


@contextmanager
def shown(progress: Any, what: str) -> Iterator[Reporter | None]:
    """Yield what reports to a caller's own function, or to a bar in a terminal or a line in a notebook, if any.

    Parameters
    ----------
    progress : bool or callable
        True shows something where somebody can see it: in a notebook, or where stderr is a terminal.

    Raises
    ------
    ParamError
    """
    if callable(progress):
        yield progress
    elif not isinstance(progress, bool):
        msg = f"progress: expected True, False or a function of a Progress, got {progress!r}"
        raise ParamError(msg)
    elif progress and (display := _notebook()) is not None:
        handle = display({"text/plain": what}, raw=True, display_id=True)
        yield lambda now: handle.update({"text/plain": f"{what}: {now.done:,} of {now.n:,}  {now}"}, raw=True)
    elif progress and sys.stderr.isatty():
        with _bar(what) as report:
            yield report
    else:
        yield None


def _notebook() -> Any:
    """Return IPython's ``display`` within a notebook's kernel, else None."""
    ipython, display = (sys.modules.get(name) for name in ("IPython", "IPython.display"))
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(display, "display", None) if hasattr(shell, "kernel") else None


@contextmanager
def _bar(what: str) -> Iterator[Reporter]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[told]}", markup=False),
    ]
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None, told="")
        yield lambda now: bar.update(task, completed=now.done, total=now.n, told=str(now))


def _clock(seconds: float | None) -> str:
    minutes, rest = divmod(round(seconds or 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
