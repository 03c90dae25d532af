"""Pages and node columns whose content follows from a seed, so that a test can tell a right answer from a wrong one."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from whiteboard.storage.base import MISS, CommitRecord, Found, NodeColumns, Page, State, SystemRecord
from whiteboard.storage.cache.packages import SqlitePackages
from whiteboard.storage.cache.write_behind import WriteBehind
from whiteboard.storage.sqlite import schema
from whiteboard.storage.sqlite.database import Database
from whiteboard.storage.sqlite.location import locate


def key_of(number: int) -> bytes:
    """The key of package `number`."""
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def keys_of(numbers: Iterable[int]) -> list[bytes]:
    """The keys of packages."""
    return [key_of(number) for number in numbers]


def value_of(number: int, size: int = 8) -> NDArray[np.float64]:
    """The value of package `number`."""
    return np.random.default_rng(number).normal(size=size)


def page_of(numbers: Sequence[int], size: int = 8, op: str = "mul", cost_ns: int = 1000) -> Page:
    """A page of the given packages."""
    n = len(numbers)
    keys = np.frombuffer(b"".join(map(key_of, numbers)), np.uint8).reshape(n, 16)
    y = np.array([value_of(number, size) for number in numbers]).reshape(n, size)
    ids = np.array(numbers, np.int64).reshape(n, 1)
    return Page(op, keys.copy(), {"y": y, "g0": -y, "g1": 2 * y}, cost_ns * n, ids, ids + 1)


def assert_found(found: Found, numbers: Sequence[int], present: Callable[[int], bool], size: int = 8) -> None:
    """Every answer is the right package, and every package that is `present` was answered."""
    for i, number in enumerate(numbers):
        if found.page[i] < 0:
            assert found.tier[i] == MISS
            assert not present(number), f"package {number} is missing"
            continue
        assert found.tier[i] != MISS
        page, slot = found.pages[found.page[i]], found.slot[i]
        y = value_of(number, size)
        assert page.keys[slot].tobytes() == key_of(number)
        np.testing.assert_array_equal(page.arrays["y"][slot], y)
        np.testing.assert_array_equal(page.arrays["g0"][slot], -y)
        np.testing.assert_array_equal(page.arrays["g1"][slot], 2 * y)


def packages_at(where: str | Path, bounds: WriteBehind | None = None, hash_bits: int = 63) -> SqlitePackages:
    """The packages of a store, without the rest of it."""
    database = Database(locate(where))
    schema.ensure(database)
    return SqlitePackages(database, bounds, hash_bits=hash_bits)


class Model:
    """A system in plain Python: what a `VersionStore` must give back at each commit."""

    def __init__(self, name: str, n: int, seed: int = 0, shape: tuple[int, ...] = (3,)) -> None:
        self.record = SystemRecord(name, f"uuid of {name}", {"seed": seed})
        self.rng = np.random.default_rng(seed)
        self.ids = np.arange(n, dtype=np.int64) * 2
        self.versions = np.zeros(n, np.int64)
        self.fixed = self.ids % 4 == 0
        self.values = self.rng.normal(size=(n, *shape))
        self.number = -1
        self.kept: list[tuple[CommitRecord, list[NodeColumns]]] = []

    def columns(self, rows: NDArray[Any] | slice = slice(None)) -> list[NodeColumns]:
        """The given rows as they are now, as one arena."""
        ids, versions = self.ids[rows].copy(), self.versions[rows].copy()
        return [NodeColumns("theta", ids, versions, self.fixed[rows].copy(), self.values[rows].copy())]

    def step(self, rows: NDArray[Any] | slice = slice(None)) -> tuple[CommitRecord, list[NodeColumns]]:
        """Change the given rows; returns the commit and what it changed."""
        self.versions[rows] += 1
        self.values[rows] += self.rng.normal(size=self.values[rows].shape)
        changed = self.columns(rows)
        parent = None if self.number < 0 else self.number
        self.number += 1
        commit = CommitRecord(self.number, parent, len(changed[0].ids), 0.5, None, f"{self.number:032x}")
        self.kept.append((commit, self.columns()))
        return commit, changed


def assert_state(state: State, commit: CommitRecord, columns: Sequence[NodeColumns]) -> None:
    """A state is that commit with exactly those rows."""
    assert state.commit == commit
    assert [column.attr for column in state.columns] == [column.attr for column in columns]
    for got, want in zip(state.columns, columns, strict=True):
        for name in ("ids", "versions", "fixed", "values"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
            assert getattr(got, name).dtype == getattr(want, name).dtype
            assert not getattr(got, name).flags.writeable


@contextmanager
def transaction(database: Database) -> Iterator[Connection]:
    """One write transaction as a block, for tests that write behind the store's back."""
    with database._mutex, database._writer.begin() as connection:
        yield connection


def sql(path: str | Path, statement: str, *values: object) -> list[Any]:
    """Run one statement behind the store's back, and return its rows."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute(statement, values).fetchall()
    connection.close()
    return rows


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter that can import what this one can."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tempfile.gettempdir(),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


WHITEBOARD = (sys.executable, "-m", "whiteboard")


def environment() -> dict[str, str]:
    """This process's environment, with the folder of the tests on the path."""
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))}
