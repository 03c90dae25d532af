"""Keys in flight: one thread computes, others wait for it, and nobody waits for what never comes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import CodeType
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from scripts.torturing.interrupting import Interrupting
from whiteboard.evaluation import agreement
from whiteboard.evaluation.execution import InThread
from whiteboard.evaluation.filling import Filling
from whiteboard.evaluation.flights import Flight, Flights

pytestmark = pytest.mark.usefixtures("builtin_ops_only")

LONG = 20.0
"""Seconds that no test takes, but one that hangs."""


class Turns:
    """What an op's function does where it is watched: say that it has begun, and go on when it may."""

    def __init__(self) -> None:
        self.calls: Counter[float] = Counter()
        self.begun, self.go = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.inner: Callable[[float], object] = lambda _: None

    def enter(self, x: Any) -> None:
        self.calls[float(x[0])] += 1
        self.begun.set()
        assert self.go.wait(LONG)
        self.inner(float(x[0]))
        if self.error is not None:
            error, self.error = self.error, None
            raise error


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    """Register an op whose function is watched, and whose hits are not computed again to check them."""
    monkeypatch.setattr(agreement, "FIRST", 0)
    turns = Turns()

    def watched(x: Any) -> Any:
        turns.enter(x)
        return np.square(x).sum()

    wb.op(name="watched", gradient="none", identity="watched 1")(watched)
    return turns


@pytest.fixture(params=[2**28, 0], ids=["memory", "no memory"])
def board(request: pytest.FixtureRequest) -> Iterator[wb.Board]:
    """Return a board with and without a memory tier."""
    with wb.open(":memory:", memory_bytes=request.param) as opened:
        yield opened


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Return threads that ask at once."""
    with ThreadPoolExecutor(8) as threads:
        yield threads


X = np.arange(1.0, 17.0)[:, None]
Y = np.square(X).sum(1)


def test_each_key_is_computed_once(board: wb.Board, turns: Turns, pool: ThreadPoolExecutor) -> None:
    """Threads that ask for the same keys in any order: 16 computations, right answers, and counts that agree."""
    orders = [np.random.default_rng(seed).permutation(16) for seed in range(8)]
    asked = [pool.submit(board.call_many, "watched", X[order]) for order in orders]
    assert turns.begun.wait(LONG)
    turns.go.set()
    for order, each in zip(orders, asked, strict=True):
        assert each.result(LONG).y.tobytes() == Y[order].tobytes()
    assert turns.calls == Counter(X[:, 0].tolist())
    stats = board.stats()
    assert (stats["misses"], stats["hits_memory"] + stats["hits_disk"], stats["puts"]) == (16, 7 * 16, 16)
    assert sum(int((each.result().hit == 0).sum()) for each in asked) == 16


def test_hits_and_other_keys_do_not_wait(board: wb.Board, turns: Turns, pool: ThreadPoolExecutor) -> None:
    """Beside a thread that computes, others are answered: hits, and ops that are computed meanwhile."""
    board.call("tanh", X[0])
    slow = pool.submit(board.call, "watched", X[0])
    assert turns.begun.wait(LONG)
    assert pool.submit(board.call, "tanh", X[0]).result(LONG).hit != "miss"
    assert pool.submit(board.call, "tanh", X[1]).result(LONG).hit == "miss"
    assert not slow.done()
    turns.go.set()
    assert slow.result(LONG).hit == "miss"


def test_who_waits_gets_the_error(board: wb.Board, turns: Turns, pool: ThreadPoolExecutor) -> None:
    """A job that fails is not computed again by who waited for it: it fails for all who asked meanwhile."""
    turns.error = ArithmeticError("no")
    asked = [pool.submit(board.call, "watched", X[0]) for _ in range(2)]
    assert turns.begun.wait(LONG)
    while not board.pipeline._ground.flights._held:
        pass
    waits = threading.Event()
    waits.wait(0.05)  # the second one waits by now, or asks later and computes
    turns.go.set()
    ended = [each.exception(LONG) for each in asked]
    assert [type(error) for error in ended if error is not None]
    assert all(isinstance(error, ArithmeticError) for error in ended if error is not None)
    assert board.call("watched", X[0]).y == 1.0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_is_interrupted_leaves_the_key_to_who_waits(
    board: wb.Board, turns: Turns, error: type[BaseException]
) -> None:
    """An interrupt of the thread that computes is its own; who waits computes the key."""
    raised: list[BaseException] = []
    answers: list[Any] = []

    def interrupted() -> None:
        try:
            board.call("watched", X[0])
        except BaseException as stop:
            raised.append(stop)  # with the frames that it came through

    turns.error = error()
    first = threading.Thread(target=interrupted)
    first.start()
    assert turns.begun.wait(LONG)
    second = threading.Thread(target=lambda: answers.append(board.call("watched", X[0])))
    second.start()
    second.join(0.05)
    turns.go.set()
    for thread in (first, second):
        thread.join(LONG)
    assert [type(each) for each in raised] == [error]
    assert [each.y for each in answers] == [1.0]
    assert turns.calls[1.0] == 2


def test_calls_from_within_a_function_never_wait_for_each_other(
    board: wb.Board, turns: Turns, pool: ThreadPoolExecutor
) -> None:
    """Two threads whose functions ask for what the other one computes are both answered."""
    both = threading.Barrier(2)

    def ask_for_the_other(x: float) -> None:
        if x in (1.0, 2.0) and threading.get_ident() not in asked:
            asked.add(threading.get_ident())
            both.wait(LONG)
            board.call("watched", X[1] if x == 1.0 else X[0])

    asked: set[int] = set()
    turns.inner = ask_for_the_other
    turns.go.set()
    done = [pool.submit(board.call, "watched", X[row]) for row in (0, 1)]
    assert [each.result(LONG).y for each in done] == [1.0, 4.0]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python tells a trace of every instruction in 3.11 alone")
@pytest.mark.parametrize(
    "code",
    [
        Flights.take.__code__,
        Flights.end.__code__,
        Flight.land.__code__,
        Filling.fill.__code__,
        Filling._begun.__code__,
        Filling._take.__code__,
        InThread._session.__code__,
    ],
    ids=lambda code: code.co_qualname,
)
def test_an_interrupt_at_any_line_holds_up_nobody(code: CodeType) -> None:
    """Whatever line is hit, with the frames kept alive, other threads get these keys, and so does this one."""
    few = X[:3]
    for number in range(1, 100):
        with wb.open(":memory:") as board:
            raised = Interrupting(number, KeyboardInterrupt, code).run(lambda: board.call_many("tanh", few))
            answers: list[Any] = []
            other = threading.Thread(target=lambda to=answers, on=board: to.append(on.call_many("tanh", few)))
            other.start()
            other.join(LONG)
            answers.append(board.call_many("tanh", few))
            for answer in answers:
                assert answer.y.tobytes() == np.tanh(few).tobytes()
            assert len(answers) == 2
        if raised is None:
            assert number > 1
            return
    pytest.fail("the function has no end")


def test_threads_of_tolerance_ops_have_the_bits_of_one(pool: ThreadPoolExecutor) -> None:
    """What is in flight has no part in the bins of an op whose bits depend on its bin."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(40, 33)), np.broadcast_to(rng.normal(size=(17, 33)), (40, 17, 33))
    b = np.zeros((40, 17))
    with wb.open(":memory:") as alone, wb.open(":memory:") as board:
        expected = alone.call_many("linear_gemm", x, w, b)
        for each in [pool.submit(board.call_many, "linear_gemm", x, w, b) for _ in range(8)]:
            assert each.result(LONG).y.tobytes() == expected.y.tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_child_waits_for_no_thread_of_its_parent(
    board: wb.Board, turns: Turns, pool: ThreadPoolExecutor
) -> None:
    """What a thread of the parent computes at the fork, the child computes itself: that thread is not there."""
    slow = pool.submit(board.call, "watched", X[0])
    assert turns.begun.wait(LONG)
    child = os.fork()
    if not child:
        signal.alarm(int(LONG))
        turns.go = threading.Event()
        turns.go.set()
        os._exit(0 if board.call("watched", X[0]).hit == "miss" else 1)
    turns.go.set()
    assert os.waitpid(child, 0)[1] == 0
    assert slow.result(LONG).hit == "miss"


def test_one_key_is_begun_once() -> None:
    """As `take` has it: by nobody else before it is over, or before who computes it has gone."""
    flights, key = Flights(), b"k" * 16
    running, gone = threading.Lock(), threading.Lock()
    with running:
        first = flights.begin(key, running)
        assert first is not None
        assert flights.begin(key, running) is None
        assert not len(flights.take([key], running)[1])
        flights.end(first)
        with gone:
            left = flights.begin(key, gone)
        assert left is not None
        again = flights.begin(key, running)
        assert again is not None
        flights.end(left)  # another's by now
        assert flights.begin(key, running) is None
        flights.end(again)
    assert flights.landed == 3
    assert not flights._held
