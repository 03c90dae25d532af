"""Many processes on one file: lock errors, how long writes take, how large the log grows, and diskcache's figures.

A write puts 256 packages of 1,536 bytes and commits, both in one transaction; it is durable when it returns. A reader
looks up 256 packages that were written before. Beside it, where diskcache is installed: 256 `set` in one `transact`,
and 256 `get`, by as many processes.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from scripts.torturing.workload import append, arrays_of, finish, keys_of, log_bytes, page_of, wrong_packages
from whiteboard.errors import StoreError
from whiteboard.storage import open_store

BATCH = 256
Said = tuple[str, list[float], int, list[str]]
"""A process's part: what it did, seconds of each batch, wrong answers, errors."""

Work = Callable[[Path, str, Any, Any, Callable[[], object]], Said]


def write(path: Path, name: str, done: Any, stop: Any, begin: Callable[[], object]) -> Said:
    """Commit with a page of packages, again and again."""
    seconds, errors = [], []
    with open_store(path, memory_bytes=0) as stores:
        stores.packages.put(page_of(name, range(-BATCH, 0)))
        stores.packages.flush()
        begin()
        number = 0
        while not stop.is_set():
            page = page_of(name, range(BATCH * number, BATCH * (number + 1)))
            began = time.perf_counter()
            try:
                stores.packages.put(page)
                append(stores, name, number)
            except StoreError as error:
                errors.append(str(error))
                break
            seconds.append(time.perf_counter() - began)
            number += 1
            done[int(name)] = number
    return "write", seconds, 0, errors


def read(path: Path, name: str, done: Any, stop: Any, begin: Callable[[], object]) -> Said:
    """Look up packages that were written, again and again."""
    chance = random.Random(name)
    seconds, errors, wrong = [], [], 0
    with open_store(path, readonly=True, memory_bytes=0) as stores:
        stores.packages.find(keys_of(name, range(-BATCH, 0)))
        begin()
        while not stop.is_set():
            if (keys := _written(chance, done)) is None:
                continue
            began = time.perf_counter()
            try:
                found = stores.packages.find(keys)
            except StoreError as error:
                errors.append(str(error))
                break
            seconds.append(time.perf_counter() - began)
            wrong += wrong_packages(found, keys, missing=True)
    return "read", seconds, wrong, errors


def write_diskcache(path: Path, name: str, done: Any, stop: Any, begin: Callable[[], object]) -> Said:
    """Set as many packages in one transaction."""
    import diskcache

    seconds, errors = [], []
    with diskcache.Cache(str(path), eviction_policy="none", timeout=60) as cache:
        cache.set(name, name, retry=True)
        begin()
        number = 0
        while not stop.is_set():
            keys = keys_of(name, range(BATCH * number, BATCH * (number + 1)))
            packages = list(zip(*arrays_of(keys, 64).values(), strict=True))
            began = time.perf_counter()
            try:
                with cache.transact(retry=True):
                    for key, package in zip(keys, packages, strict=True):
                        cache.set(key, package)
            except Exception as error:  # whatever it raises under load is what is asked
                errors.append(repr(error))
                continue
            seconds.append(time.perf_counter() - began)
            number += 1
            done[int(name)] = number
    return "write", seconds, 0, errors


def read_diskcache(path: Path, name: str, done: Any, stop: Any, begin: Callable[[], object]) -> Said:
    """Get as many packages."""
    import diskcache

    chance = random.Random(name)
    seconds, errors, wrong = [], [], 0
    with diskcache.Cache(str(path), eviction_policy="none", timeout=60) as cache:
        cache.get(name, retry=True)
        begin()
        while not stop.is_set():
            if (keys := _written(chance, done)) is None:
                continue
            began = time.perf_counter()
            try:
                found = [cache.get(key, retry=True) for key in keys]
            except Exception as error:
                errors.append(repr(error))
                continue
            seconds.append(time.perf_counter() - began)
            wrong += sum(package is None for package in found)
    return "read", seconds, wrong, errors


def _written(chance: random.Random, done: Any) -> list[bytes] | None:
    """Return the keys of one batch that some writer has written, or None before there is one."""
    name = chance.randrange(len(done))
    if not done[name]:
        time.sleep(0.01)
        return None
    number: int = chance.randrange(done[name])
    return keys_of(str(name), range(BATCH * number, BATCH * (number + 1)))


def run(path: Path, writers: tuple[Work, int], readers: tuple[Work, int], seconds: float) -> dict[str, Any]:
    """Let processes work for some seconds and return what they did together."""
    context = get_context("fork")
    stop, done, said = context.Event(), context.Array("q", writers[1]), context.SimpleQueue()
    # Processes begin together, once each has opened the store and used it: what counts is how they go on.
    start = context.Barrier(writers[1] + readers[1] + 1)

    def work(task: Work, name: str) -> None:
        said.put(task(path, name, done, stop, start.wait))

    tasks = [(task, str(i)) for task, count in (writers, readers) for i in range(count)]
    processes = [context.Process(target=work, args=each, daemon=True) for each in tasks]
    for process in processes:
        process.start()
    start.wait()
    largest, began = 0, time.monotonic()
    while time.monotonic() < began + seconds:
        time.sleep(0.05)
        largest = max(largest, log_bytes(path))
    stop.set()
    results: list[Said] = [said.get() for _ in processes]
    took = time.monotonic() - began
    for process in processes:
        process.join()
    times = {kind: np.array([t for each in results if each[0] == kind for t in each[1]]) for kind in ("write", "read")}
    errors = [error for each in results for error in each[3]]
    return {
        "writers": writers[1],
        "readers": readers[1],
        "written_per_second": round(BATCH * len(times["write"]) / took),
        "read_per_second": round(BATCH * len(times["read"]) / took),
        **_quantiles("write", times["write"]),
        **_quantiles("read", times["read"]),
        "fewest_writes": min(len(each[1]) for each in results if each[0] == "write"),
        "log_bytes": largest,
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        "wrong": sum(each[2] for each in results),
    }


def _quantiles(kind: str, seconds: Any) -> dict[str, float]:
    if not len(seconds):
        return {}
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
    return {
        f"{kind}_p50_ms": round(float(p50), 1),
        f"{kind}_p99_ms": round(float(p99), 1),
        f"{kind}_max_ms": round(float(seconds.max()) * 1e3, 1),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--beside", type=int, default=8, help="writers, and readers, beside diskcache; 0 for none")
    options = parser.parse_args()
    for module in ("blosc2", "diskcache"):
        # Before the fork: twenty processes that import at once would be what is measured.
        if importlib.util.find_spec(module):
            importlib.import_module(module)
    counts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "load.db"
        open_store(path).close()
        counts["load"] = run(path, (write, options.writers), (read, options.readers), options.seconds)
        if options.beside and importlib.util.find_spec("diskcache"):
            path.unlink()
            path = folder / "beside.db"
            open_store(path).close()
            counts["beside"] = run(path, (write, options.beside), (read, options.beside), options.seconds)
            path.unlink()
            path = folder / "diskcache"
            sides = (write_diskcache, options.beside), (read_diskcache, options.beside)
            counts["diskcache"] = run(path, *sides, options.seconds)
            shutil.rmtree(path)
    for title, row in counts.items():
        print(f"{title}: {row}", flush=True)
    whole = [row for title, row in counts.items() if title != "diskcache"]
    finish("load", {**counts, "wrong": sum(row["wrong"] + row["errors"] for row in whole)})


if __name__ == "__main__":
    main()
