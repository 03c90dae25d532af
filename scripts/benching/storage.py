"""The store beside diskcache, joblib, sqlitedict and raw sqlite3: hits, durable misses, bytes, memory.

What each does is in `stores`.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.benching import measure
from scripts.benching.stores import STORES, Whiteboard, fewer

WIDTH = 64

Array = NDArray[Any]


def _write(store: Any, _: None) -> None:
    store.write()


def _read(store: Any, _: None) -> None:
    store.read()


def _nothing() -> None:
    """Make nothing ready."""


# -- measurements


def misses(folder: Path, n: int, width: int, runs: int) -> list[dict[str, Any]]:
    """Write all packages durably into a new store, and measure its file. Leaves the stores for `hits_on_disk`."""
    seconds: dict[str, list[float]] = {name: [] for name in STORES}
    for _ in range(runs):
        for name, make in STORES.items():
            place = folder / name
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            store = make(place, fewer(name, n), width)
            seconds[name] += measure.timings(partial(_write, store), runs=1)
            store.write_first()
            store.close()
    rows = []
    payload = 3 * 8 * width
    for name, times in seconds.items():
        us = median(times) / fewer(name, n) * 1e6
        files = sum(file.stat().st_size for file in (folder / name).rglob("*") if file.is_file())
        nbytes = files / fewer(name, n)
        rows.append({"store": name, "µs a package": us, "bytes a package": nbytes, "÷ payload": nbytes / payload})
    return _times(rows, "µs a package")


def hits_on_disk(folder: Path, n: int, width: int, runs: int) -> list[dict[str, Any]]:
    """Read all packages of `misses` in fresh processes, after one other: `first` has what is done once in it."""
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in STORES}
    for _ in range(runs):
        for name in STORES:
            seconds[name].append(_fresh("read", folder / name, name, fewer(name, n), width))
    rows = []
    for name, times in seconds.items():
        first, rest = (median(each) for each in zip(*times, strict=True))
        rows.append({"store": name, "first, ms": first * 1e3, "µs a package": rest / fewer(name, n) * 1e6})
    return _times(rows)


def hits_in_memory(folder: Path, n: int, width: int, runs: int) -> list[dict[str, Any]]:
    """Read all packages of `misses` once more than once: only whiteboard then has them in memory."""
    stores = {name: make(folder / name, fewer(name, n), width) for name, make in STORES.items()}
    works: dict[str, tuple[Callable[[Any], object], Callable[[], Any]]] = {}
    for name, store in stores.items():
        store.read()
        works[name] = (partial(_read, store), _nothing)
    board, stacked = stores["whiteboard"].board, stores["whiteboard"].stacked()
    works["whiteboard, call_many"] = (lambda _: board.call_many("mul", *stacked), _nothing)
    seconds = measure.interleaved(works, runs=runs)
    for store in stores.values():
        store.close()
    return _times([{"store": s, "µs a package": t / fewer(s, n) * 1e6} for s, t in seconds.items()])


def _times(rows: list[dict[str, Any]], column: str = "µs a package") -> list[dict[str, Any]]:
    """Say of each row how many times whiteboard's time it takes."""
    for row in rows:
        row["× whiteboard"] = row[column] / rows[0][column]
        if row["store"] == "whiteboard, call_many":
            get = next(each for each in rows if each["store"] == "diskcache")
            row["diskcache ÷ it"] = get[column] / row[column]
    return rows


def payloads(sizes: list[int], nbytes: int, runs: int) -> list[dict[str, Any]]:
    """Write and read packages of other sizes, about as many bytes of each."""
    rows = []
    for size in sizes:
        width = max(1, size // 24)
        n = max(8, min(4096, nbytes // size))
        row: dict[str, Any] = {"payload": 24 * width, "packages": n}
        times: dict[str, list[float]] = {}
        for _ in range(runs):
            for name in ("whiteboard", "diskcache", "raw sqlite3"):
                with tempfile.TemporaryDirectory() as place:
                    store = STORES[name](Path(place), n, width)
                    times.setdefault(f"{name} write", []).extend(measure.timings(partial(_write, store), runs=1))
                    store.write_first()
                    store.close()
                    times.setdefault(f"{name} read", []).append(_fresh("read", Path(place), name, n, width)[1])
        row |= {f"{name}, µs": median(each) / n * 1e6 for name, each in times.items()}
        rows.append(row)
    return rows


def memory(folder: Path, memory_bytes: int, width: int) -> list[dict[str, Any]]:
    """Read five times as much as the memory tier may hold, and measure what is resident."""
    n = 5 * memory_bytes // (24 * width)
    store = Whiteboard(folder, n, width, memory_bytes=0)
    store.write()
    store.close()
    # Without a tier: what the interpreter, the store and one batch take.
    none, some = (_fresh("memory", folder, "whiteboard", n, width, held)[0] for held in (0, memory_bytes))
    return [
        {"memory_bytes": memory_bytes, "resident": int(some - none), "÷ memory_bytes": (some - none) / memory_bytes}
    ]


# -- fresh processes


def _fresh(task: str, *arguments: object) -> tuple[float, ...]:
    command = [sys.executable, __file__, "--fresh", json.dumps([task, *map(str, arguments)])]
    return tuple(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))


def fresh(task: str, path: str, name: str, n: str, width: str, held: str = "0") -> tuple[float, ...]:
    """Do one task of a measurement in this process and return seconds, or resident bytes."""
    if task == "memory":
        store = Whiteboard(Path(path), int(n), int(width), memory_bytes=int(held))
        for rows in np.array_split(np.arange(int(n)), max(1, int(n) // 2000)):
            store.system.process(store.jobs.take(rows))
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        store.close()
        return (float(resident),)
    store = STORES[name](Path(path), int(n), int(width))
    ticks = [time.perf_counter()]
    for work in (store.first, store.read):
        work()
        ticks.append(time.perf_counter())
    store.close()
    return tuple(np.diff(ticks).tolist())


def main() -> None:
    """Print the tables."""
    options = measure.parser(__doc__ or "")
    options.add_argument("--count", type=int, default=10_000, help="packages (default: %(default)s)")
    options.add_argument("--width", type=int, default=WIDTH, help="numbers in y (default: %(default)s)")
    options.add_argument(
        "--payloads",
        type=int,
        nargs="*",
        default=[64, 1024, 16 * 2**10, 256 * 2**10, 2**20],
        metavar="BYTES",
        help="sizes of packages in a table of their own (default: 64 to 1 MB; none to leave it out)",
    )
    options.add_argument("--payload-bytes", type=int, default=32 * 2**20, help="bytes written of each size")
    options.add_argument("--memory-bytes", type=int, default=64 * 2**20, help="bound of the memory tier measured")
    options.add_argument("--fresh", help="what a fresh process is asked by this program")
    given = options.parse_args()
    if given.fresh:
        print(json.dumps(fresh(*json.loads(given.fresh))))
        return
    n, width, runs = given.count, given.width, given.runs
    payload = 24 * width
    tables: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables[f"{n:,} misses of {payload:,} bytes, durable; whiteboard and joblib compute them"] = misses(
            folder, n, width, runs
        )
        tables["Hits on disk, in a fresh process"] = hits_on_disk(folder, n, width, runs)
        tables["Hits in memory (whiteboard), again from the file (the others)"] = hits_in_memory(folder, n, width, runs)
    if given.payloads:
        tables["Other sizes: written durably, and read in a fresh process"] = payloads(
            given.payloads, given.payload_bytes, runs
        )
    with tempfile.TemporaryDirectory() as name:
        tables["Resident bytes of the memory tier"] = memory(Path(name), given.memory_bytes, width)
    measure.report(measure.machine("sqlalchemy", "blosc2", "diskcache", "joblib", "sqlitedict"), tables, given.json)


if __name__ == "__main__":
    main()
