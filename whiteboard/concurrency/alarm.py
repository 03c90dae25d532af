"""Work that is done a while later, in a thread of its own, unless it is called off.

As `threading.Timer`, but of locks in C alone: those in Python an interrupt may leave held, and then all wait for them.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable
from contextlib import suppress


class Alarm:
    """Calls `work` after some seconds. A process that ends does not wait for it.

    Raises
    ------
    RuntimeError
        The interpreter ends, and no thread can be started any more.
    """

    def __init__(self, seconds: float, work: Callable[[], object]) -> None:
        self._off = _thread.allocate_lock()
        self._off.acquire()
        off = self._off

        def wait() -> None:
            if not off.acquire(timeout=seconds):
                work()

        _thread.start_new_thread(wait, ())

    def cancel(self) -> None:
        """Call it off, if it has not begun."""
        with suppress(RuntimeError):  # called off before
            self._off.release()
