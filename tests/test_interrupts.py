"""An interrupt leaves the state before or the one after; `scripts/torture interrupts` looks at every line."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from types import CodeType, FrameType

import numpy as np
import pytest

import whiteboard as wb
from scripts.torturing.interrupting import Interrupting
from whiteboard.errors import ClosedError
from whiteboard.storage.cache.memory import MemoryTier
from whiteboard.storage.cache.page_index import PageIndex
from whiteboard.storage.sqlite import one_package
from whiteboard.storage.sqlite.connection import Held
from whiteboard.storage.sqlite.database import Database
from whiteboard.storage.sqlite.pool import Pool
from whiteboard.systems.nodes import Nodes
from whiteboard.systems.rounds import prepare

RULE = wb.rules.StressDescent(0.5)


def at_each_line(code: CodeType, work: Callable[[], Callable[[], object]]) -> Iterator[BaseException]:
    """Make a piece of work anew for each line of a function, run it interrupted there, and yield what it raised."""
    if sys.version_info >= (3, 12):
        pytest.skip("Python tells a trace of every instruction in 3.11 alone")
    for error in (KeyboardInterrupt, MemoryError):
        for number in range(1, 200):
            trace = Interrupting(number, error, code)
            raised = trace.run(work())
            if raised is None:
                break
            yield raised
        else:
            pytest.fail("the function has no end")


def linked(board: wb.Board, name: str = "s") -> wb.System:
    """Return a system of two nodes with a commit, and impulses for another."""
    system = board.system(name)
    system.add_nodes([0, 1], p=np.array([[0.0, 0.0], [3.0, 4.0]]))
    system.commit()
    system.process([wb.Job("distance", (0, 1), attr="p", target=1.0)])
    return system


@pytest.mark.parametrize("code", [PageIndex.add.__code__, PageIndex.remove.__code__, MemoryTier._hold_all.__code__])
def test_no_package_answers_for_another(code: CodeType) -> None:
    """Whatever line of the memory tier is hit, each key gets its own values afterwards."""
    x = np.random.default_rng(0).normal(size=(6, 400))
    boards: list[wb.Board] = []

    def work() -> Callable[[], object]:
        board = wb.open(":memory:", memory_bytes=3 * 2 * x[0].nbytes)
        boards.append(board)
        board.call("tanh", x[0])
        return lambda: [board.call("tanh", row) for row in x]

    count = 0
    for count, _ in enumerate(at_each_line(code, work), 1):  # noqa: B007
        for _ in range(2):
            for row in x[::-1]:
                assert boards[-1].call("tanh", row).y.tobytes() == np.tanh(row).tobytes()
    assert count > 2
    for board in boards:
        board.close()


@pytest.mark.parametrize(
    "code",
    [wb.System.commit.__code__, prepare.__code__, wb.System._advance.__code__, Database._transacted.__code__],
)
@pytest.mark.parametrize("store", [":memory:", "file"])
def test_a_commit_is_taken_once(tmp_path: Path, code: CodeType, store: str) -> None:
    """Interrupted at any line, a commit has landed or has not, and the one that follows it ends at the same state."""
    path = tmp_path / "a.db" if store == "file" else store
    with wb.open(path) as board:
        want = [linked(board, "twin").commit(RULE).digest]
        board.system("twin").process([wb.Job("distance", (0, 1), attr="p", target=1.0)])
        want.append(board.system("twin").commit(RULE).digest)
        systems: list[wb.System] = []

        def work() -> Callable[[], object]:
            systems.append(linked(board, f"s{len(systems)}"))
            return lambda: systems[-1].commit(RULE)

        count = 0
        for count, _ in enumerate(at_each_line(code, work), 1):  # noqa: B007
            system = systems[-1]
            assert system.head is not None
            assert system.waiting in (0, 2)
            if system.waiting:
                assert system.commit(RULE).id == 1
            assert system.head.digest == system.digest() == want[0]
            system.process([wb.Job("distance", (0, 1), attr="p", target=1.0)])
            assert system.commit(RULE).digest == want[1]
            assert [commit.id for commit in system.history()] == [0, 1, 2]
        assert count > 0
        assert board.verify().ok


@pytest.mark.parametrize("code", [wb.System.add_nodes.__code__])
def test_nodes_are_added_whole_or_not_at_all(code: CodeType) -> None:
    """What an interrupt left out can be added again, and what it let in is there with its values."""
    with wb.open(":memory:") as board:
        systems: list[wb.System] = []
        values = np.arange(6.0).reshape(3, 2)

        def work() -> Callable[[], object]:
            systems.append(board.system(f"s{len(systems)}"))
            return lambda: systems[-1].add_nodes(range(3), p=values, theta=-values)

        for _ in at_each_line(code, work):
            system = systems[-1]
            if not len(system.nodes):
                system.add_nodes(range(3), p=values, theta=-values)
            assert sorted(system.nodes) == [0, 1, 2]
            for i in range(3):
                assert np.asarray(system.nodes[i].p).tolist() == values[i].tolist()
                assert np.asarray(system.nodes[i].theta).tolist() == (-values[i]).tolist()
            system.commit()


@pytest.mark.parametrize("code", [wb.System.add_attribute.__code__, Nodes.attach.__code__])
def test_an_attribute_is_given_to_all_or_to_none(code: CodeType) -> None:
    """What an interrupt left out can be given again, and the commit is the one of a system that had none."""
    with wb.open(":memory:") as board:
        values = np.arange(6.0).reshape(3, 2)
        systems: list[wb.System] = []

        def work() -> Callable[[], object]:
            system = board.system(f"s{len(systems)}")
            system.add_nodes([0, 1, 2], p=values)
            system.commit()
            systems.append(system)
            return lambda: system.add_attribute("ctrl", [2, 0], values[:2])

        work()()
        want = systems[0].commit().digest
        for _ in at_each_line(code, work):
            system = systems[-1]
            if "ctrl" not in system.nodes[2].attrs:
                system.add_attribute("ctrl", [2, 0], values[:2])
            assert system.commit().digest == want
            assert system.nodes[0].ctrl.tolist() == values[1].tolist()
        assert len(systems) > 2


def test_a_waiting_impulse_can_be_dropped() -> None:
    """`discard` lets go of impulses and writes that were not committed."""
    with wb.open(":memory:") as board:
        system = linked(board)
        assert (system.waiting, system.digest()) == (2, system.head.digest if system.head else None)
        system.discard()
        assert system.waiting == 0
        assert system.commit(RULE).changed == 0


def test_a_drain_that_was_interrupted_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every future gets its answer at the next drain, or an end when the board closes, and each impulse counts once."""
    board = wb.open(":memory:")
    system = board.system("s")
    system.add_nodes([0, 1], p=np.array([[0.0, 0.0], [3.0, 4.0]]))
    system.commit()
    futures = [board.submit(wb.Job("distance", (0, 1), attr="p", target=1.0), system) for _ in range(3)]

    def interrupted(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    for name in ("answer", "receive"):
        monkeypatch.setattr(wb.System, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            board.drain()
    board.drain()
    assert [float(future.result(0).y) for future in futures] == [5.0] * 3
    assert system.waiting == 6
    late = board.submit(wb.Job("distance", (0, 1), attr="p", target=1.0), system)
    monkeypatch.setattr(wb.System, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        board.drain()
    board.close()
    with pytest.raises(CancelledError):
        late.result(0)
    with pytest.raises(ClosedError):
        board.submit(wb.Job("distance", (0, 1), attr="p", target=1.0), system)


def test_a_submit_that_races_close_is_answered_or_refused() -> None:
    """No future is left that is never done."""
    for _ in range(30):
        board = wb.open(":memory:")
        system = linked(board)
        futures, refused = [], threading.Event()

        def feed(board: wb.Board = board, system: wb.System = system) -> None:
            try:
                while True:
                    futures.append(board.submit(wb.Job("distance", (0, 1), attr="p", target=1.0), system))  # noqa: B023
            except ClosedError:
                refused.set()  # noqa: B023

        thread = threading.Thread(target=feed)
        thread.start()
        while not futures:
            time.sleep(0)
        board.close()
        thread.join(20)
        assert refused.is_set()
        assert all(future.done() for future in futures)


@pytest.mark.parametrize(
    "code",
    [
        one_package.look.__code__,
        Database.look.__code__,
        Pool.register.__code__,
        Held.looking.__code__,
        Held._end_look.__code__,
        Held.settle.__code__,
    ],
)
@pytest.mark.parametrize("store", [":memory:", "file"])
def test_a_look_that_was_interrupted_holds_up_nothing(tmp_path: Path, code: CodeType, store: str) -> None:
    """Whatever line is hit, the next look answers, and another thread may close; the frames are kept alive."""
    x = np.random.default_rng(0).normal(size=(40, 50))
    raised = []

    def work() -> Callable[[], object]:
        boards.append(wb.open(tmp_path / f"{len(boards)}.db" if store == "file" else store, memory_bytes=0))
        boards[-1].call_many("tanh", x[:30])
        boards[-1].flush()
        boards[-1].call("tanh", x[30])
        return lambda: [boards[-1].call("tanh", row) for row in (x[31], x[5], x[32])]

    boards: list[wb.Board] = []
    for error in at_each_line(code, work):
        raised.append(error)
        for row in x[::-1]:
            assert boards[-1].call("tanh", row).y.tobytes() == np.tanh(row).tobytes()
        boards[-1].flush()
    for board in boards:
        closing = threading.Thread(target=board.close)
        closing.start()
        closing.join(20)
        assert not closing.is_alive()
    assert raised or store == ":memory:" or code is not one_package.look.__code__  # in some no signal is looked for


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no interval timer")
def test_no_connection_is_left_dead(tmp_path: Path) -> None:
    """Ctrl-C while SQLite runs a statement: flush, commit and close work afterwards."""
    armed = False

    def handler(_number: int, _frame: FrameType | None) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        board = wb.open(tmp_path / "a.db")
        system = linked(board)
        interrupts = 0
        for k in range(400):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, 1e-4 + 5e-6 * (k % 100))
                board._store.claim("s")
                board.call("tanh", [float(k)])
                board.flush()
            except KeyboardInterrupt:
                interrupts += 1
            finally:
                armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
        assert interrupts > 20
        assert board.call("tanh", [0.5]).y.tolist() == np.tanh([0.5]).tolist()
        board.flush()
        system.commit(RULE)
        board.close()
    finally:
        signal.signal(signal.SIGALRM, before)
    with wb.open(tmp_path / "a.db") as board:
        assert board.verify().ok
        head = board.system("s").head
        assert head is not None
        assert head.id == 1


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Path]:
    """Where a child writes what it is at when it gets SIGUSR1, be it within the fork."""
    with (tmp_path / "stack").open("w") as file:
        faulthandler.register(signal.SIGUSR1, file)
        yield tmp_path / "stack"
        faulthandler.unregister(signal.SIGUSR1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("mode", ["call", "digest", "stats", "open"])
def test_a_fork_while_others_are_in_a_call_works(tmp_path: Path, stack: Path, mode: str) -> None:
    """The child of a fork answers, whatever its parent's other threads were at."""
    path = tmp_path / "a.db"
    board = wb.open(path)
    system = board.system("s")
    system.add_nodes(range(8), theta=np.zeros((8, 16)))
    system.commit()
    stop = threading.Event()
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                board.call_many("tanh", rng.normal(size=(40, 16)))
                if not seed:
                    system.write(int(rng.integers(8)), theta=rng.normal(size=16))
                    system.commit()
        except BaseException as error:
            failed.append(error)

    def child() -> None:
        x = np.full((2, 16), 0.5)
        if mode == "call":
            assert board.call_many("tanh", x).y.tobytes() == np.tanh(x).tobytes()
        elif mode == "digest":
            assert len(system.digest()) == 32
        elif mode == "stats":
            board.stats()
        else:
            with wb.open(path, readonly=True) as other:
                assert other.call_many("tanh", x).y.tobytes() == np.tanh(x).tobytes()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(25):
            pid = os.fork()
            if pid == 0:
                try:
                    child()
                except BaseException:
                    os._exit(3)
                os._exit(0)
            assert _ended(pid, stack) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        board.close()
    assert failed == []


def _ended(pid: int, stack: Path, seconds: float = 20.0) -> int | str:
    for _ in range(int(seconds * 200)):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGUSR1)
    time.sleep(1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return f"it hangs:\n{stack.read_text()}"
