"""Computed once, of all processes: real ones on one store, which are killed, stopped, and fail."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.storage.samples import environment
from whiteboard.evaluation.costs import Costs
from whiteboard.evaluation.elsewhere import Elsewhere, is_dear
from whiteboard.ops.spec import OpSpec
from whiteboard.records.claims import Holder

pytestmark = pytest.mark.usefixtures("builtin_ops_only")

RUN = """
import json, os, sys, time
import numpy as np
import whiteboard as wb
from whiteboard.evaluation import elsewhere

store, log, n, seconds, lease, bad = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:7])
elsewhere.Elsewhere.__init__.__defaults__ = (lease, *elsewhere.Elsewhere.__init__.__defaults__[1:])
file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@wb.op(name="slow", gradient="none", identity="slow 1")
def slow(x):
    os.write(file, b"%d\\n" % int(x[0]))
    time.sleep(seconds)
    if x[0] == bad:
        raise ZeroDivisionError("no such point")
    return np.square(x).sum()

with wb.open(store, durability="normal") as board:
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    r = board.call_many("slow", np.arange(n)[:, None], errors="collect")
    took = time.monotonic() - began
    s = board.stats()
    right = r.y[~r.failed].tobytes() == np.square(np.arange(n))[~r.failed].tobytes()
    counts = {name: int(s[name]) for name in ("misses", "hits_memory", "hits_disk", "waited")}
    tiers = np.bincount(r.hit, minlength=3).tolist()
    print(json.dumps({"right": right, "took": took, "tiers": tiers, "failed": sorted(r.errors), **counts}), flush=True)
"""


@contextmanager
def processes(
    tmp_path: Path, count: int, n: int, seconds: float, *, lease: float = 30.0, bad: int = -1, store: str = ""
) -> Iterator[list[subprocess.Popen[str]]]:
    """Begin some processes that ask for the same keys, once all of them are there."""
    store = store or str(tmp_path / "a.db")
    wb.open(store).close()
    arguments = [store, tmp_path / "log", n, seconds, lease, bad]
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        begun = [
            stack.enter_context(
                subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment(), cwd=tmp_path)
            )
            for _ in range(count)
        ]
        for each in begun:
            stack.callback(each.kill)
        for each in begun:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in begun:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        yield begun


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for what a process says."""
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    assert process.wait(30) == 0
    assert said["right"]
    assert said["tiers"] == [said["misses"], said["hits_memory"], said["hits_disk"]]
    return said


def computed(tmp_path: Path) -> Counter[int]:
    """How often each key was begun to be computed."""
    return Counter(map(int, (tmp_path / "log").read_text().split()))


def until_begun(tmp_path: Path, least: int = 1) -> None:
    """Wait until so many keys were begun."""
    log, end = tmp_path / "log", time.monotonic() + 30
    while not log.exists() or len(log.read_text().split()) < least:
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize(("n", "seconds"), [(16, 0.1), (60, 0.02)])
def test_each_key_is_computed_once(tmp_path: Path, n: int, seconds: float) -> None:
    """Four processes and the same keys: each is computed by one, they share the work, and what they count agrees."""
    with processes(tmp_path, 4, n, seconds) as begun:
        said = [told(each) for each in begun]
    assert computed(tmp_path) == Counter(range(n))
    assert sum(each["misses"] for each in said) == n
    assert sum(each["hits_disk"] + each["hits_memory"] for each in said) == 3 * n
    assert 0 < sum(each["waited"] for each in said) <= 3 * n  # who begins late finds the first ones there
    assert sum(each["misses"] > 0 for each in said) >= 2
    with wb.open(tmp_path / "a.db") as board:
        assert board._store.info()["claims"] == 0


def test_a_killed_holder_is_replaced(tmp_path: Path) -> None:
    """After kill -9 of one in the middle all others end, and only what was under way there is computed again."""
    with processes(tmp_path, 3, 30, 0.03) as begun:
        until_begun(tmp_path, 12)
        begun[0].kill()
        begun[0].wait()
        said = [told(each) for each in begun[1:]]
    again = computed(tmp_path)
    assert set(again) == set(range(30))
    assert max(again.values()) <= 2
    assert sum(again.values()) <= 30 + 8  # a bin of a tenth of a second, which loaded machines fill with more
    assert all(each["took"] < 20 for each in said)


def test_a_stopped_holder_is_waited_for_as_long_as_its_lease(tmp_path: Path) -> None:
    """Whoever waits behind one that is stopped computes it after a lease, one of them for all; then it goes on."""
    with processes(tmp_path, 3, 1, 2.0, lease=1.0) as begun:
        until_begun(tmp_path)
        time.sleep(0.5)  # the others have looked, and wait
        holder = next(each for each in begun if _computes(tmp_path, each))
        holder.send_signal(signal.SIGSTOP)
        others = [told(each) for each in begun if each is not holder]
        assert sorted(each["misses"] for each in others) == [0, 1]
        assert all(each["took"] < 15 for each in others)
        assert computed(tmp_path) == Counter({0: 2})
        holder.send_signal(signal.SIGCONT)
        assert told(holder)["misses"] == 1
    with wb.open(tmp_path / "a.db") as board:
        assert board.stats()["packages"] == 1
        assert board.stats()["pages"] == 1


def _computes(tmp_path: Path, process: subprocess.Popen[str]) -> bool:
    """Whether a process is the one that has claimed."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        return bool(connection.execute("SELECT 1 FROM claim WHERE pid = ?", (process.pid,)).fetchall())


def test_a_job_that_fails_fails_everywhere(tmp_path: Path) -> None:
    """Nobody waits for what has no result: it is computed where it is asked for, and the rest once."""
    with processes(tmp_path, 3, 8, 0.05, bad=3) as begun:
        said = [told(each) for each in begun]
    assert [each["failed"] for each in said] == [[3]] * 3
    again = computed(tmp_path)
    assert again.pop(3) == 3
    assert again == Counter(set(range(8)) - {3})


def test_threads_and_processes(tmp_path: Path) -> None:
    """Two boards of one process share as two processes do."""
    calls: list[float] = []

    def slow(x: Any) -> Any:
        calls.append(float(x[0]))
        time.sleep(0.05)
        return np.square(x).sum()

    wb.op("slow", gradient="none", identity="slow 2")(slow)
    x = np.arange(8.0)[:, None]
    with wb.open(tmp_path / "a.db") as one, wb.open(tmp_path / "a.db") as two, ThreadPoolExecutor(4) as pool:
        done = [pool.submit(board.call_many, "slow", x) for board in (one, two, one, two)]
        assert all(each.result().y.tobytes() == np.square(x).sum(1).tobytes() for each in done)
    assert sorted(calls) == list(range(8))


def test_an_op_that_asks_for_itself_elsewhere(tmp_path: Path) -> None:
    """A function that evaluates others within itself waits for nobody, so nobody waits for ever."""
    with wb.open(tmp_path / "a.db") as one, wb.open(tmp_path / "a.db") as two:

        def inner(x: Any) -> Any:
            time.sleep(0.03)
            return np.square(x).sum()

        def around(x: Any) -> Any:
            return np.asarray(two.call("inner", x).y) + 1

        wb.op("inner", gradient="none", identity="inner 1")(inner)
        wb.op("around", gradient="none", identity="around 1")(around)
        assert one.call("around", np.ones(3)).y == 4.0
        assert two.call("inner", np.ones(3)).hit == "memory"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_was_interrupted_is_free(tmp_path: Path, error: type[BaseException]) -> None:
    """A claim is given back where its op raises or is interrupted, even while the traceback is kept."""

    def stops(x: Any) -> Any:
        raise error

    wb.op("stops", gradient="none", identity="stops 1")(stops)
    with wb.open(tmp_path / "a.db") as board:
        with pytest.raises(error) as kept:
            board.call("stops", np.ones(3))
        assert kept.value is not None
        assert board._store.info()["claims"] == 0


def test_cheap_bins_claim_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built-in ops, and users' once they are known to be cheap, write nothing but packages."""
    wb.op("cheap", gradient="none", identity="cheap 1")(lambda x: np.square(x).sum())
    with wb.open(tmp_path / "a.db") as board:
        board.call_many("cheap", np.ones((1, 3)))  # what it costs is not known before
        monkeypatch.setattr(Costs, "of", lambda *_: 1000.0)  # as on a machine that does nothing else
        monkeypatch.setattr(type(board._store.packages), "claim", lambda _: pytest.fail("claimed"))
        board.call_many("cheap", np.arange(60.0).reshape(20, 3))
        board.call_many("tanh", np.arange(60.0).reshape(20, 3))


class Clock:
    """Time as a test has it: sleeping takes none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.pauses = 100.0, list[float]()
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(
    ("stopped", "seconds", "least"),
    [(True, 3600.0, 10.0), (True, None, 10.0), (None, 0.5, 10.0), (None, 3.0, 30.0), (None, None, 600.0)],
)
def test_patience(monkeypatch: pytest.MonkeyPatch, stopped: bool | None, seconds: float | None, least: float) -> None:
    """How long one waits behind a holder that is stopped, or that cannot be looked at; pauses grow to half a second."""
    clock = Clock(monkeypatch)
    holder = Holder(7, np.array([0]), stopped, seconds)
    waiting = Elsewhere(lambda keys: [holder], rows=[5])
    assert waiting.wait([b""] * 6) == [5]
    assert waiting.overdue == {7}
    assert least <= clock.now - 100.0 <= least + 0.5
    assert clock.pauses[0] == 0.005
    assert max(clock.pauses) <= 0.5


def test_one_that_goes_on_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease begins anew when a holder was seen to run, and what is free is told while others are held."""
    clock = Clock(monkeypatch)

    def holders(keys: Sequence[bytes]) -> list[Holder]:
        if clock.now > 1000:
            return [Holder(8, np.array([1]), False, None)] if len(keys) == 2 else []
        return [Holder(8, np.arange(2), int(clock.now) % 9 != 0, None)]

    waiting = Elsewhere(holders, rows=[3, 4])
    assert waiting.wait([b""] * 5) == [3]
    assert waiting.rows == [4]
    assert not waiting.overdue


@pytest.mark.parametrize(
    ("user", "seconds", "dear"),
    [(True, None, True), (False, None, False), (True, 0.01, False), (True, 0.02, True), (False, 1.0, True)],
)
def test_what_is_dear(user: bool, seconds: float | None, dear: bool) -> None:
    """A bin of 20 ms is, and one of a user's op of which nothing is known."""
    spec = OpSpec.__new__(OpSpec)
    object.__setattr__(spec, "user", user)
    assert is_dear(spec, seconds) == dear
