"""The queue: jobs from any thread, each with a Future, taken out in the order they came."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class Ticket(Generic[Item, Result]):
    """One queued item and the future of its result."""

    item: Item
    future: Future[Result] = field(default_factory=Future)


class JobQueue(Generic[Item, Result]):
    """A first-in, first-out queue. Equal keys are computed once, as what is taken together is triaged together."""

    def __init__(self) -> None:
        self._tickets: deque[Ticket[Item, Result]] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._tickets)

    def submit(self, item: Item) -> Future[Result]:
        """Queue an item; the future is done after a drain has run it."""
        ticket: Ticket[Item, Result] = Ticket(item)
        with self._lock:
            self._tickets.append(ticket)
        return ticket.future

    def take(self) -> list[Ticket[Item, Result]]:
        """Take out all that is queued; what was cancelled meanwhile is left out."""
        with self._lock:
            tickets = list(self._tickets)
            self._tickets.clear()
        return [ticket for ticket in tickets if ticket.future.set_running_or_notify_cancel()]

    def cancel(self) -> None:
        """Cancel everything that is queued."""
        with self._lock:
            while self._tickets:
                self._tickets.popleft().future.cancel()
