"""Bins computed by workers: the same bits, hits and digests, whatever is broken there."""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import threadpoolctl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import whiteboard as wb
from tests.workers import sample_ops
from whiteboard import ops
from whiteboard.evaluation.costs import Costs
from whiteboard.ops import user
from whiteboard.workers import client
from whiteboard.workers.client import Workers
from whiteboard.workers.messages import Refused
from whiteboard.workers.processes import Processes

OPS = ("sample_loop", "sample_lead", "sample_blas", "mul", "matmul")


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[str, Executor]]:
    """Return executors of several kinds, which many boards share."""
    made: dict[str, Executor] = {f"processes {n}": Processes(n) for n in (1, 2, 3)}
    made["threads"] = ThreadPoolExecutor(3)
    yield made
    for each in made.values():
        each.shutdown()


@pytest.fixture
def _everything_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEAST_NS", "BYTE_NS", "BATCH_NS", "SHORTEST_NS"):
        monkeypatch.setattr(client, name, 0)
    known = Costs.of
    monkeypatch.setattr(Costs, "is_sure", lambda self, spec: True)
    monkeypatch.setattr(Costs, "of", lambda self, spec: known(self, spec) or 1000.0)


def sources(op: str, n: int, seed: int) -> list[Any]:
    """Return jobs, some of which are equal."""
    rng = np.random.default_rng(seed)
    pick = rng.integers(0, max(1, n // 2), n)
    shapes: dict[str, list[tuple[int, ...]]]
    shapes = {"sample_loop": [(3,)], "sample_lead": [(4,), (4,)], "sample_blas": [(2, 3), (3, 2)], "mul": [(2,), (2,)]}
    columns = [rng.normal(size=(n, *shape))[pick] for shape in shapes.get(op, [(2, 3), (3, 2)])]
    if op in ("sample_blas", "matmul"):
        columns[1] = np.broadcast_to(columns[1][:1], columns[1].shape)  # one that all jobs share
    return columns


def bits(given: Any) -> bytes:
    """Return the bytes of an array, or of several."""
    return b"".join(map(bits, given)) if type(given) is tuple else np.asarray(given).tobytes()


@pytest.mark.usefixtures("_everything_leaves")
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(OPS), st.integers(1, 70), st.integers(0, 99), st.integers(1, 20), st.booleans())
def test_results_do_not_depend_on_workers(
    pools: dict[str, Executor], op: str, n: int, seed: int, jobs: int, cotangents: bool
) -> None:
    """Bits, order, hits and counts are those of the thread that asks, also of a cotangent's VJPs."""
    given = sources(op, n, seed)
    seen: dict[str, Any] = {}
    ways: dict[str, Executor | None] = {"here": None, **pools}
    for name, pool in ways.items():
        with wb.open(":memory:", executor=pool, bin_jobs=jobs) as board:
            first, again = board.call_many(op, *given), board.call_many(op, *given)
            many = [first.y, *first.grads, first.hit, again.y, *again.grads, again.hit]
            if cotangents and n < 5:
                many.append(board.bind(op).jacobian(*(x[0] for x in given)))
            stats = board.stats()
            counted = [stats[key] for key in ("hits_memory", "misses", "puts", "packages")]
            seen[name] = [bits(each) for each in many], counted
    assert all(each == seen["here"] for each in seen.values())


@pytest.mark.usefixtures("_everything_leaves")
@pytest.mark.parametrize("name", ["processes 1", "processes 3", "threads"])
def test_a_system_has_the_digest_of_a_serial_run(pools: dict[str, Executor], name: str) -> None:
    """Commits take impulses of results that came in any order."""
    digests = []
    for pool in (None, pools[name]):
        with wb.open(":memory:", executor=pool, bin_jobs=3) as board:
            system = board.system("s")
            system.add_nodes(range(12), p=np.random.default_rng(1).normal(size=(12, 2)))
            jobs = [
                wb.Job("distance", (i, j), attr="p", params=None, target=1.0, scale=1.0)
                for i in range(12)
                for j in range(i)
            ]
            for _ in range(3):
                system.process(jobs)
                system.commit(wb.rules.StressDescent(0.5))
            digests.append(system.digest())
    assert digests[0] == digests[1]


def test_jobs_of_unknown_cost_go_there_and_cheap_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first job of a user's op is a task; once it is known to be cheap its jobs stay, dear ones leave."""
    x = np.arange(16.0)[:, None]
    here, spec = float(os.getpid()), ops.get("sample_pid")
    with wb.open(":memory:", executor=2) as board:
        learn = board.pipeline._ground.costs.learn
        monkeypatch.setattr(Costs, "learn", lambda self, spec, n, cost_ns: None)  # a busy machine has no part in it
        assert here not in board.call_many("sample_pid", x).y
        learn(spec, 16, 16 * 1_000)
        assert set(board.call_many("sample_pid", x + 100).y.ravel()) == {here}
        learn(spec, 16, 16 * 20_000_000)
        assert here not in board.call_many("sample_pid", x + 200).y
        learn(spec, 1, 20_000)  # one short job tells little
        assert set(board.call_many("sample_pid", x + 300).y.ravel()) == {here}
        assert board.call("sample_pid", x[0] + 400).y == here


def test_jobs_that_fail_there_fail_alone(pools: dict[str, Executor]) -> None:
    """Each error comes back as it is, or as its text; what the others gave is kept."""
    x = np.array([0.0, 1, 0.5, 2, 0.25])[:, None]
    with wb.open(":memory:", executor=pools["processes 2"]) as board:
        done = board.call_many("sample_moody", x, errors="collect")
        assert list(done.errors) == [1, 3]
        assert type(done.errors[1]) is ValueError
        assert "sample_ops.py" in done.errors[1].__notes__[0]
        assert (type(done.errors[3]), str(done.errors[3])) == (wb.WhiteboardError, "OddError: 1 and 2")
        np.testing.assert_array_equal(done.y[[0, 2, 4]], 2 * x[[0, 2, 4]])
        assert board.call_many("sample_moody", x[[0, 2, 4]]).hit.tolist() == [1, 1, 1]


def test_a_worker_that_dies_costs_its_bin(pools: dict[str, Executor]) -> None:
    """The error says how it ended; another takes its place, and all other jobs are done."""
    x = np.r_[np.arange(0, 0.5, 0.01), 3.0, np.arange(0.5, 0.9, 0.01)][:, None]
    with wb.open(":memory:", executor=pools["processes 2"], bin_jobs=2) as board:
        with pytest.raises(wb.JobsError, match="SIGKILL") as caught:
            board.call_many("sample_moody", x)
        assert 50 in caught.value.errors
        assert len(caught.value.errors) <= 2
        assert all(isinstance(error, wb.ExecutorError) for error in caught.value.errors.values())
        assert board.stats()["misses"] == len(x)
        again = board.call_many("sample_moody", np.delete(x, list(caught.value.errors), 0))
        assert set(again.hit.tolist()) == {1}


def test_a_broken_pool_is_named_and_what_was_done_is_kept() -> None:
    """Another's executor that breaks is an error of the call; it goes on from what came before."""
    x = np.r_[np.arange(0, 0.4, 0.01), 3.0][:, None]
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    with pool, wb.open(":memory:", executor=pool, bin_jobs=1) as board:
        with pytest.raises(wb.ExecutorError, match=r"'sample_moody', job \d+: <.*ProcessPoolExecutor.* is broken"):
            board.call_many("sample_moody", x)
        assert board.stats()["packages"] >= 30
        with pytest.raises(wb.ExecutorError, match="is broken"):
            board.call_many("sample_moody", x[::-1] + 7)


def test_a_bin_that_takes_too_long_is_given_up(pools: dict[str, Executor]) -> None:
    """Its jobs fail with the op's name and theirs; the process is ended, and the others go on."""
    x = np.array([0.0, 0.1, 4.0, 0.2, 0.3])[:, None]
    with wb.open(":memory:", executor=pools["processes 2"], bin_timeout=1.5, bin_jobs=1) as board:
        began = time.monotonic()
        done = board.call_many("sample_moody", x, errors="collect")
        assert time.monotonic() - began < 20
        assert list(done.errors) == [2]
        assert isinstance(done.errors[2], wb.BinTimeoutError)
        assert isinstance(done.errors[2], TimeoutError)
        assert str(done.errors[2]) == "op 'sample_moody', job 2: not done after 1.5 s (bin_timeout)"
        assert not board.call_many("sample_moody", x[:2] + 0.5, errors="collect").errors


def test_other_code_is_computed_here(pools: dict[str, Executor], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that imports another value than the one here has refuses, which is said once; the result is ours."""
    x = np.random.default_rng(0).normal(size=(9, 3))
    monkeypatch.setattr(sample_ops, "FACTOR", 3.0)
    with wb.open(":memory:", executor=pools["processes 1"]) as board:
        with pytest.warns(
            wb.WorkerWarning, match="'sample_loop' is computed in this process.*other code there"
        ) as told:
            y = board.call_many("sample_loop", x).y
        assert len(told) == 1
        np.testing.assert_array_equal(y, 3 * (np.sin(x) ** 2).sum(1))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            board.call_many("sample_loop", x + 1)


class Odd(Executor):
    """Two workers, of which some calls meet one that refuses."""

    _max_workers = 2

    def __init__(self, every: int) -> None:
        self.calls, self.every = 0, every

    def submit(self, fn: Any, /, *args: Any, **_: Any) -> Future[Any]:
        self.calls += 1
        future: Future[Any] = Future()
        future.set_result(Refused("code", "it is odd") if self.calls % self.every == 0 else fn(*args))
        return future


@pytest.mark.usefixtures("_everything_leaves")
def test_one_odd_worker_costs_its_bins_alone() -> None:
    """What it refuses is computed here, and the rest there; what all refuse stays here. Each is said once."""
    x = np.arange(40.0)[:, None]
    calls = {}
    for every in (1, 4):
        odd = Odd(every)
        with wb.open(":memory:", executor=odd, bin_jobs=1) as board:
            with pytest.warns(wb.WorkerWarning, match="in this process, where .* refuses it: it is odd") as told:
                y = board.call_many("sample_lead", x, x).y
            assert len(told) == 1
        np.testing.assert_array_equal(y, np.tanh(x) * x)
        calls[every] = odd.calls
    assert calls[1] < 10
    assert calls[4] == 40


@pytest.mark.usefixtures("_everything_leaves")
def test_blas_threads(pools: dict[str, Executor]) -> None:
    """The board's own processes take its number of threads; others with another number refuse."""
    given = sources("sample_blas", 20, 0)
    refused = pytest.warns(wb.WorkerWarning, match=r"BLAS has another number of threads there: \[2\]; expected \[1\]")
    one = threadpoolctl.threadpool_limits(1, "blas")
    with one, wb.open(":memory:", executor=pools["processes 1"]) as board, refused:
        expected = board.call_many("sample_blas", *given).y
    with threadpoolctl.threadpool_limits(1, "blas"), wb.open(":memory:", executor=1) as board:
        assert board.call_many("sample_blas", *given).y.tobytes() == expected.tobytes()


def test_what_cannot_be_sent_is_computed_here(pools: dict[str, Executor]) -> None:
    """A function that holds what cannot be pickled, and one without a fingerprint, each with one warning."""
    import threading

    lock = threading.Lock()
    own = user.op("sample_locked", identity="locked", gradient="none")(
        lambda x: x * 2 if lock.acquire(False) is not None else x
    )
    with wb.open(":memory:", executor=pools["processes 1"]) as board:
        with pytest.warns(wb.WorkerWarning, match="cannot be pickled: TypeError"):
            done = board.call_many(own, np.ones((5, 1)))
        assert set(done.y.ravel()) == {2.0}


def scaled(factor: float) -> Any:
    """Return a function that closes over a number."""

    def function(x: Any, *, by: float = factor) -> Any:
        return x * by * factor

    return function


def test_functions_go_by_value(pools: dict[str, Executor]) -> None:
    """A function that was made in a function is sent with what it closes over, and has its fingerprint there."""
    for factor in (2.0, 5.0):
        op = wb.op(f"sample_scaled_{factor:g}")(scaled(factor))
        with wb.open(":memory:", executor=pools["processes 2"]) as board, warnings.catch_warnings():
            warnings.simplefilter("error")
            y = board.call_many(op, np.ones((9, 1))).y
        assert set(y.ravel()) == {factor * factor}


class Recorded(Executor):
    """Runs each call later, in a thread, and knows how many were there at once."""

    def __init__(self) -> None:
        self._pool, self.under_way, self.most, self._max_workers = ThreadPoolExecutor(2), 0, 0, 2

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        future = self._pool.submit(fn, *args, **kwargs)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: Future[Any]) -> None:
        self.under_way -= 1


def test_few_bins_are_under_way_at_once() -> None:
    """Two a worker, however many there are; each comes when it is done."""
    pool = Recorded()
    with wb.open(":memory:", executor=pool, bin_jobs=1) as board:
        y = board.call_many("sample_pid", np.arange(40.0)[:, None], params={"seconds": 0.005}).y
    assert 1 < pool.most <= 4
    assert set(y.ravel()) == {float(os.getpid())}


def test_calls_from_within_an_op_are_computed_there() -> None:
    """A pool that waits for itself would wait for good."""
    with ThreadPoolExecutor(1) as pool, wb.open(":memory:", executor=pool) as board:

        def outer(x: Any) -> Any:
            time.sleep(0.02)
            return board.call_many("sample_pid", np.ones((3, 1)) * x[0], params={"seconds": 0.02}).y[0]

        op = wb.op("sample_outer", identity="outer", gradient="none")(outer)
        y = board.call_many(op, np.arange(4.0)[:, None]).y
    assert y.shape == (4, 1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"executor": 0}, "executor: expected a number of processes, a concurrent.futures.Executor or None, got 0"),
        ({"executor": True}, "executor: expected"),
        ({"executor": "2"}, "executor: expected"),
        ({"bin_timeout": 0}, "bin_timeout: expected seconds above 0, or None, got 0"),
        ({"bin_timeout": "1"}, "bin_timeout: expected"),
    ],
)
def test_options_are_checked(options: dict[str, Any], told: str) -> None:
    """Before a store is opened."""
    with pytest.raises(wb.errors.ParamError, match=told):
        wb.open("/nowhere/at/all.db", **options)


def test_lanes_of_executors() -> None:
    """As many as an executor says."""
    with ThreadPoolExecutor(3) as pool:
        made = Workers.of(pool, None)
    assert made is not None
    assert made.lanes == 3
