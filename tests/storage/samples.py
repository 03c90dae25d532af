"""What tests of the store share: the samples of `whiteboard.testing`, a store's tables, and new interpreters."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import whiteboard as wb
from whiteboard.storage.cache.packages import SqlitePackages
from whiteboard.storage.cache.write_behind import WriteBehind
from whiteboard.storage.sql import backend
from whiteboard.storage.sql.backend import Connection
from whiteboard.storage.sql.location import locate
from whiteboard.storage.sqlite import schema
from whiteboard.storage.sqlite.database import Database
from whiteboard.storage.sqlite.transaction import Transaction
from whiteboard.storage.stores import Stores
from whiteboard.testing.samples import Model, assert_found, assert_state, key_of, page_of, value_of

__all__ = [
    "Model",
    "assert_found",
    "assert_state",
    "database_of",
    "environment",
    "key_of",
    "keys_of",
    "packages_at",
    "page_of",
    "run_python",
    "sql",
    "transaction",
    "value_of",
]


def database_of(opened: wb.Board | Stores) -> Database:
    """The SQLite database that a board, or a store, lies in."""
    store = opened._store if isinstance(opened, wb.Board) else opened
    assert isinstance(store, Stores)
    assert isinstance(store.database, Database)
    return store.database


def keys_of(numbers: Iterable[int]) -> list[bytes]:
    """The keys of packages."""
    return [key_of(number) for number in numbers]


def packages_at(where: str | Path, bounds: WriteBehind | None = None, hash_bits: int = 63) -> SqlitePackages:
    """The packages of a store, without the rest of it."""
    database = Database(locate(where))
    schema.ensure(database)
    return SqlitePackages(database, bounds, hash_bits=hash_bits)


@contextmanager
def transaction(database: backend.Database) -> Iterator[Connection]:
    """One write transaction as a block, for tests that write behind the store's back."""
    assert isinstance(database, Database)
    with database._mutex, database._pool.idle() as raw:
        raw.execute("BEGIN IMMEDIATE")
        yield Transaction(raw)


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
    """This process's environment, with the folder of the tests on the path, and no word on a fork beside threads."""
    root = str(Path(__file__).parents[2])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root])),
        "PYTHONWARNINGS": ",".join(
            filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:This process:DeprecationWarning"])
        ),
    }
