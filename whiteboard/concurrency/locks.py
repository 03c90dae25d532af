"""Locks that a fork does not tear: in the child those that other threads held are free, as these threads are not there.

What such a lock guards must stand whatever line its holder was stopped at, as an interrupt asks of it anyway.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

_made: weakref.WeakSet[Any] = weakref.WeakSet()


def lock() -> Any:
    """Return a `threading.Lock` that is free in a forked child."""
    made = threading.Lock()
    _made.add(made)
    return made


def rlock() -> Any:
    """Return a `threading.RLock` that is free in a forked child, but where the thread that forks holds it itself."""
    made = threading.RLock()
    _made.add(made)
    return made


def _free() -> None:
    for made in list(_made):
        if not (hasattr(made, "_is_owned") and made._is_owned()):
            made._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free)
