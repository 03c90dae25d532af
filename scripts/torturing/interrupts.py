"""Interrupt every public call at whatever line a signal can reach, and see that what comes next is right.

Two ways: at each such line of a call in turn, by a trace (``--lines``), and by real signals at random moments of a life
of calls on one board (``--signals``). After each: the state is the one before or the one after, every answer is right,
no lock, transaction or future is left over, and what goes on from there ends in the bits of a twin that was never
disturbed. The exception is kept while this is looked at, as an interactive interpreter keeps it.
"""

from __future__ import annotations

import argparse
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
from pathlib import Path
from types import FrameType
from typing import Any, Final

import whiteboard as wb
from scripts.torturing.interrupting import Interrupting
from scripts.torturing.lives import SCENES, Life, check, list_of
from whiteboard.storage.sqlite import write_queue
from whiteboard.storage.sqlite.database import Database
from whiteboard.storage.stores import Stores

_HANGS: Final = 30
"""Seconds after which a call hangs: then all threads are shown, and the torture has failed."""


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
            self.futures = [self.life.board.submit(job, self.life.system) for job in list_of(self.life)]
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
