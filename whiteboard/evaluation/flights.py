"""Keys in flight: what one thread computes, another waits for and does not compute again.

Whether a flight is still under way is told by locks of C alone, which a ``with`` block gives back whatever line an
interrupt comes at: entries that one leaves behind are dead, and are taken over.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from whiteboard.concurrency import locks
from whiteboard.concurrency.at_fork import watch
from whiteboard.records.packages import Page
from whiteboard.types import Ids

_LOOK_AGAIN: Final = 0.1
"""Seconds after which a waiter looks whether who computes is there still."""


@dataclass(slots=True, eq=False)
class Flight:
    """The packages of one bin that are being computed.

    Attributes
    ----------
    running : lock
        Of `threading`, held for as long as the evaluation that computes them goes on, whatever becomes of the flight.
    landed : lock
        Held until the flight is over.
    keys : list of bytes
        What it was begun for.
    places : dict of bytes to (Page, int)
        Where the package of each key is that has one by now.
    failed : dict of bytes to Exception
        What the others raised.
    """

    running: Any
    landed: Any = field(default_factory=threading.Lock)
    keys: list[bytes] = field(default_factory=list)
    places: dict[bytes, tuple[Page, int]] = field(default_factory=dict)
    failed: dict[bytes, Exception] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether something has come of every key."""
        return len(self.places) + len(self.failed) == len(self.keys)

    @property
    def under_way(self) -> bool:
        return bool(self.landed.locked() and self.running.locked())

    def wait(self) -> None:
        """Return when it is over, or who computes it has gone."""
        while self.under_way and not self.landed.acquire(timeout=_LOOK_AGAIN):
            pass
        self.land()

    def land(self) -> None:
        """Let who waits go on."""
        try:  # noqa: SIM105 - a miss by call lands each time, and `suppress` takes four times as long
            self.landed.release()
        except RuntimeError:  # it is free: nobody, or another who waited, has it
            pass


class Flights:
    """What the threads of this process are computing.

    A thread that computes does not wait for others, as one of these may wait for what it computes: calls from within
    an op's function compute for themselves (`is_nested`). A forked child waits for no flight of its parent's threads.
    """

    fork_rank = 0
    fork_locks = ()

    def __init__(self) -> None:
        self._lock = locks.lock()
        self._held: dict[bytes, Flight] = {}
        self.landed = 0
        """How many flights are over, by whomever."""
        watch(self)

    def before_fork(self) -> None:
        """Leave all as it is: what `take` and `end` change stands whatever line they are stopped at."""

    def after_fork(self, *, child: bool) -> None:
        """Forget, in a child, what others compute: they are not there, and their locks are held for good."""
        if child:
            self._held = {}

    def take(self, keys: Sequence[bytes], running: Any) -> tuple[Flight, Ids, dict[int, Flight]]:
        """Begin a flight of those keys that nobody computes.

        Parameters
        ----------
        keys : sequence of bytes
            Each once.
        running : lock
            Which the caller holds in a ``with`` block until it has ended every flight of its own.

        Returns
        -------
        flight, mine, others
            The flight, positions of its keys, and the flights of the other keys, by position.
        """
        mine: list[int] = []
        others: dict[int, Flight] = {}
        flight = Flight(running)
        flight.landed.acquire()
        with self._lock:
            for position, key in enumerate(keys):
                other = self._held.get(key)
                if other is not None and other.under_way:
                    others[position] = other
                else:
                    self._held[key] = flight
                    flight.keys.append(key)
                    mine.append(position)
        return flight, np.array(mine, np.int64), others

    def begin(self, key: bytes, running: Any) -> Flight | None:
        """As `take`, of one key; None where another computes it."""
        flight = Flight(running, threading.Lock(), [key], {}, {})
        flight.landed.acquire()
        with self._lock:
            other = self._held.get(key)
            if other is not None and other.under_way:
                return None
            self._held[key] = flight
        return flight

    def give_up(self, flight: Flight, keys: Sequence[bytes]) -> None:
        """Take keys out of a flight: who waits for them looks again when it is over."""
        if not keys:
            return
        gone = set(keys)
        with self._lock:
            flight.keys = [key for key in flight.keys if key not in gone]
            for key in gone:
                if self._held.get(key) is flight:
                    del self._held[key]

    def end(self, flight: Flight) -> None:
        """End a flight with what has come of it; done twice it is as if done once."""
        with self._lock:  # counted first: who finds a key free knows then that it may be in the store
            self.landed += 1
            for key in flight.keys:
                if self._held.get(key) is flight:
                    del self._held[key]
        flight.land()


class _Here(threading.local):
    def __init__(self) -> None:
        self.computing: Any = threading.RLock()


_here = _Here()


def computing() -> Any:
    """Return what a thread holds, in a ``with`` block, while it runs an op's function."""
    return _here.computing


def is_nested() -> bool:
    """Whether this thread is called from within an op's function."""
    return bool(_here.computing._is_owned())
