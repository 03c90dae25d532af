"""What a process of `processes.Processes` runs: calls that come through a pipe, one after another."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1


def main(descriptor: int, parent: int) -> None:
    """Answer calls until the pipe is closed.

    Parameters
    ----------
    descriptor : int
        Of the pipe.
    parent : int
        The process that has the other end; this one is killed when that ends, however it does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the parent to act on
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    connection = Connection(descriptor)
    with suppress(EOFError, ConnectionError):
        import whiteboard.workers.worker  # noqa: F401 - the parent is told once all is there

        connection.send_bytes(b"ready")
        while True:
            connection.send_bytes(_answered(connection.recv_bytes()))


def _answered(call: bytes) -> bytes:
    from whiteboard.workers.worker import portable

    try:
        function, arguments = pickle.loads(call)
        done: tuple[bool, Any] = True, function(*arguments)
        return pickle.dumps(done, protocol=5)
    except BaseException as error:  # SystemExit too: it ends a call, and not the worker
        return pickle.dumps((False, portable(error)), protocol=5)
