"""The board: calls over arrays, the same bits hit or miss, and a queue that gives each job its own answer."""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.errors import (
    ClosedError,
    DtypeError,
    ParamError,
    ShapeError,
    StaleImpulseError,
    UnknownNodeError,
    UnknownOpError,
)


def test_a_call_is_computed_once(tmp_path: Path) -> None:
    """The first call is a miss, the second a hit in memory, the first of another process one on disk; same bits."""
    a, b = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    with wb.open(tmp_path / "cache.db") as board:
        first, second = board.call("mul", a, b), board.call("mul", a, b)
    with wb.open(tmp_path / "cache.db") as board:
        third = board.call("mul", a, b)
        stats = board.stats()
    assert [first.hit, second.hit, third.hit] == ["miss", "memory", "disk"]
    assert first.y.tolist() == [4.0, 10.0, 18.0]
    assert [g.tolist() for g in first.grads] == [b.tolist(), a.tolist()]
    for other in (second, third):
        assert other.y.tobytes() == first.y.tobytes()
        assert [g.tobytes() for g in other.grads] == [g.tobytes() for g in first.grads]
    assert (stats["hits_disk"], stats["misses"], stats["packages"], stats["pages"]) == (1, 0, 1, 1)
    assert stats["seconds_saved"] > 0


def test_stats_have_the_contracts_names() -> None:
    """Every counter of the contract is there from the start, at zero."""
    with wb.open(":memory:") as board:
        stats = board.stats()
        names = "hits_memory hits_disk misses puts packages pages bytes_memory collisions corrupt seconds_saved"
        assert [stats[name] for name in names.split()] == [0] * 10
        assert "bytes_disk" in stats


def test_many_are_the_bits_of_one() -> None:
    """`call_many` gives each job the bits that `call` gives it, and counts each job's tier."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 300, 5))
    with wb.open(":memory:") as board:
        board.call_many("mul", a[100:200], b[100:200])
        many = board.call_many("mul", a, b)
    assert many.hit.tolist() == [0] * 100 + [1] * 100 + [0] * 100
    with wb.open(":memory:", persist="never") as board:
        for i in (0, 150, 299):
            one = board.call("mul", a[i], b[i])
            assert one.y.tobytes() == many.y[i].tobytes()
            assert [g.tobytes() for g in one.grads] == [g[i].tobytes() for g in many.grads]


def test_strided_sources_hit_the_packages_of_contiguous_ones() -> None:
    """A view of any strides is the same value, and finds the same package."""
    x = np.arange(24.0).reshape(2, 3, 4)
    with wb.open(":memory:") as board:
        board.call("tanh", np.ascontiguousarray(x[0].T))
        assert board.call("tanh", x[0].T).hit == "memory"
        assert board.call("tanh", np.asfortranarray(x[0].T)).hit == "memory"


def test_results_are_owned_and_read_only() -> None:
    """What a call gives cannot be written, so it cannot spoil the cache."""
    with wb.open(":memory:") as board:
        result = board.call("mul", np.ones(2), np.ones(2))
        for array in (result.y, *result.grads):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


BAD: dict[str, tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = {
    "op": (("nope", [1.0]), {}, UnknownOpError, "nope"),
    "near op": (("tanhh", [1.0]), {}, UnknownOpError, "tanh"),
    "arity": (("mul", [1.0]), {}, ShapeError, "op 'mul': expected 2 sources, got 1"),
    "none": (("mul",), {}, ShapeError, "at least one source"),
    "integer": (("mul", np.array([1]), [2.0]), {}, DtypeError, "op 'mul', slot 0: integer dtype int64 is refused"),
    "complex": (("mul", [1.0], [2j]), {}, DtypeError, "op 'mul', slot 1: complex dtype complex128 is refused"),
    "object": (("mul", [1.0], [None]), {}, DtypeError, "slot 1"),
    "mixed": (("mul", [1.0], np.ones(1, "f4")), {}, DtypeError, "expected dtype float64 as in slot 0, got float32"),
    "shapes": (("mul", np.ones(2), np.ones(3)), {}, ShapeError, "op 'mul'"),
    "ragged": (
        ("mul", [1.0], [[1.0], [2.0, 3.0]]),
        {},
        ShapeError,
        "op 'mul', source 1: list makes no array: .*inhomogeneous",
    ),
    "param": (("mul", [1.0], [1.0]), {"params": {"axis": 1}}, ParamError, "unknown parameter 'axis'"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_calls_are_named(case: tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]) -> None:
    """A bad call is an error that names op and slot, expected and got, and leaves nothing in the cache."""
    arguments, options, error, says = case
    with wb.open(":memory:") as board:
        with pytest.raises(error, match=says):
            board.call(*arguments, **options)
        assert board.stats()["puts"] == 0


def test_many_need_one_number_of_jobs() -> None:
    """`call_many` names the slot whose number of jobs differs."""
    with wb.open(":memory:") as board, pytest.raises(ShapeError, match="slot 1: expected 2 jobs on axis 0, got 3 jobs"):
        board.call_many("mul", np.ones((2, 1)), np.ones((3, 1)))


def test_non_finite_results_are_results() -> None:
    """An overflow is kept as infinity, found again, and raises no warning."""
    with wb.open(":memory:") as board:
        assert board.call("exp", np.array([1e4])).y.tolist() == [np.inf]
        assert board.call("exp", np.array([1e4])).hit == "memory"
        system = board.system("s")
        system.add_nodes([1, 2], theta=[1e4, 1.0])
        batch = system.process(wb.JobBatch("exp", [[1], [2]]))
        assert batch.finite.tolist() == [False, True]
        assert [result.finite for result in batch] == [False, True]


def test_a_closed_board_says_so(tmp_path: Path) -> None:
    """After close every use is an error, and closing again is not."""
    board = wb.open(tmp_path / "x.db")
    system = board.system("s")
    system.add_nodes([1], theta=[1.0])
    board.close()
    board.close()
    for use in (lambda: board.call("tanh", 1.0), board.stats, board.flush, lambda: board.system("s"), system.commit):
        with pytest.raises(ClosedError):
            use()


@pytest.mark.parametrize("what", ["board", "system", "bound"])
def test_what_stays_in_its_process_says_so(what: str) -> None:
    """What has an open store is not pickled, as a pool would, nor doubled; the error says what to do."""
    with wb.open(":memory:") as board:
        held = {"board": board, "system": board.system("s"), "bound": board.bind("exp")}[what]
        with pytest.raises(ParamError, match=f"^{re.escape(repr(held))} cannot be pickled.*in each process"):
            pickle.dumps(held)
        if what == "bound":
            assert copy.deepcopy([held])[0] is copy.copy(held) is held
        else:
            with pytest.raises(ParamError, match="or copied"):
                copy.copy(held)


def test_threads_compute_equal_keys_once() -> None:
    """Eight threads that ask for the same packages at once compute each of them once."""
    a = np.random.default_rng(0).normal(size=(200, 4))
    with wb.open(":memory:") as board:
        threads = [threading.Thread(target=board.call_many, args=("tanh", a)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = board.stats()
    assert (stats["misses"], stats["hits_memory"]) == (200, 1400)


def test_submitted_jobs_are_answered_by_a_drain() -> None:
    """A drain answers each future, an error reaches only the job that made it, equal jobs are computed once."""
    with wb.open(":memory:") as board:
        system = board.system("s")
        system.add_nodes([1, 2], theta=np.ones((2, 3)))
        futures = [board.submit(wb.Job("mul", ids)) for ids in ((1, 2), (1, 9), (1, 2))]
        assert not any(future.done() for future in futures)
        assert board.drain() == 3
        assert futures[0].result().y.tolist() == [1, 1, 1]
        assert isinstance(futures[1].exception(), UnknownNodeError)
        assert futures[2].result().hit == "memory"
        assert board.stats()["misses"] == 1
        board.system("t")
        with pytest.raises(ParamError, match="2 open"):
            board.submit(wb.Job("mul", (1, 2)))


def test_a_job_whose_sources_moved_on_is_marked_or_refused() -> None:
    """After a commit a queued job is answered for the new versions and marked, or refused, as its caller said."""
    with wb.open(":memory:") as board:
        system = board.system("s")
        system.add_nodes([1, 2, 3], theta=np.ones((3, 2)))
        jobs = [wb.Job("mul", (1, 2)), wb.Job("mul", (2, 3))]
        kept = [board.submit(job) for job in jobs]
        refused = [board.submit(job, stale="raise") for job in jobs]
        before = system.process(jobs)
        system.write(1, theta=[5.0, 5.0])
        system.commit()
        assert [system.is_current(result) for result in before] == [False, True]
        board.drain()
        results = [future.result() for future in kept]
        assert [(r.stale, r.versions, r.y.tolist()) for r in results] == [
            (True, (1, 0), [5.0, 5.0]),
            (False, (0, 0), [1.0, 1.0]),
        ]
        with pytest.raises(StaleImpulseError, match="node 1 had version 0, has 1"):
            refused[0].result()
        assert refused[1].result().y.tolist() == [1.0, 1.0]
        with pytest.raises(ParamError, match="'requeue' or 'raise', got 'drop'"):
            board.submit(jobs[0], stale="drop")  # type: ignore[arg-type]


def test_one_thread_feeds_while_another_commits() -> None:
    """Jobs fed from one thread and commits from another give every future its answer and every commit whole jobs."""
    with wb.open(":memory:") as board:
        system = board.system("s")
        system.add_nodes(range(4), theta=np.random.default_rng(0).normal(size=(4, 3)))
        system.commit()
        futures = []

        def feed() -> None:
            for i in range(60):
                futures.append(board.submit(wb.Job("vecdot", (i % 4, (i + 1) % 4), target=0.0, scale=0.01)))
                if i % 7 == 0:
                    board.drain()

        feeder = threading.Thread(target=feed)
        feeder.start()
        while feeder.is_alive():
            system.commit(wb.rules.Relax(0.1, 0.1, 0.1))
        feeder.join()
        board.drain()
        last = system.commit(wb.rules.Relax(0.1, 0.1, 0.1))
        assert all(len(future.result().versions) == 2 for future in futures)
        for commit in system.history()[:: max(1, last.id // 10)]:
            assert system.at(commit.id).digest() == commit.digest


@pytest.mark.parametrize("value", [0, -1, "64", None, 1e6, True, float("nan")], ids=repr)
@pytest.mark.parametrize("name", ["bin_jobs", "bin_bytes"])
def test_bad_bounds_are_refused(name: str, value: object) -> None:
    """A bin of no size, or of what is no whole number, is refused by name."""
    with pytest.raises(ParamError, match=rf"^{name} must be an int of at least 1, got {re.escape(repr(value))}$"):
        wb.open(":memory:", **{name: value})  # type: ignore[arg-type]


def test_nothing_is_printed(tmp_path: Path) -> None:
    """The library writes nothing to stdout or stderr."""
    code = (
        "import whiteboard as wb, numpy as np\n"
        "with wb.open('x.db') as b:\n"
        "    b.call('mul', np.ones(2), np.ones(2)); s = b.system('s'); s.add_nodes([1], theta=[1.0]); s.commit()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, env=os.environ, check=True)
    assert done.stdout == done.stderr == b""
