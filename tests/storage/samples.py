"""What tests of the store share: the samples of `whiteboard.testing`, a store's tables, and new interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection

import whiteboard as wb
from whiteboard.storage.sqlite.database import Database
from whiteboard.storage.stores import Stores
from whiteboard.testing.samples import Model, assert_found, assert_state, key_of, page_of, value_of

__all__ = [
    "Model",
    "assert_found",
    "assert_state",
    "database_of",
    "environment",
    "key_of",
    "page_of",
    "run_python",
    "transaction",
    "value_of",
]


def database_of(board: wb.Board) -> Database:
    """The database that a board's store lies in."""
    assert isinstance(board._store, Stores)
    return board._store.database


@contextmanager
def transaction(database: Database) -> Iterator[Connection]:
    """One write transaction as a block, for tests that write behind the store's back."""
    with database._mutex, database._writer.begin() as connection:
        yield connection


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


def environment() -> dict[str, str]:
    """This process's environment, with the folder of the tests on the path."""
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))}
