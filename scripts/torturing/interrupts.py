"""Interrupt every public call at whatever line a signal can reach, and see that what comes next is right.

Two ways: at each such line of a call in turn, by a trace (``--lines``), and by real signals at random moments of a life
of calls on one board (``--signals``). After each: the state is the one before or the one after, every answer is right,
no lock, transaction or future is left over, and what goes on from there ends in the bits of a twin that was never
disturbed. The exception is kept while this is looked at, as an interactive interpreter keeps it.
"""

from __future__ import annotations

import argparse
import dis
import faulthandler
import gc
import json
import os
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import numpy as np

import whiteboard as wb
from whiteboard import storage
from whiteboard.storage.sqlite import write_queue
from whiteboard.storage.sqlite.database import Database
from whiteboard.storage.stores import Stores

NODES: Final = 40
_HANGS: Final = 30
"""Seconds after which a call hangs: then all threads are shown, and the torture has failed."""
RULE: Final = wb.rules.StressDescent(omega=0.5)
CHECKED: Final = frozenset({"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"})
"""The instructions after which the interpreter looks whether a signal has come."""

TRACED: Final = (str(Path(wb.__file__).parent), "/sqlalchemy/", "contextlib.py", str(Path(storage.__file__).parent))


# -- where a signal can reach


@cache
def _reach(code: CodeType) -> tuple[frozenset[int], dict[int, int]]:
    """Return the offsets after which a signal is looked for, and for each offset the handler an exception finds."""
    instructions = list(dis.get_instructions(code))
    entries = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    handler = {
        each.offset: next((entry.target for entry in entries if entry.start <= each.offset < entry.end), -1)
        for each in instructions
    }
    return frozenset(each.offset for each in instructions if each.opname in CHECKED), handler


class Interrupting:
    """A trace that raises an error at the n-th line that a signal can reach; n = 0 only counts them.

    Lines are those of `only`, or else of all of whiteboard and of what it works with.
    """

    def __init__(self, at: int, error: type[BaseException], only: CodeType | None = None) -> None:
        self.at, self.error, self.only, self.count, self.where = at, error, only, 0, ""
        self._last: dict[FrameType, tuple[int, int]] = {}

    def __call__(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        if frame.f_back in self._last:
            self._last[frame.f_back] = (-1, -1)  # no signal is looked for where a call of a Python function returns
        code = frame.f_code
        if self.only is not code if self.only else not any(part in code.co_filename for part in TRACED):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._local

    def _local(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "return":
            self._last.pop(frame, None)
        elif event == "opcode":
            looks, handler = _reach(frame.f_code)
            before, line = self._last.get(frame, (-1, -1))
            now = frame.f_lasti
            reached = before in looks and handler.get(before) == handler.get(now) and line != frame.f_lineno
            self._last[frame] = (now, frame.f_lineno if reached else line)
            if reached:
                self.count += 1
                if self.count == self.at:
                    self._last.clear()
                    sys.settrace(None)
                    self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
                    raise self.error
        return self._local

    def run(self, work: Callable[[], object]) -> BaseException | None:
        """Run `work` under the trace; return what was raised."""
        sys.settrace(self)
        try:
            work()
        except self.error as error:
            return error
        finally:
            sys.settrace(None)
            self._last.clear()
        return None


# -- what is interrupted, and what has to be true then


class Life:
    """A board with a system, its twin, and the calls that are made of both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.edges = np.array([(i, (i * 7 + j) % NODES) for i in range(NODES) for j in (1, 2)])
        self.target = np.linspace(1.0, 3.0, len(self.edges))
        self.jobs = wb.JobBatch("distance", self.edges, target=self.target, scale=0.1 / self.target, attr="p")
        self.futures: list[Future[Any]] = []
        self.x = np.random.default_rng(1).normal(size=(300, 6))
        self.y = np.tanh(self.x)
        self.open()

    def open(self) -> None:
        """Open the board and its system."""
        self.board = wb.open(self.path, memory_bytes=2**18)
        self.system = self.board.system("s", takeover=True)

    def begin(self) -> None:
        """Make the nodes and the first commit."""
        self.system.add_nodes(range(NODES), p=np.random.default_rng(0).normal(size=(NODES, 3)))
        self.system.commit()

    def round(self) -> None:
        """Process and commit."""
        if not self.system.waiting:
            self.system.process(self.jobs)
        self.system.commit(RULE)

    def ask(self, first: int, n: int = 8) -> None:
        """Ask for some packages and compare."""
        many = self.board.call_many("tanh", self.x[first : first + n])
        assert many.y.tobytes() == self.y[first : first + n].tobytes(), "a wrong answer"

    def free(self) -> None:
        """Nothing is left over: a second board in the process, and another process's lock, write at once."""
        assert isinstance(self.board._store, Stores)
        database = self.board._store.database
        assert isinstance(database, Database)
        lock = database.lock
        assert lock is not None
        with database._mutex:  # which the thread that cuts the log has while it holds the lock
            assert not lock.held, "the write lock is still held"
            assert database._pool.raw is None or not database._pool.raw.in_transaction, "a transaction is still open"
        with wb.open(self.path) as other:
            system = other.system("other")
            if system.head is None:
                system.add_nodes([0], theta=[0.0])
            system.write(0, theta=float(system.head.id + 1 if system.head else 0))
            system.commit()


@cache
def digests() -> tuple[str, ...]:
    """The digests of the first commits of a life that nobody disturbs."""
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder) / "a.db")
        life.begin()
        for _ in range(4):
            life.round()
        found = tuple(commit.digest for commit in life.system.history())
        life.board.close()
    return found


def _commit(life: Life) -> Callable[[], object]:
    life.begin()
    life.system.process(life.jobs)
    return lambda: life.system.commit(RULE)


def _process(life: Life) -> Callable[[], object]:
    life.begin()
    return lambda: life.system.process(life.jobs)


def _add_nodes(life: Life) -> Callable[[], object]:
    return lambda: life.system.add_nodes(range(NODES), p=np.random.default_rng(0).normal(size=(NODES, 3)))


def _call(life: Life) -> Callable[[], object]:
    life.begin()
    life.ask(0)
    return lambda: life.board.call("tanh", life.x[20])


def _call_many(life: Life) -> Callable[[], object]:
    life.begin()
    life.ask(0)
    life.board.flush()
    return lambda: life.ask(4)


def _drain(life: Life) -> Callable[[], object]:
    life.begin()
    life.futures = [life.board.submit(job, life.system) for job in _list(life)]
    return life.board.drain


def _list(life: Life) -> list[wb.Job]:
    columns = zip(life.edges.tolist(), life.target.tolist(), strict=True)
    return [wb.Job("distance", edge, target=t, scale=0.1 / t, attr="p") for edge, t in columns]


def _flush(life: Life) -> Callable[[], object]:
    life.begin()
    life.ask(0)
    return life.board.flush


def _close(life: Life) -> Callable[[], object]:
    life.begin()
    life.ask(0)
    life.board.submit(_list(life)[0], life.system)
    return life.board.close


def _gc(life: Life) -> Callable[[], object]:
    life.begin()
    for first in range(0, 200, 8):
        life.ask(first)
        life.board.flush()
    return lambda: life.board.gc(max_bytes=60_000)


def _open(life: Life) -> Callable[[], object]:
    life.begin()
    life.board.close()
    return life.open


SCENES: Final[dict[str, Callable[[Life], Callable[[], object]]]] = {
    "call": _call,
    "call_many": _call_many,
    "process": _process,
    "commit": _commit,
    "add_nodes": _add_nodes,
    "drain": _drain,
    "flush": _flush,
    "close": _close,
    "gc": _gc,
    "open": _open,
}


def check(scene: str, life: Life) -> None:
    """What comes after an interrupt is right, and ends where an undisturbed life ends."""
    want = digests()
    if scene in ("close", "open"):
        life.board.close()
        life.open()
    system = life.system
    if scene == "add_nodes":
        assert len(system.nodes) in (0, NODES), "some of the nodes"
        if not len(system.nodes):
            _add_nodes(life)()
        assert sorted(system.nodes) == list(range(NODES))
        system.commit()
    if scene == "process":
        assert system.waiting in (0, 2 * len(life.jobs)), "some of the impulses"
    if scene == "drain":
        life.board.drain()
        for future, job in zip(life.futures, _list(life), strict=True):
            assert future.done(), "a future that is never done"
            p = [np.asarray(system.nodes[i].p) for i in job.src_ids]
            assert abs(float(future.result().y) - np.linalg.norm(p[0] - p[1])) < 1e-12
        assert system.waiting == 2 * len(life.jobs), f"{system.waiting} impulses of {2 * len(life.jobs)}"
    head = system.head
    assert head is not None
    assert head.digest == want[head.id]
    assert system.digest() == head.digest, "the state in memory is not the head's"
    life.free()
    for first in (0, 4, 20):
        life.ask(first)
    for _ in range(2 - head.id):
        life.round()
    assert system.digest() == want[2], "another end"
    life.board.flush()
    life.board.close()
    with wb.open(life.path, readonly=True) as board:
        assert [commit.digest for commit in board.system("s").history()] == list(want[:3])
        assert board.verify().ok


@contextmanager
def quick() -> Iterator[None]:
    """Have nobody wait for a minute: what would is a fault."""
    before = write_queue.WAIT_SECONDS
    write_queue.WAIT_SECONDS = 2.0
    try:
        yield
    finally:
        write_queue.WAIT_SECONDS = before


def lines(scene: str, step: int, error: type[BaseException], say: Callable[[str], None]) -> dict[str, int]:
    """Interrupt a scene at every `step`-th line; return counts."""
    counts = {"lines": 0, "interrupts": 0, "wrong": 0}
    at = 1
    while True:
        with tempfile.TemporaryDirectory() as folder, quick():
            life = Life(Path(folder) / "a.db")
            work = SCENES[scene](life)
            trace = Interrupting(at, error)
            kept = trace.run(work)
            if kept is None and trace.count < at:
                counts["lines"] = trace.count
                life.board.close()
                return counts
            counts["interrupts"] += 1
            try:
                check(scene, life)
            except Exception as wrong:
                counts["wrong"] += 1
                say(f"{scene} at {trace.where} ({at}): {type(wrong).__name__}: {wrong}")
                say("".join(traceback.format_tb(wrong.__traceback__)[-2:]))
            del kept
        at += step


# -- real signals


class Soak:
    """One board that is interrupted at random moments, for thousands of times, and looked at after each."""

    def __init__(self, path: Path, seed: int, say: Callable[[str], None]) -> None:
        self.random, self.say = random.Random(seed), say
        self.life = Life(path)
        self.life.begin()
        self.twin = Life(path.with_name("twin.db"))
        self.twin.begin()
        self.want = {0: self.twin.system.digest()}
        self.armed = False
        self.futures: list[Future[Any]] = []
        self.counts: Counter[str] = Counter()

    def handler(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Raise where a call is under way."""
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt

    def wanted(self, number: int) -> str:
        """The digest of the twin at a commit."""
        while max(self.want) < number:
            self.twin.round()
            head = self.twin.system.head
            assert head is not None
            self.want[head.id] = head.digest
        return self.want[number]

    def once(self) -> None:
        """Make one call with a signal under way, and look."""
        what = self.random.choice(["round", "round", "call", "flush", "drain", "gc"])
        if what == "drain" and not self.life.system.waiting:
            self.futures = [self.life.board.submit(job, self.life.system) for job in _list(self.life)]
        delay = self.random.choice([self.random.uniform(1e-5, 2e-3), self.random.uniform(1e-4, 8e-3)])
        kept: BaseException | None = None
        faulthandler.dump_traceback_later(_HANGS, exit=True)
        try:
            self.armed = True
            signal.setitimer(signal.ITIMER_REAL, delay)
            self.act(what)
        except KeyboardInterrupt as error:
            kept = error
            self.counts["interrupts"] += 1
        finally:
            self.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.dump_traceback_later(_HANGS, exit=True)
        self.look(what)
        faulthandler.cancel_dump_traceback_later()
        del kept

    def act(self, what: str) -> None:
        """Make one call."""
        life = self.life
        if what == "round":
            life.round()
        elif what == "call":
            life.ask(self.random.randrange(280))
        elif what == "flush":
            life.board.flush()
        elif what == "gc":
            life.board.gc(max_bytes=200_000)
        else:
            life.board.drain()

    def look(self, what: str) -> None:
        """See that all is right."""
        life, system = self.life, self.life.system
        if what == "drain":
            life.board.drain()
            assert all(future.done() for future in self.futures), "a future that is never done"
        assert system.waiting in (0, 2 * len(life.jobs)), f"{system.waiting} impulses wait"
        assert system.head is not None
        assert system.head.digest == self.wanted(system.head.id), "another commit"
        assert system.digest() == system.head.digest, "the state in memory is not the head's"
        life.ask(self.random.randrange(280))
        assert isinstance(life.board._store, Stores)
        database = life.board._store.database
        assert isinstance(database, Database)
        assert database.lock is not None
        with database._mutex:  # which the thread that cuts the log has while it holds the lock
            assert not database.lock.held, "the write lock is still held"
        if self.counts["interrupts"] % 100 == 0:
            life.free()

    def run(self, interrupts: int) -> dict[str, int]:
        """Go on until so many interrupts have come."""
        before = signal.signal(signal.SIGALRM, self.handler)
        try:
            with quick():
                while self.counts["interrupts"] < interrupts:
                    try:
                        self.once()
                    except Exception as wrong:
                        self.counts["wrong"] += 1
                        self.say(f"{type(wrong).__name__}: {wrong}")
                        self.say("".join(traceback.format_tb(wrong.__traceback__)[-3:]))
                        if self.counts["wrong"] >= 5:
                            break
        finally:
            signal.signal(signal.SIGALRM, before)
        head = self.life.system.head
        self.life.board.close()
        with wb.open(self.life.path, readonly=True) as board:
            history = board.system("s").history()
            self.counts["wrong"] += history[-1] != head
            self.counts["wrong"] += any(commit.digest != self.wanted(commit.id) for commit in history)
            self.counts["wrong"] += not board.verify().ok
        self.twin.board.close()
        return {"interrupts": self.counts["interrupts"], "commits": len(history), "wrong": self.counts["wrong"]}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="torture interrupts", description=__doc__)
    parser.add_argument("--signals", type=int, default=5000, help="so many real signals")
    parser.add_argument("--lines", type=int, default=7, metavar="STEP", help="every STEP-th line of each call; 0: none")
    parser.add_argument("--scene", choices=SCENES, action="append", help="only these calls, at lines")
    parser.add_argument("--memory-error", action="store_true", help="raise MemoryError at lines")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    said: dict[str, Any] = {"wrong": 0}
    error: type[BaseException] = MemoryError if options.memory_error else KeyboardInterrupt
    for scene in options.scene or SCENES if options.lines else ():
        said[scene] = lines(scene, options.lines, error, say)
        said["wrong"] += said[scene]["wrong"]
        say(f"{scene}: {said[scene]}")
        gc.collect()
    if options.signals:
        with tempfile.TemporaryDirectory() as folder:
            said["signals"] = Soak(Path(folder) / "a.db", options.seed, say).run(options.signals)
        said["wrong"] += said["signals"]["wrong"]
    print(json.dumps(said))
    return int(bool(said["wrong"]))


if __name__ == "__main__":
    os.environ.setdefault("WHITEBOARD_POISON", "1")
    sys.exit(main())
