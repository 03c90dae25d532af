"""Large packages beside diskcache and raw sqlite3: made durable, and read again from disk.

Packages are y and two gradients of ``mul``; whiteboard computes them, the others store what they are given: a tuple of
three arrays, pickled by diskcache, joined bytes in a row of raw sqlite3, which is the least that SQLite can do. By
nodes, in one batch, whiteboard hashes each node once; `call`, one job at a time, hashes both sources. Hits are those of
a store that was just opened, by a process that has read others; whoever reads keeps all that it has read, as a batch
does, in memory that is new: what others have freed went back to the system.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import whiteboard as wb
from scripts.benching import measure
from scripts.benching.stores import Diskcache, Raw

SIZES = (48 * 2**10, 384 * 2**10, 3 * 2**20, 24 * 2**20)
TOTAL_BYTES = 48 * 2**20
"""Bytes of the packages of one measurement; there are at least two."""

Array = NDArray[Any]


def made(size: int, n: int, dtype: str, kind: str) -> Array:
    """Return the first sources of n jobs and the second one of all, (n + 1, w): packages of `size` bytes."""
    width = size // 3 // np.dtype(dtype).itemsize
    if kind == "random":
        return np.random.default_rng(0).normal(size=(n + 1, width)).astype(dtype)
    return (np.linspace(1, 2, n + 1)[:, None] + np.linspace(0, 1, width)).astype(dtype)


class Nodes:
    """Jobs over nodes, as one batch."""

    def __init__(self, folder: Path, x: Array) -> None:
        if not (folder / "nodes.db").exists():
            with wb.open(folder / "nodes.db") as board:  # what it has written is moved to its place when it is closed
                system = board.system("bench")
                system.add_nodes(range(len(x)), theta=x)
                system.commit()
        self.board = wb.open(folder / "nodes.db")
        self.system = self.board.system("bench")
        pairs = [(number, len(x) - 1) for number in range(len(x) - 1)]
        self.jobs = wb.JobBatch("mul", np.array(pairs))

    def write(self) -> None:
        """Compute all, and make them durable."""
        self.system.process(self.jobs)
        self.board.flush()

    def read(self) -> object:
        """Ask for all."""
        return self.system.process(self.jobs)

    def close(self) -> None:
        """Close the store."""
        self.board.close()


class Calls:
    """One call a job."""

    def __init__(self, folder: Path, x: Array) -> None:
        self.board, self.x = wb.open(folder / "calls.db"), x

    def read(self) -> object:
        """Ask for all."""
        return [self.board.call("mul", row, self.x[-1]) for row in self.x[:-1]]

    def write(self) -> None:
        """Compute all, and make them durable."""
        self.read()
        self.board.flush()

    def close(self) -> None:
        """Close the store."""
        self.board.close()


class Kept(Diskcache):
    """diskcache whose reader keeps what it reads."""

    def read(self) -> object:  # type: ignore[override]
        """Get all."""
        return [self.cache.get(number) for number in range(self.n)]


class KeptRaw(Raw):
    """The same of raw sqlite3."""

    def read(self) -> object:  # type: ignore[override]
        """Select all."""
        sql = "SELECT data FROM package WHERE id = ?"
        return [np.frombuffer(self.connection.execute(sql, (number,)).fetchone()[0]) for number in range(self.n)]


def stores(x: Array) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    """Yield by name what makes, or opens, each store in a folder."""

    def peer(kind: Callable[[Path, int, int], Any]) -> Callable[[Path], Any]:
        def opened(folder: Path) -> Any:
            store = kind(folder, 0, 1)
            store.n, store.packages = len(x) - 1, [(a * x[-1], np.array(x[-1]), np.array(a)) for a in x[:-1]]
            store.shape = (3, -1)
            return store

        return opened

    yield "nodes", lambda folder: Nodes(folder, x)
    yield "call", lambda folder: Calls(folder, x)
    yield "diskcache", peer(Kept)
    yield "sqlite3", peer(KeptRaw)


def row(size: int, dtype: str, kind: str, runs: int) -> dict[str, Any]:
    """Measure packages of one size, dtype and kind: milliseconds a package, and ratios to diskcache."""
    n = max(2, TOTAL_BYTES // size)
    x = made(size, n, dtype, kind)
    ways = dict(stores(x))
    with tempfile.TemporaryDirectory(prefix="whiteboard-bench-") as name:
        folder = Path(name)
        opened: list[Any] = []

        def begin(way: str, *, new: bool) -> Callable[[], Any]:
            def setup() -> Any:
                if opened:
                    opened.pop().close()
                if new:
                    shutil.rmtree(folder / way, ignore_errors=True)
                    (folder / way).mkdir()
                opened.append(ways[way](folder / way))
                measure.give_back()
                return opened[0]

            return setup

        written = measure.interleaved(
            {way: (lambda store: store.write(), begin(way, new=True)) for way in ways}, runs=runs
        )
        found = measure.interleaved(
            {way: (lambda store: store.read(), begin(way, new=False)) for way in ways}, runs=runs
        )
        opened.pop().close()
    told: dict[str, Any] = {"bytes": size, "dtype": dtype, "numbers": kind, "packages": n}
    for what, seconds in (("miss", written), ("hit", found)):
        told |= {f"{what}, {way}": 1e3 * taken / n for way, taken in seconds.items()}
        told |= {f"{what}: ÷ {way}": seconds["diskcache"] / seconds[way] for way in ("nodes", "call")}
    return told


def main() -> None:
    """Measure and report."""
    options = measure.parser(__doc__ or "")
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="bytes a package")
    options.add_argument("--dtypes", nargs="+", default=("float64", "float32"))
    options.add_argument("--kinds", nargs="+", default=("random", "smooth"))
    given = options.parse_args()
    rows = [row(size, dtype, kind, given.runs) for kind, dtype, size in product(given.kinds, given.dtypes, given.sizes)]
    title = "Large packages (ms each; ÷: how many times diskcache's time is that of nodes, of call)"
    measure.report(measure.machine("blosc2", "blake3", "diskcache"), {title: rows}, given.json)


if __name__ == "__main__":
    main()
