"""Work that costs: jobs in threads and processes, beside one after another and joblib's Memory over loky.

The jobs of processes hold the interpreter, as a simulation in Python does; those of threads release it. Processes are
there before the clock starts, as they are for the second call of a session.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np

import whiteboard as wb
from scripts.benching import measure

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


def main() -> None:
    """Measure, and print."""
    options = measure.parser("Jobs in threads and processes.").parse_args()
    with tempfile.TemporaryDirectory() as name:
        tables = {
            f"{WORKERS} processes, all misses": processes(Path(name), options.runs),
            "Threads, functions that release the interpreter": threads(Path(name), options.runs),
        }
    measure.report(measure.machine("joblib", "loky"), tables, options.json)


if __name__ == "__main__":
    main()
