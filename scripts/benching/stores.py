"""The stores that `scripts/bench storage` measures: each writes all packages durably, and reads them again.

Packages are y and two gradients of float64, of op ``mul``. Only whiteboard and joblib compute; the others store what
they are given: a tuple of three arrays, pickled by diskcache, joblib and sqlitedict, joined bytes in raw sqlite3.
"""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import whiteboard as wb

BATCH = 256
"""Packages of one transaction of the peers."""

FEW = 500
"""Packages of a measurement with joblib, which makes a folder of each, and sqlitedict, which has its own thread."""

NODES = 1000
"""Nodes of whiteboard's system: of 10,000 jobs each node is a source of twenty."""

Array = NDArray[Any]


class Whiteboard:
    """Jobs over nodes, keys and computing included."""

    computes = True

    def __init__(self, folder: Path, n: int, width: int, **options: Any) -> None:
        self.board = wb.open(folder / "whiteboard.db", **options)
        self.system = self.board.system("bench")
        if not len(self.system.nodes):
            self.system.add_nodes(range(NODES), theta=np.random.default_rng(0).normal(size=(NODES, width)))
            self.system.commit()
        # Each pair once, in an order of no pattern.
        pairs = np.stack(np.divmod(np.random.default_rng(1).choice(NODES * NODES, n + 1, replace=False), NODES), axis=1)
        self.jobs, self.one = wb.JobBatch("mul", pairs[:n]), wb.JobBatch("mul", pairs[n:])

    def stacked(self) -> list[Array]:
        """Return the sources of all jobs, as `call_many` takes them."""
        nodes = self.system.nodes
        return [
            np.stack([np.asarray(nodes[i].theta) for i in column.tolist()])
            for column in np.asarray(self.jobs.src_ids).T
        ]

    def first(self) -> None:
        """Ask for one package that is none of the others: the process claims the system, and reads the op's code."""
        self.system.process(self.one)

    def write(self) -> None:
        """Compute all and make them durable."""
        self.system.process(self.jobs)
        self.board.flush()

    def write_first(self) -> None:
        """Make the package of `first` durable."""
        self.first()
        self.board.flush()

    def read(self) -> None:
        """Ask for all."""
        self.system.process(self.jobs)

    def close(self) -> None:
        """Close the store."""
        self.board.close()


class Peer:
    """What the peers have in common: the packages, made before."""

    computes = False

    def __init__(self, folder: Path, n: int, width: int) -> None:
        rng = np.random.default_rng(0)
        self.folder, self.n = folder, n
        self.packages = [tuple(rng.normal(size=(3, width))) for _ in range(n)]
        self.one = (np.ones(1), np.ones(1), np.ones(1))

    def parts(self) -> Iterator[range]:
        """Yield the numbers of each transaction."""
        for start in range(0, self.n, BATCH):
            yield range(start, min(self.n, start + BATCH))


class Diskcache(Peer):
    """``set`` in ``transact``, ``get``."""

    def __init__(self, folder: Path, n: int, width: int) -> None:
        import diskcache

        super().__init__(folder, n, width)
        self.cache = diskcache.Cache(str(folder / "diskcache"), eviction_policy="none", size_limit=2**40)

    def write(self) -> None:
        """Set all, in transactions."""
        for part in self.parts():
            with self.cache.transact():
                for number in part:
                    self.cache.set(number, self.packages[number])

    def read(self) -> None:
        """Get all."""
        for number in range(self.n):
            self.cache.get(number)

    def write_first(self) -> None:
        """Set the package of `first`."""
        self.cache.set(-1, self.one)

    def first(self) -> None:
        """Get one package that is none of the others."""
        self.cache.get(-1)

    def close(self) -> None:
        """Close the cache."""
        self.cache.close()


class Joblib(Peer):
    """A function cached by ``Memory``: it computes, and hashes its arguments."""

    computes = True

    def __init__(self, folder: Path, n: int, width: int) -> None:
        import joblib

        super().__init__(folder, n, width)
        self.cached = joblib.Memory(str(folder / "joblib"), verbose=0).cache(_product)

    def write(self) -> None:
        """Compute all."""
        for a, b, _ in self.packages:
            self.cached(a, b)

    read = write

    def first(self) -> None:
        """Compute, or get, one package that is none of the others."""
        self.cached(self.one[0], self.one[1])

    write_first = first

    def close(self) -> None:
        """Nothing is open."""


def _product(a: Array, b: Array) -> tuple[Array, Array, Array]:
    return a * b, b.copy(), a.copy()


class Sqlitedict(Peer):
    """A dict of pickles, committed every 256."""

    def __init__(self, folder: Path, n: int, width: int) -> None:
        import sqlitedict

        super().__init__(folder, n, width)
        self.dict = sqlitedict.SqliteDict(str(folder / "sqlitedict.db"), encode=_pickled, decode=pickle.loads)

    def write(self) -> None:
        """Set all."""
        for part in self.parts():
            for number in part:
                self.dict[str(number)] = self.packages[number]
            self.dict.commit()

    def read(self) -> None:
        """Get all."""
        for number in range(self.n):
            self.dict[str(number)]

    def write_first(self) -> None:
        """Set the package of `first`."""
        self.dict["first"] = self.one
        self.dict.commit()

    def first(self) -> None:
        """Get one package that is none of the others."""
        self.dict["first"]

    def close(self) -> None:
        """Close the dict, and wait for its thread."""
        self.dict.close()


def _pickled(value: Any) -> sqlite3.Binary:
    return sqlite3.Binary(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


class Raw(Peer):
    """One row of joined bytes a package, the least that SQLite can do."""

    def __init__(self, folder: Path, n: int, width: int) -> None:
        super().__init__(folder, n, width)
        self.shape = (3, width)
        self.connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
        for pragma in ("page_size=8192", "journal_mode=WAL", "synchronous=NORMAL"):
            self.connection.execute(f"PRAGMA {pragma}")
        self.connection.execute("CREATE TABLE IF NOT EXISTS package (id INTEGER PRIMARY KEY, data BLOB)")

    def write(self) -> None:
        """Insert all."""
        for part in self.parts():
            rows = [(number, b"".join(a.tobytes() for a in self.packages[number])) for number in part]
            self.connection.execute("BEGIN IMMEDIATE")
            self.connection.executemany("INSERT INTO package VALUES (?, ?)", rows)
            self.connection.execute("COMMIT")

    def read(self) -> None:
        """Select all, one by one, as arrays."""
        for number in range(self.n):
            (data,) = self.connection.execute("SELECT data FROM package WHERE id = ?", (number,)).fetchone()
            tuple(np.frombuffer(data).reshape(self.shape))

    def write_first(self) -> None:
        """Insert the package of `first`."""
        self.connection.execute("INSERT OR IGNORE INTO package VALUES (-1, x'00')")

    def first(self) -> None:
        """Select one package that is none of the others."""
        self.connection.execute("SELECT data FROM package WHERE id = -1").fetchone()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


STORES: dict[str, Callable[..., Any]] = {
    "whiteboard": Whiteboard,
    "diskcache": Diskcache,
    "joblib": Joblib,
    "sqlitedict": Sqlitedict,
    "raw sqlite3": Raw,
}


def fewer(name: str, n: int) -> int:
    """Return how many packages a store is measured with."""
    return min(n, FEW) if name in ("joblib", "sqlitedict") else n
