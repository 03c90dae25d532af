"""What stores do when their process forks: quiet before it, whole after it on both sides."""

from __future__ import annotations

import _thread
import importlib
import os
import signal
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import compress, repeat
from operator import attrgetter, is_, methodcaller
from typing import Any, Final, Protocol

from whiteboard.concurrency import imports, locks, sqlite_mutexes


class ForkAware(Protocol):
    """A thing with locks or handles that must not be torn in two by a fork.

    Things are made quiet by ascending `fork_rank`, which is the order in which threads take their locks.
    """

    fork_rank: int

    @property
    def fork_locks(self) -> Sequence[Any]:
        """What the thread that forks holds from before `before_fork` until after `after_fork`, taken in this order."""

    def before_fork(self) -> None:
        """Close what a child must not inherit."""

    def after_fork(self, *, child: bool) -> None:
        """Go on; after an interrupt it is called again."""


_SQLITE_SECONDS: Final = 5.0
"""How long SQLite is waited for: no lock of its own is held for longer than some microseconds."""

_PATIENCE_SECONDS: Final = 0.1
"""How long one lock is waited for while others are held: then all are given back for a moment."""

_watched: weakref.WeakSet[Any] = weakref.WeakSet()
_quiet: list[ForkAware] = []
_forking, _watching = locks.rlock(), locks.rlock()

# Locks are taken and noted in one call of C, and the same way given back: no interrupt comes in between.
_held: list[Any] = []
_acquire, _release = methodcaller("acquire", timeout=_PATIENCE_SECONDS), methodcaller("release")
_IMPORTS: Final = (imports.BEGINNING,)
_is_none = partial(is_, None)

_interrupts: list[signal.Signals] = []
"""Those that came meanwhile."""


def watch(thing: ForkAware) -> None:
    """Tell `thing` of every fork, for as long as it lives; it has no lock or handle before."""
    with _watching:
        _watched.add(thing)


def _before() -> None:
    until = time.monotonic() + imports.WAIT_SECONDS
    _uninterrupted(lambda: _quieten(until))


def _after(*, child: bool) -> None:
    _uninterrupted(lambda: _wake(child=child))
    if child:
        _interrupts.clear()  # the parent's; one of its own, of just now, would come at its next fork


def _uninterrupted(work: Callable[[], None]) -> None:
    """Run it, again after each Ctrl-C: what is raised here Python writes out, and goes on."""
    while True:
        try:
            return work()
        except KeyboardInterrupt:
            _interrupts.append(signal.SIGINT)


def _quieten(until: float) -> None:
    with _forking:
        _wake(child=False)  # what an interrupt has left quiet
        while True:
            _take(_forking)
            imports.wait(until)  # while holding nothing that an import may ask for
            with _watching:
                things = list(_watched)
            if all(map(_made_quiet, sorted(things, key=attrgetter("fork_rank")))) and _take(_watching):
                # Who begins an import now waits until after the fork: no lock that others may hold is waited for below.
                _held.extend(compress(_IMPORTS, map(_is_none, map(methodcaller("acquire"), _IMPORTS))))
                if _watched <= set(things) and not imports.others():
                    sqlite_mutexes.hold(time.monotonic() + _SQLITE_SECONDS)
                    return
            _wake(child=False)


def _made_quiet(thing: ForkAware) -> bool:
    """Whether its locks could be taken."""
    if not _take(*thing.fork_locks):
        return False
    _quiet.append(thing)
    # A fork cannot be refused; what could not be made quiet is left as it is.
    with suppress(Exception):
        thing.before_fork()
    return True


def _wake(*, child: bool) -> None:
    sqlite_mutexes.let_go()
    failed: Exception | None = None
    while _quiet:
        try:
            _quiet[-1].after_fork(child=child)
        except Exception as error:
            failed = error
        _quiet.pop()
    deque(map(_release, map(_held.pop, repeat(-1, len(_held)))), maxlen=0)
    if failed is not None:
        raise failed


def _take(*wanted: Any) -> bool:
    """Take some locks, or not all of them: who has one may wait for another that is held here."""
    before = len(_held)
    _held.extend(compress(wanted, map(_acquire, wanted)))
    return len(_held) == before + len(wanted)


class _Interrupting:
    """Interrupts the main thread by all that came meanwhile, as it is gone through."""

    def __iter__(self) -> Iterator[None]:
        came = _interrupts.copy()
        _interrupts.clear()
        return map(_thread.interrupt_main, came)


# The last to be registered is the first to be called before a fork. That of `concurrent.futures` takes a lock without
# which no thread can be given work, so it has to be called when the stores are quiet already.
importlib.import_module("concurrent.futures.thread")
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=lambda: _after(child=False), after_in_child=lambda: _after(child=True)
    )
    # What it calls last is C's, so that the interrupt comes behind it: at the line that forks.
    os.register_at_fork(after_in_parent=partial(deque, _Interrupting(), 0))
