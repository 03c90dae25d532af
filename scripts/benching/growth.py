"""One store beside larger ones: what hits, durable misses, opening and care take as the packages become more.

Packages are y and the gradient of ``square`` over 32 float64: 512 bytes. They are made, and asked for, in batches that
were computed together; `one key` is one `call` for a package anywhere. Every figure is of a process of its own, with
``memory_bytes=0``; the file was read before, so that it is in the system's cache as far as that has room. diskcache
stores a tuple of the two arrays, ``set`` in ``transact`` of 256, and gets keys anywhere.

With ``--folder`` the stores are kept, and used again. Evicting takes a hundredth of the oldest packages each time.
"""

from __future__ import annotations

import json
import os
import random
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

import whiteboard as wb
from scripts.benching import measure

BATCH = 10_000
WIDTH = 32
SIZES = (10**4, 10**6)
_KEYS, _WARMING = 300, 20
_TRANSACTION = 256

Figures = dict[str, float]
Seconds = NDArray[np.float64]
"""Those of the clock, and of processors."""


def sources(number: int, n: int = BATCH) -> NDArray[np.float64]:
    """Return what a batch is computed from, (n, 32)."""
    return np.random.default_rng(number).normal(size=(n, WIDTH))


def _opened(folder: Path, **options: Any) -> wb.Board:
    return wb.open(folder / "whiteboard.db", memory_bytes=0, **options)


def _filled(folder: Path) -> int:
    """How many batches were made."""
    return int((folder / "batches").read_text()) if (folder / "batches").exists() else 0


def _took(work: Callable[[], object]) -> Seconds:
    """Return the seconds that some work takes, and those of processors, in all threads."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - start, time.process_time() - used])


def _ask(board: wb.Board, number: int, hit: str) -> Seconds:
    """Return the seconds that a batch takes, all of it hits or misses."""
    x, found = sources(number), []
    seconds = _took(lambda: found.append(board.call_many("square", x)))
    if not (found[0].hit == ("miss", "memory", "disk").index(hit)).all():
        sys.exit(f"batch {number} of the store: not every package of it is a {hit}")
    return seconds


# -- what a fresh process is asked


def fill(folder: Path, size: int) -> Figures:
    """Compute batches until there are so many packages."""
    start = time.perf_counter()
    with _opened(folder) as board:
        for number in range(_filled(folder), size // BATCH):
            board.call_many("square", sources(number))
            if number % 100 == 99 or number == size // BATCH - 1:
                board.flush()
                (folder / "batches").write_text(str(number + 1))
    return {"filled, s": time.perf_counter() - start}


def opening(folder: Path, _: int) -> Figures:
    """Open it, and nothing else."""
    start = time.perf_counter()
    with wb.open(folder / "whiteboard.db"):
        return {"open, ms": 1e3 * (time.perf_counter() - start)}


def hits(folder: Path, seed: int) -> Figures:
    """Ask for batches of the newer half."""
    draw = random.Random(seed)
    batches = _filled(folder)
    with _opened(folder, readonly=True) as board:
        board.call_many("square", sources(0, 1))
        seconds = [_ask(board, draw.randrange(batches // 2, batches), "disk") for _ in range(7)]
    return _both("hit, µs a job", np.median(seconds, axis=0) / BATCH)


def one_key(folder: Path, seed: int) -> Figures:
    """Ask for packages one by one, anywhere in the newer half.

    The jobs are made before, as those of the peer are: to make a batch between two calls fills the processor's caches.
    """
    draw = random.Random(seed)
    batches = _filled(folder)
    jobs = [
        sources(draw.randrange(batches // 2, batches))[draw.randrange(BATCH)].copy() for _ in range(_WARMING + _KEYS)
    ]
    with _opened(folder, readonly=True) as board:
        board.call_many("square", sources(0, 1))
        seconds = [_took(partial(_call, board, x)) for x in jobs][_WARMING:]
    return _both("one key, µs", np.median(seconds, axis=0))


def _call(board: wb.Board, x: NDArray[np.float64]) -> None:
    if board.call("square", x).hit != "disk":
        sys.exit("a package of the store is no hit")


def misses(folder: Path, batches: int) -> Figures:
    """Compute batches and make each durable, and close the store."""
    first = _filled(folder)
    board = _opened(folder)
    board.call_many("square", sources(0, 1))
    seconds = []
    for number in range(first, first + batches):
        (folder / "batches").write_text(str(number + 1))
        seconds.append(_ask(board, number, "miss") + _took(board.flush))
    whole = np.sum(seconds, axis=0) + _took(board.close)
    return _both("miss, durable, µs a job", whole / batches / BATCH) | {
        "slowest batch, ms": 1e3 * max(each[0] for each in seconds)
    }


def _both(what: str, seconds: Seconds) -> Figures:
    return {what: 1e6 * seconds[0], f"{what}, of processors": 1e6 * seconds[1]}


def info(folder: Path, _: int) -> Figures:
    """Read what is in it."""
    start = time.perf_counter()
    with _opened(folder, readonly=True) as board:
        about = board.info()
    seconds = time.perf_counter() - start
    files = sum(file.stat().st_size for file in folder.glob("whiteboard.db*"))
    return {"bytes a package": files / about["packages"], "info, s": seconds, "info, MB": measure.peak_mb()}


def verify(folder: Path, _: int) -> Figures:
    """Verify the structure, the index, and a hundredth of the pages."""
    start = time.perf_counter()
    with _opened(folder, readonly=True) as board:
        if not board.verify(sample=0.01).ok:
            sys.exit("the store is damaged")
    return {"verify 1 %, s": time.perf_counter() - start, "verify, MB": measure.peak_mb()}


def evict(folder: Path, _: int) -> Figures:
    """Evict a hundredth of it."""
    start = time.perf_counter()
    with _opened(folder) as board:
        before = board.gc(dry_run=True).bytes_before
        report = board.gc(max_bytes=before - before // 100)
    seconds = time.perf_counter() - start
    return {
        "gc 1 %, s": seconds,
        "gc, µs a package": 1e6 * seconds / max(1, report.evicted.packages),
        "gc, MB": measure.peak_mb(),
    }


def peer(folder: Path, size: int) -> Figures:
    """Fill diskcache, and set and get some more."""
    import diskcache

    def put(numbers: range) -> float:
        values = [(x * x, 2 * x) for x in sources(numbers.start, len(numbers))]
        start = time.perf_counter()
        for first in range(0, len(numbers), _TRANSACTION):
            with cache.transact():
                for number, value in zip(numbers[first : first + _TRANSACTION], values[first:], strict=False):
                    cache.set(number, value)
        return time.perf_counter() - start

    start = time.perf_counter()
    cache = diskcache.Cache(str(folder / "diskcache"), eviction_policy="none", size_limit=2**40)
    opened = time.perf_counter() - start
    with cache:
        for number in range(len(cache), size, BATCH):
            put(range(number, number + BATCH))
        there = len(cache)
        set_seconds = put(range(there, there + BATCH))
        draw, seconds = random.Random(1), []
        for _ in range(BATCH):
            key = draw.randrange(there)
            start = time.perf_counter()
            cache.get(key)
            seconds.append(time.perf_counter() - start)
    return {
        "diskcache open, ms": 1e3 * opened,
        "diskcache get, µs": 1e6 * median(seconds),
        "diskcache set, µs": 1e6 * set_seconds / BATCH,
        "diskcache bytes": sum(each.stat().st_size for each in (folder / "diskcache").rglob("*")) / (there + BATCH),
    }


TASKS = {task.__name__: task for task in (fill, opening, hits, one_key, misses, info, verify, evict, peer)}


def _fresh(task: str, folder: Path, number: int = 0) -> Figures:
    command = [sys.executable, __file__, "--fresh", json.dumps([task, str(folder), number])]
    found: Figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return found


def _medians(task: str, folder: Path, runs: int, number: int | None = None) -> Figures:
    each = [_fresh(task, folder, run if number is None else number) for run in range(runs)]
    return {name: median(one[name] for one in each) for name in each[0]}


def _warm(folder: Path) -> None:
    """Read the file, so that it is in the system's cache as far as that has room."""
    with (folder / "whiteboard.db").open("rb") as file:
        while file.read(2**24):
            pass


def measured(folder: Path, size: int, given: Any) -> Figures:
    """Measure a store of so many packages, which is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    if size <= 100 * BATCH // 2 and _filled(folder):  # it would not be small any more
        shutil.rmtree(folder)
        folder.mkdir()
    found = _fresh("fill", folder, size)
    if found["filled, s"] < 1 and size > BATCH:
        found = {}
    for task in ("opening", "hits", "one_key"):
        _warm(folder)
        found |= _medians(task, folder, given.runs)
    _warm(folder)
    found |= _medians("misses", folder, 1, given.batches)
    for task in ("info", "verify", "evict"):
        found |= _fresh(task, folder)
    if size <= given.peer:
        found |= _fresh("peer", folder, size)
    return found


def table(figures: dict[int, Figures]) -> list[dict[str, Any]]:
    """Return a row a figure, with a column a size, and how many times the first it is at each of the others."""
    sizes = list(figures)
    rows = []
    for name in dict.fromkeys(name for each in figures.values() for name in each):
        row: dict[str, Any] = {"what": name} | {f"{size:,}": figures[size].get(name) for size in sizes}
        first = figures[sizes[0]].get(name)
        for size in sizes[1:]:
            last = figures[size].get(name)
            row[f"{size:,} ÷ first"] = last / first if first and last else None
        rows.append(row)
    return rows


def main() -> None:
    """Print the table."""
    options = measure.parser(__doc__ or "")
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="packages (default: 10,000 and 1,000,000)")
    options.add_argument("--peer", type=int, default=10**6, help="fill diskcache up to so many (default: %(default)s)")
    options.add_argument("--batches", type=int, default=15, help="of misses, 10,000 each (default: %(default)s)")
    options.add_argument("--folder", type=Path, help="where the stores are made and kept (default: a temporary one)")
    options.add_argument("--fresh", help="what a fresh process is asked by this program")
    given = options.parse_args()
    if given.fresh:
        task, folder, number = json.loads(given.fresh)
        print(json.dumps(TASKS[task](Path(folder), number)))
        return
    with tempfile.TemporaryDirectory() as name:
        place = given.folder or Path(name)
        figures = {size: measured(place / str(size), size, given) for size in sorted(given.sizes)}
    about = measure.machine("blosc2", "diskcache")
    load = f"{os.getloadavg()[0]:.1f}"
    measure.report(about | {"load": load}, {"Growth": table(figures)}, given.json)


if __name__ == "__main__":
    main()
