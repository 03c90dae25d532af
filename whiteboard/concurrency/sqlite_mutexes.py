"""The locks that all connections to SQLite of a process share, over a fork.

As malloc's of the C library they guard its memory, its random numbers and its list of open files; but nobody frees them
in a child, whose first use of SQLite waits for ever where another thread had one, were it for a connection of somebody
else's. https://sqlite.org/c3ref/mutex_alloc.html
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections import deque
from functools import cache
from itertools import compress, repeat
from operator import not_
from typing import Any, Final

_STATIC: Final = range(2, 14)
"""SQLITE_MUTEX_STATIC_MAIN to SQLITE_MUTEX_STATIC_VFS3."""

_SINCE: Final = (3, 9)
_POLL_SECONDS: Final = 0.0001

# Locks are taken and noted in one call of C, and the same way given back: no interrupt comes in between.
_held: list[int] = []


def hold(until: float) -> None:
    """Take them all once nobody has one, or none where that takes until then; who forks uses no SQLite before `let_go`.

    No order is kept, as none is waited for.
    """
    sqlite = sys.modules.get("_sqlite3")
    library, mutexes = (None, []) if sqlite is None else _shared(sqlite)
    while library is not None:
        _held.extend(compress(mutexes, map(not_, map(library.sqlite3_mutex_try, mutexes))))
        if len(_held) == len(mutexes):
            return
        let_go()
        if time.monotonic() > until:
            return
        time.sleep(_POLL_SECONDS)


def let_go() -> None:
    """Give back what was taken, on both sides of a fork."""
    if _held:
        library, _ = _shared(sys.modules["_sqlite3"])
        deque(map(library.sqlite3_mutex_leave, map(_held.pop, repeat(-1, len(_held)))), maxlen=0)


@cache
def _shared(sqlite: Any) -> tuple[Any, list[int]]:
    """SQLite as Python's module uses it, and the locks; where it is built into it and hides them, there are none."""
    try:
        library = ctypes.PyDLL(getattr(sqlite, "__file__", None))
        library.sqlite3_mutex_alloc.restype = ctypes.c_void_p
        library.sqlite3_mutex_try.argtypes = library.sqlite3_mutex_leave.argtypes = (ctypes.c_void_p,)
    except (AttributeError, OSError):
        return None, []
    version = tuple(map(int, sqlite.sqlite_version.split(".")))
    found = map(library.sqlite3_mutex_alloc, _STATIC) if version >= _SINCE else ()
    return library, [mutex for mutex in found if mutex]  # those of a SQLite for one thread are null
