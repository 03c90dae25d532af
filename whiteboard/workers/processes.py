"""The executor that an int stands for: processes of one's own, begun when there is work, ended with their parent.

Unlike `concurrent.futures.ProcessPoolExecutor` they are no forks, which would take over locks that other threads hold,
and do not import ``__main__`` again, which a script without ``if __name__ == "__main__"`` does not stand; one that dies
costs the call that it was at, and is replaced.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from whiteboard.concurrency import locks
from whiteboard.errors import ExecutorError

P = ParamSpec("P")
T = TypeVar("T")


class Processes(Executor):
    """At most n processes, each of which a thread of this one talks to."""

    def __init__(self, n: int) -> None:
        self.n = n
        self._lock = locks.lock()
        self._here = threading.local()
        self._pool: ThreadPoolExecutor | None = None
        self._pid = os.getpid()
        self._live: set[_Process] = set()
        self._calls: WeakKeyDictionary[Future[Any], _Call] = WeakKeyDictionary()
        self._closed = False

    def __repr__(self) -> str:
        return f"{self.n} processes"

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a call of what can be pickled made in a process."""
        if kwargs:
            msg = f"expected a call without keywords, got {sorted(kwargs)}"
            raise TypeError(msg)
        call = _Call()
        with self._lock:
            if self._closed:
                msg = "the processes are shut down"
                raise RuntimeError(msg)
            if self._pool is None or self._pid != os.getpid():  # a fork has the threads no more
                self._pool, self._pid, self._live = ThreadPoolExecutor(self.n, "whiteboard-worker"), os.getpid(), set()
                self._here = threading.local()
            future = self._pool.submit(self._run, call, fn, args)
            self._calls[future] = call
        return future

    def abandon(self, future: Future[Any]) -> None:
        """End the process that is at a call, if one is; the call raises."""
        call = self._calls.get(future)
        if call is not None and not future.cancel() and call.process is not None:
            call.process.kill()

    def began(self, future: Future[Any]) -> float | None:
        """Return when a process that was ready began a call, by the monotonic clock; None where none has."""
        call = self._calls.get(future)
        return None if call is None else call.began

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - Executor's
        """End all processes at once, whatever they are at."""
        with self._lock:
            self._closed = True
            pool, live = (self._pool, list(self._live)) if self._pid == os.getpid() else (None, [])
        for process in live:
            process.kill()
        if pool is not None:
            pool.shutdown(wait=wait, cancel_futures=True)
        for process in live:
            process.end()

    def _run(self, call: _Call, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Make a call in the process of this thread."""
        data = pickle.dumps((function, arguments), protocol=5)
        process: _Process | None = getattr(self._here, "process", None)
        if process is None or process.killed:
            process = self._here.process = self._begun()
        try:
            call.process = process
            process.is_ready()
            call.began = time.monotonic()
            fine, answer = process.ask(data)
        except BaseException:
            process.kill()
            process.end()
            self._here.process = None
            with self._lock:
                self._live.discard(process)
            raise
        finally:
            call.process = None
        if fine:
            return answer
        raise answer

    def _begun(self) -> _Process:
        process = _Process()
        with self._lock:
            self._live.add(process)
            closed = self._closed
        if closed:
            process.kill()
        return process


@dataclass(slots=True, eq=False)
class _Call:
    """Where a call is being made."""

    process: _Process | None = None
    began: float | None = None


class _Process:
    """One process and the pipe to it. The thread that begins it has to live as long: with it the process ends."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        self.killed = self._ready = False
        code = (
            f"import sys; sys.path[:] = {sys.path!r}\n"
            "from whiteboard.workers import process\n"
            f"process.main({theirs.fileno()}, {os.getpid()})"
        )
        flags = [*["-O"] * sys.flags.optimize, *(f"-W{each}" for each in sys.warnoptions)]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it inherits that, and so misses no Ctrl-C
        try:
            self._process = subprocess.Popen(
                [sys.executable, *flags, "-c", code], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def ask(self, data: bytes) -> tuple[bool, Any]:
        """Return what came of a call.

        Raises
        ------
        ExecutorError
            The process has ended.
        """
        try:
            self._pipe.send_bytes(data)
            answer = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._ended(ready=True) from error
        fine, given = pickle.loads(answer)
        return fine, given

    def is_ready(self) -> None:
        """Return when it has begun.

        Raises
        ------
        ExecutorError
            It has not.
        """
        if not self._ready:
            try:
                self._ready = bool(self._pipe.recv_bytes())
            except (EOFError, OSError) as error:
                raise self._ended(ready=False) from error

    def _ended(self, *, ready: bool) -> ExecutorError:
        self.end()
        how = self._process.returncode
        name = f"was killed by {signal.Signals(-how).name}" if how < 0 else f"ended with status {how}"
        return ExecutorError(
            f"worker process {self._process.pid} {name} {'while it computed' if ready else 'as it began'}"
        )

    def kill(self) -> None:
        """End it; whoever waits for it is told."""
        self.killed = True
        with suppress(ProcessLookupError):
            self._process.kill()

    def end(self) -> None:
        """Close the pipe, and return when it has ended."""
        self._pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
