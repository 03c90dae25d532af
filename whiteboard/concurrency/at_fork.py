"""What stores do when their process forks: quiet before it, whole after it on both sides."""

from __future__ import annotations

import importlib
import os
import weakref
from contextlib import suppress
from typing import Any, Protocol


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


def watch(thing: ForkAware) -> None:
    """Tell `thing` of every fork, for as long as it lives."""
    _watched.add(thing)


def _before() -> None:
    for thing in sorted(_watched, key=lambda each: int(each.fork_rank)):
        # A fork cannot be refused; what could not be made quiet is left as it is.
        with suppress(Exception):
            thing.before_fork()
            _quiet.append(thing)


def _after(*, child: bool) -> None:
    while _quiet:
        _quiet.pop().after_fork(child=child)


# The last to be registered is the first to be called before a fork. That of `concurrent.futures` takes a lock without
# which no thread can be given work, so it has to be called when the stores are quiet already.
importlib.import_module("concurrent.futures.thread")
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=lambda: _after(child=False), after_in_child=lambda: _after(child=True)
    )
