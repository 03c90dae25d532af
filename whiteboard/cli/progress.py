"""Work that takes long, on a terminal: its progress, and how it is asked to stop."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from whiteboard.board import Board
from whiteboard.cli.terminal import say

INTERRUPTED = 130
"""The exit status of what was asked to stop."""


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what)
        yield lambda done, total: shown.update(task, completed=done, total=total)


@contextmanager
def progress(
    unit: str, total: int | None, *, quiet: bool, left: bool = False
) -> Iterator[Callable[[int, Callable[[], str]], None]]:
    """Yield what is called after each step with its number and a text: a bar on a terminal, else a line now and then.

    Parameters
    ----------
    unit : str
        What a step is.
    total : int, optional
        How many there will be, where that is known.
    left : bool
        Say how much time is left, from how long the steps took.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    last = time.monotonic()

    def due(seconds: float) -> bool:
        nonlocal last
        if time.monotonic() - last < seconds:
            return False
        last = time.monotonic()
        return True

    if quiet:
        yield lambda *_: None
    elif not console.is_terminal:

        def line(number: int, text: Callable[[], str]) -> None:
            if due(10):
                say(f"{'commit' if unit == 'round' else unit} {number}  {text()}", err=True)

        yield line
    else:
        columns = [TextColumn(f"{unit} {{task.completed:.0f}}"), BarColumn(20), TimeElapsedColumn()]
        if left:
            columns.append(TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.description}", markup=False), console=console) as bar:
            task = bar.add_task("", total=total)
            newest: tuple[int, Callable[[], str]] = (0, str)

            def advance(number: int, text: Callable[[], str]) -> None:
                nonlocal newest
                newest = (number, text)
                if due(0.1):
                    bar.update(task, completed=number, description=text())

            yield advance
            bar.update(task, completed=newest[0], total=newest[0], description=newest[1]())


def answered(board: Board) -> str:
    """How many of the packages that were asked for were hits, and the time that they saved."""
    stats = board.stats()
    hits = stats["hits_memory"] + stats["hits_disk"]
    rate = 100 * hits / max(1, hits + stats["misses"])
    return f"hits {rate:.0f} %  saved {stats['seconds_saved']:.1f} s"


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a wish to stop after the commit; a second SIGINT ends at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
