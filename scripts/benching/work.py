"""Work that costs: jobs in threads and processes, beside one after another and joblib's Memory over loky.

The jobs of processes hold the interpreter, as a simulation in Python does, or wait, as those do that leave the core to
others; those of threads wait. Processes are there before the clock starts, as they are for the second call of a
session. With ``--store`` packages go to a server, into a schema that is dropped; with ``--dask`` bins go to the two
worker processes of a cluster on this machine too, which ``pip install distributed`` brings, beside the cluster alone,
which is given the functions and keeps nothing.
"""

from __future__ import annotations

import importlib
import itertools
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

import joblib
import numpy as np
import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

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


def released(x: Any, seconds: float) -> Any:
    """Wait for so long."""
    time.sleep(seconds)
    return x[0] ** 2, 2 * x[:1]


@wb.op("held", gradient="returned", identity="held", exactness="portable", keep_sources=False)
def _held(x: Any, *, seconds: float) -> Any:
    return held(x, seconds)


@wb.op("released", gradient="returned", identity="released", exactness="portable", keep_sources=False)
def _released(x: Any, *, seconds: float) -> Any:
    return released(x, seconds)


def fresh(n: int) -> Any:
    """Return sources that nobody has seen."""
    return (np.arange(float(n)) + 1e6 * next(_numbers))[:, None]


def answered(board: wb.Board, op: str, seconds: float) -> Callable[[Any], object]:
    """Return what has a board answer jobs."""
    return lambda x: board.call_many(op, x, params={"seconds": seconds})


class Places:
    """Where stores are made: files in a folder, or schemas of a server that are dropped in the end."""

    def __init__(self, folder: Path, server: str | None) -> None:
        self.folder, self._server = folder, server
        self._made: list[str] = []

    def __call__(self, name: str) -> str:
        """Where a store of some name is."""
        if self._server is None:
            return str(self.folder / f"{name}.db")
        schema = f"bench_{name}_{os.getpid()}"
        self._made.append(schema)
        return make_url(self._server).update_query_dict({"schema": schema}).render_as_string(hide_password=False)

    def drop(self) -> None:
        """Drop the schemas."""
        if self._server is not None:
            plain = make_url(self._server).set(drivername="postgresql").render_as_string(hide_password=False)
            with psycopg.connect(plain, autocommit=True) as connection:
                for schema in set(self._made):
                    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


def processes(
    places: Places, runs: int, cluster: Executor | None, function: Callable[..., Any], costs: Sequence[float]
) -> list[dict[str, Any]]:
    """Measure jobs of several costs, all misses."""
    memory = joblib.Memory(places.folder / "joblib", verbose=0)
    cached, op = memory.cache(function), function.__name__
    rows = []
    with ExitStack() as stack:

        def board(name: str, **options: Any) -> Callable[[float], Callable[[Any], object]]:
            opened = stack.enter_context(wb.open(places(f"{op}_{name}"), **options))
            return lambda cost: answered(opened, op, cost)

        def joblibs(cost: float) -> Callable[[Any], object]:
            return lambda x: loky(joblib.delayed(cached)(each, cost) for each in x)

        def alone(cost: float) -> Callable[[Any], object]:
            def work(x: Any) -> object:
                assert cluster is not None
                return [each.result() for each in [cluster.submit(function, row, cost) for row in x]]

            return work

        loky = stack.enter_context(joblib.Parallel(WORKERS, backend="loky"))
        ways = {"serial": board("serial"), "workers": board("workers", executor=WORKERS)}
        if cluster is not None:
            ways |= {"dask": board("dask", executor=cluster), "dask alone": alone}
        ways["joblib"] = joblibs
        for cost in costs:
            n = max(2 * WORKERS, int(min(SECONDS / cost, 1000)))
            works = {name: (way(cost), lambda n=n: fresh(n)) for name, way in ways.items()}
            for work, _ in works.values():
                work(fresh(n))
            seconds = measure.interleaved(works, runs=runs)
            rows.append(
                {
                    "job ms": cost * 1e3,
                    "jobs": n,
                    **{f"{name} s": each for name, each in seconds.items()},
                    **{f"{name} ×": seconds["serial"] / each for name, each in seconds.items() if name != "serial"},
                }
            )
    return rows


def threads(places: Places, runs: int) -> list[dict[str, Any]]:
    """Measure two callers of a board, and one caller with an executor of two threads."""
    rows = []
    with (
        ThreadPoolExecutor(2) as pool,
        wb.open(places("alone")) as board,
        wb.open(places("threads"), executor=pool) as other,
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


def hits_beside(places: Places, runs: int) -> list[dict[str, Any]]:
    """Measure hits in memory while nothing else goes on, and while another thread computes jobs of 100 ms."""
    x, rows = np.ones(1), []
    with wb.open(places("beside")) as board:

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


def ask(store: str, log: Path, first: float, keys: int, ready: Barrier) -> None:
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


def same_keys(places: Places, runs: int, clients: int = 4, keys: int = 16) -> list[dict[str, Any]]:
    """Measure processes that ask a store for the same keys of 100 ms; what one alone would take is 0.1 s a key."""
    context, store, log = get_context("spawn"), places("same"), places.folder / "log"
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


def claims(places: Places, runs: int) -> list[dict[str, Any]]:
    """Measure what it takes to claim a bin and to give it back."""
    rows = []
    with open_store(places("claims")) as stores:
        for n in (1, 16, 256):
            keys = [secrets.token_bytes(16) for _ in range(n)]

            def claim(_: object, keys: list[bytes] = keys) -> None:
                taken = stores.packages.claim()
                assert taken is not None  # a file has claims
                taken.take(keys, len(keys), seconds=0.1)
                taken.release()

            rows.append({"keys a bin": n, "claim ms": 1e3 * measure.timed(claim, runs=20 * runs)})
    return rows


def local_cluster(stack: ExitStack) -> Executor:
    """Return the executor of a Dask cluster of two worker processes on this machine."""
    distributed: Any = importlib.import_module("distributed")  # which bears no types
    options = {"n_workers": WORKERS, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    cluster = stack.enter_context(distributed.LocalCluster(**options))
    client = stack.enter_context(distributed.Client(cluster))
    executor: Executor = client.get_executor(pure=False, retries=2)
    return executor


def main() -> None:
    """Measure, and print."""
    parser = measure.parser("Jobs in threads and processes.")
    parser.add_argument("--store", help="URL of a database on a server, in place of files")
    parser.add_argument("--dask", action="store_true", help="measure a Dask cluster on this machine too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        places = Places(Path(name), options.store)
        stack.callback(places.drop)
        cluster = local_cluster(stack) if options.dask else None
        tables = {
            f"{WORKERS} processes, jobs that hold the interpreter": processes(
                places, options.runs, cluster, held, COSTS
            ),
            f"{WORKERS} processes, jobs that wait": processes(places, options.runs, cluster, released, COSTS[2:]),
            "Threads, jobs that wait": threads(places, options.runs),
            "A hit in memory": hits_beside(places, options.runs),
            "Processes that ask for the same keys at once": same_keys(places, options.runs),
            "Claims of bins": claims(places, options.runs),
        }
    measure.report(measure.machine("joblib", "loky"), tables, options.json)


if __name__ == "__main__":
    main()
