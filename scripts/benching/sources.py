"""Kept sources: what it takes to keep them, in bytes and time, and what hits pay for it.

A job has one source and a scalar y, as an objective does; its package holds y and the gradient. The function costs
nothing, so that a miss is what the library does; beside it stands what that is of a function that costs a millisecond.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

import whiteboard as wb
from scripts.benching import measure

SIZES = (8, 64, 1024, 6 * 1024, 48 * 1024, 384 * 1024)
JOBS = 1024
MOST_BYTES = 48 * 2**20
"""Jobs of large sources are fewer."""

_numbers = count()


def free(x: Any) -> Any:
    """An objective that costs next to nothing."""
    return x[0], x


def registered() -> None:
    """Make two ops of it: one whose sources are kept, and one whose are not."""
    for name, keep in (("kept", True), ("bare", False)):
        wb.op(name, gradient="returned", identity="free", keep_sources=keep, replace=True)(free)


def sources(size: int, kind: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return sources of n jobs: random numbers do not compress, smooth ones do."""
    n = max(4, min(JOBS, MOST_BYTES // (8 * size)))
    if kind == "smooth":
        return np.linspace(0, 1, n)[:, None] + np.linspace(0, 1, size)
    return np.random.default_rng(size).normal(size=(n, size))


def missed(op: str, x: Any) -> Callable[[Path], None]:
    """Return what computes jobs into a new store, to the disk."""

    def work(path: Path) -> None:
        with wb.open(path, memory_bytes=0) as board:
            board.call_many(op, x)

    return work


def row(size: int, kind: str, folder: Path, runs: int) -> dict[str, Any]:
    """Measure one size of sources."""
    x = sources(size, kind)
    n = len(x)

    def new() -> Path:
        return folder / f"{next(_numbers)}.db"

    missing = measure.interleaved({op: (missed(op, x), new) for op in ("bare", "kept")}, runs=runs)
    paths = {op: new() for op in ("bare", "kept")}
    for op, path in paths.items():
        missed(op, x)(path)

    def hits(op: str) -> Callable[[Any], None]:
        def work(_: object) -> None:
            with wb.open(paths[op], readonly=True, memory_bytes=0) as board:
                board.call_many(op, x)

        return work

    found = measure.interleaved({op: (hits(op), lambda: None) for op in paths}, runs=runs)
    sizes = {}
    for op, path in paths.items():
        with wb.open(path, readonly=True) as board:
            sizes[op] = board.info()["ops"][op]["nbytes"] / n
    for path in folder.iterdir():
        path.unlink()
    more = 1e6 * (missing["kept"] - missing["bare"]) / n
    return {
        "source bytes": 8 * size,
        "numbers": kind,
        "bytes": sizes["bare"],
        "bytes, kept": sizes["kept"],
        "miss": 1e6 * missing["bare"] / n,
        "miss, kept": 1e6 * missing["kept"] / n,
        "keeping": more,
        "ns a byte": 1e3 * more / (8 * size),
        "% of 1 ms": more / 10,
        "disk hit": 1e6 * found["bare"] / n,
        "disk hit, kept": 1e6 * found["kept"] / n,
    }


def main() -> None:
    """Measure and report."""
    options = measure.parser(__doc__ or "")
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers a source")
    given = options.parse_args()
    registered()
    with tempfile.TemporaryDirectory(prefix="whiteboard-bench-") as folder:
        rows = [row(size, kind, Path(folder), given.runs) for kind in ("random", "smooth") for size in given.sizes]
    measure.report(measure.machine("blosc2"), {"Keeping sources (µs a package)": rows}, given.json)


if __name__ == "__main__":
    main()
