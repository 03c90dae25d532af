"""Imports under way in other threads, which a fork waits for: its child would inherit them, and nobody there ends one.

Whoever in the child imports such a module waits for ever, as Python frees the locks of modules in no child.
"""

from __future__ import annotations

import _imp
import threading
import time
import weakref
from importlib import _bootstrap
from types import SimpleNamespace
from typing import Any, Final

WAIT_SECONDS: Final = 20.0
"""How long at most: an import may itself wait for who forks, or run for ever, as that of a server's script does."""

BEGINNING: Final = SimpleNamespace(acquire=_imp.acquire_lock, release=_imp.release_lock)
"""A lock without which no other thread begins an import."""

_POLL_SECONDS: Final = 0.001
_endless: weakref.WeakSet[Any] = weakref.WeakSet()


def wait(until: float) -> None:
    """Return once no other thread imports; what is still under way `until` then is not waited for again."""
    while others():  # and none of them is kept here, as it would then be there for ever
        if time.monotonic() > until:
            _endless.update(others())
        time.sleep(_POLL_SECONDS)


def others() -> list[Any]:
    """The locks of modules that other threads import; Python keeps one only as long as somebody is about to take it."""
    me = threading.get_ident()
    locks = (reference() for reference in list(vars(_bootstrap).get("_module_locks", {}).values()))
    return [lock for lock in locks if lock is not None and lock.owner != me and lock not in _endless]
