"""Work in threads: in order, bounded, and done by the caller where there can be no threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from tests.storage.samples import run_python
from whiteboard.concurrency import parallel
from whiteboard.concurrency.parallel import overlapped


@pytest.mark.parametrize("cores", [1, 2, 4])
@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_results_come_in_order(n: int, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are those of a loop, however many threads there are."""
    monkeypatch.setattr(parallel, "cores", lambda: cores)
    assert list(overlapped(lambda i: i * i, range(n))) == [i * i for i in range(n)]


def test_few_items_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items are taken as results are, by the thread that asks for these."""
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            assert threading.current_thread() is threading.main_thread()
            taken.append(i)
            yield i

    results = overlapped(str, items())
    assert next(results) == "0"
    assert len(taken) <= 6
    assert len(list(results)) == 99


def test_more_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many more may be under way; what nobody asks for any more is not begun."""
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    done: list[int] = []

    def work(i: int) -> int:
        done.append(i)
        if i:
            time.sleep(0.02)
        return i

    results = overlapped(work, iter(range(100)), ahead=50)
    assert next(results) == 0
    results.close()
    assert len(done) < 20
    assert list(overlapped(work, range(4), ahead=50)) == [0, 1, 2, 3]


def test_an_error_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one item raises is raised where its result would have been."""
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    results = overlapped(lambda i: 1 // i, [1, 1, 0, 1])
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_while_the_interpreter_ends() -> None:
    """At exit, where no thread can be given work any more, the caller does it."""
    code = """
import atexit
from whiteboard.concurrency import parallel
parallel.cores = lambda: 2
atexit.register(lambda: print(list(parallel.overlapped(str, range(4)))))
"""
    done = run_python(code)
    assert (done.stdout.strip(), done.stderr) == ("['0', '1', '2', '3']", "")


def test_cores_are_those_of_the_process() -> None:
    """One core at least is worth a thread, and four at most."""
    assert 1 <= parallel.cores() <= min(4, os.cpu_count() or 1)
