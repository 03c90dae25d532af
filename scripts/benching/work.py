"""Work that costs: jobs in threads and processes, beside one after another and joblib's Memory over loky.

The jobs of processes hold the interpreter, as a simulation in Python does; those of threads release it. Processes are
there before the clock starts, as they are for the second call of a session.
"""

from __future__ import annotations

import itertools
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

import joblib
import numpy as np

import whiteboard as wb
from scripts.benching import measure
from whiteboard.storage import open_store

WORKERS = 2
SECONDS = 1.0
"""What all jobs of one size cost, about."""
COSTS = (200e-6, 1e-3, 10e-3, 100e-3)

_numbers = itertools.count()


def held(x: Any, seconds: float) -> Any:
    """Keep the interpreter busy for so long."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return x[0] ** 2, 2 * x[:1]


@wb.op("held", gradient="returned", identity="held", keep_sources=False)
def _held(x: Any, *, seconds: float) -> Any:
    return held(x, seconds)


@wb.op("released", gradient="returned", identity="released", keep_sources=False)
def _released(x: Any, *, seconds: float) -> Any:
    time.sleep(seconds)
    return x[0] ** 2, 2 * x[:1]


def fresh(n: int) -> Any:
    """Return sources that nobody has seen."""
    return (np.arange(float(n)) + 1e6 * next(_numbers))[:, None]


def answered(board: wb.Board, op: str, seconds: float) -> Callable[[Any], object]:
    """Return what has a board answer jobs."""
    return lambda x: board.call_many(op, x, params={"seconds": seconds})


def processes(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Measure jobs of several costs, all misses."""
    memory = joblib.Memory(folder / "joblib", verbose=0)
    cached = memory.cache(held)
    rows = []
    with (
        wb.open(folder / "serial.db") as serial,
        wb.open(folder / "workers.db", executor=WORKERS) as workers,
        joblib.Parallel(WORKERS, backend="loky") as loky,
    ):
        for cost in COSTS:
            n = max(2 * WORKERS, int(min(SECONDS / cost, 1000)))
            for board in (serial, workers):
                answered(board, "held", cost)(fresh(n))

            def peer(x: Any, cost: float = cost) -> object:
                return loky(joblib.delayed(cached)(each, cost) for each in x)

            works = {
                "serial": (answered(serial, "held", cost), lambda n=n: fresh(n)),
                "workers": (answered(workers, "held", cost), lambda n=n: fresh(n)),
                "joblib": (peer, lambda n=n: fresh(n)),
            }
            seconds = measure.interleaved(works, runs=runs)
            rows.append(
                {
                    "job ms": cost * 1e3,
                    "jobs": n,
                    **{f"{name} s": each for name, each in seconds.items()},
                    "workers ×": seconds["serial"] / seconds["workers"],
                    "joblib ×": seconds["serial"] / seconds["joblib"],
                }
            )
    return rows


def threads(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Measure two callers of a board, and one caller with an executor of two threads."""
    rows = []
    with (
        ThreadPoolExecutor(2) as pool,
        wb.open(folder / "a.db") as board,
        wb.open(folder / "b.db", executor=pool) as other,
    ):

        def two(x: Any) -> None:
            both = [threading.Thread(target=answered(board, "released", 0.1), args=(half,)) for half in np.split(x, 2)]
            for each in both:
                each.start()
            for each in both:
                each.join()

        for name, n, work in (
            ("two threads call", 2, two),
            ("two threads compute", 20, answered(other, "released", 0.1)),
        ):
            answered(other, "released", 0.1)(fresh(n))
            works = {
                "serial": (answered(board, "released", 0.1), lambda n=n: fresh(n)),
                "threads": (work, lambda n=n: fresh(n)),
            }
            seconds = measure.interleaved(works, runs=runs)
            row: dict[str, Any] = {
                "what": name,
                "jobs of 100 ms": n,
                **{f"{key} s": each for key, each in seconds.items()},
            }
            rows.append({**row, "×": seconds["serial"] / seconds["threads"]})
    return rows


def hits_beside(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Measure hits in memory while nothing else goes on, and while another thread computes jobs of 100 ms."""
    x, rows = np.ones(1), []
    with wb.open(folder / "beside.db") as board:

        def hit(_: object) -> object:
            return board.call("released", x, params={"seconds": 0.0})

        def hits() -> list[float]:
            time.sleep(0.02)  # until the other has begun
            return measure.timings(hit, runs=50)

        hit(None)
        alone, beside = [], []
        for _ in range(runs):
            alone += hits()
            other = threading.Thread(target=answered(board, "released", 0.1), args=(fresh(20),))
            other.start()
            beside += hits()
            other.join()
    for name, seconds in (("nothing", alone), ("a thread that computes", beside)):
        row = {"beside": name, "hits": len(seconds), "median ms": 1e3 * median(seconds)}
        rows.append({**row, "slowest ms": 1e3 * max(seconds)})
    return rows


def ask(store: Path, log: Path, first: float, keys: int, ready: Barrier) -> None:
    """Ask for the same keys as others do, of an op that says what it computes."""

    def logged(x: Any) -> Any:
        with log.open("a") as file:
            file.write(f"{x[0]}\n")
        time.sleep(0.1)
        return x[0] ** 2

    wb.op("logged", gradient="none", identity="logged")(logged)
    with wb.open(store) as board:
        ready.wait()
        board.call_many("logged", np.arange(first, first + keys)[:, None])
        ready.wait()


def same_keys(folder: Path, runs: int, clients: int = 4, keys: int = 16) -> list[dict[str, Any]]:
    """Measure processes that ask a store for the same keys of 100 ms; what one alone would take is 0.1 s a key."""
    context, store, log = get_context("spawn"), folder / "same.db", folder / "log"
    wb.open(store).close()
    seconds = []
    for run in range(runs):
        ready = context.Barrier(clients + 1)
        arguments = (store, log, float(keys * run), keys, ready)
        begun = [context.Process(target=ask, args=arguments) for _ in range(clients)]
        for each in begun:
            each.start()
        ready.wait()
        start = time.perf_counter()
        ready.wait()
        seconds.append(time.perf_counter() - start)
        for each in begun:
            each.join()
    computed = len(log.read_text().splitlines()) / runs
    return [{"processes": clients, "keys": keys, "computed": computed, "s": median(seconds), "one alone s": 0.1 * keys}]


def claims(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Measure what it takes to claim a bin and to give it back."""
    rows = []
    with open_store(folder / "claims.db") as stores:
        for n in (1, 16, 256):
            keys = [secrets.token_bytes(16) for _ in range(n)]

            def claim(_: object, keys: list[bytes] = keys) -> None:
                taken = stores.packages.claim()
                assert taken is not None  # a file has claims
                taken.take(keys, len(keys), seconds=0.1)
                taken.release()

            rows.append({"keys a bin": n, "claim ms": 1e3 * measure.timed(claim, runs=20 * runs)})
    return rows


def main() -> None:
    """Measure, and print."""
    options = measure.parser("Jobs in threads and processes.").parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = {
            f"{WORKERS} processes, all misses": processes(folder, options.runs),
            "Threads, functions that release the interpreter": threads(folder, options.runs),
            "A hit in memory": hits_beside(folder, options.runs),
            "Processes that ask for the same keys at once": same_keys(folder, options.runs),
            "Claims of bins": claims(folder, options.runs),
        }
    measure.report(measure.machine("joblib", "loky"), tables, options.json)


if __name__ == "__main__":
    main()
