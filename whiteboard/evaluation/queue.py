"""The queue: jobs from any thread, each with a Future, run in the order they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import InvalidStateError as DoneMeanwhile
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from whiteboard.concurrency import locks
from whiteboard.errors import ClosedError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class Ticket(Generic[Item, Result]):
    """One queued item and the future of its result.

    Attributes
    ----------
    attempt : object
        What whoever ran it keeps with it, for the case that an interrupt comes before the future is done.
    """

    item: Item
    future: Future[Result] = field(default_factory=Future)
    attempt: Any = None


class JobQueue(Generic[Item, Result]):
    """A first-in, first-out queue. Equal keys are computed once, as what is taken together is triaged together.

    A ticket leaves it when its future is done, and not before: an interrupt loses none.
    """

    def __init__(self) -> None:
        self._tickets: deque[Ticket[Item, Result]] = deque()
        self._lock = locks.lock()
        self._draining = locks.rlock()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tickets)

    def submit(self, item: Item) -> Future[Result]:
        """Queue an item; the future is done after a drain has run it.

        Raises
        ------
        ClosedError
        """
        ticket: Ticket[Item, Result] = Ticket(item)
        with self._lock:
            if self._closed:
                msg = "the board is closed: nothing more is run"
                raise ClosedError(msg)
            self._tickets.append(ticket)
        return ticket.future

    def drain(self, run: Callable[[Sequence[Ticket[Item, Result]]], None]) -> int:
        """Give `run` all that is queued, and return how many there were; what was cancelled meanwhile is left out."""
        with self._draining:
            with self._lock:
                tickets = list(self._tickets)
            taken = [ticket for ticket in tickets if _starts(ticket.future)]
            if taken:
                run(taken)
            with self._lock:
                while self._tickets and self._tickets[0].future.done():
                    self._tickets.popleft()
        return len(taken)

    def close(self) -> None:
        """Take nothing more, and end every future that is not done: as cancelled, or, where it was begun, so."""
        with self._lock:
            self._closed = True
        with self._draining:
            while self._tickets:
                future = self._tickets[0].future
                if not future.cancel() and not future.done():
                    with suppress(DoneMeanwhile):
                        future.set_exception(CancelledError("the board was closed before this job was done"))
                self._tickets.popleft()


def _starts(future: Future[Any]) -> bool:
    """Say that a job is run, unless it was cancelled; one that an interrupt left is run again."""
    return not future.done() and (future.running() or future.set_running_or_notify_cancel())
