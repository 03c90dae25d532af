"""What stores do when their process forks: quiet before it, whole after it on both sides."""

from __future__ import annotations

import importlib
import os
import time
import weakref
from contextlib import suppress
from typing import Any, Protocol

from whiteboard.concurrency import imports, locks


class ForkAware(Protocol):
    """A thing with locks or handles that must not be torn in two by a fork.

    Things are made quiet by ascending `fork_rank`, which is the order in which threads take their locks.
    """

    fork_rank: int

    def before_fork(self) -> None:
        """Take the locks, and close what a child must not inherit."""

    def after_fork(self, *, child: bool) -> None:
        """Release the locks."""


_watched: weakref.WeakSet[Any] = weakref.WeakSet()
_quiet: list[ForkAware] = []
_forking, _watching = locks.rlock(), locks.rlock()


def watch(thing: ForkAware) -> None:
    """Tell `thing` of every fork, for as long as it lives; it has no lock or handle before."""
    with _watching:
        _watched.add(thing)


def _before() -> None:
    _forking.acquire()
    until = time.monotonic() + imports.WAIT_SECONDS
    while True:
        imports.wait(until)  # while holding nothing that an import may ask for
        with _watching:
            things = list(_watched)
        for thing in sorted(things, key=lambda each: int(each.fork_rank)):
            # A fork cannot be refused; what could not be made quiet is left as it is.
            with suppress(Exception):
                thing.before_fork()
                _quiet.append(thing)
        # From here until after the fork nothing is waited for that others hold, so they may be kept from these two.
        _watching.acquire()
        if _watched <= set(things) and imports.hold():
            return
        _watching.release()
        _wake(child=False)


def _after(*, child: bool) -> None:
    imports.let_go()
    _wake(child=child)
    for lock in (_watching, _forking):
        with suppress(RuntimeError):  # an interrupt came before it was taken
            lock.release()


def _wake(*, child: bool) -> None:
    while _quiet:
        _quiet.pop().after_fork(child=child)


# The last to be registered is the first to be called before a fork. That of `concurrent.futures` takes a lock without
# which no thread can be given work, so it has to be called when the stores are quiet already.
importlib.import_module("concurrent.futures.thread")
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=lambda: _after(child=False), after_in_child=lambda: _after(child=True)
    )
