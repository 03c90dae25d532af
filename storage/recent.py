"""The index of pages written lately: their hashes page by page, until there are enough for a place of their own each.

A hash is random, so a row for each package of a small flush would change as many pages of the index as there are
packages. Here a flush adds one row a page; what has gathered then goes into ``package`` together, in its order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

_MOST_HASHES: Final = 32_768
_MOST_PAGES: Final = 256
"""So many are looked through in some tenths of a millisecond, whatever is looked for."""

_INSERT_ROWS: Final = 300
"""Rows of one statement: older SQLite takes 999 values in one."""


def add(connection: Connection, page_id: int, hashes: NDArray[np.int64]) -> None:
    """Index a page that was just written: package i has hash i."""
    connection.connection.cursor().execute(
        "INSERT INTO recent VALUES (?, ?)", (page_id, hashes.astype("<i8").tobytes())
    )


def settle_if_many(connection: Connection) -> None:
    """Move all rows into ``package`` once there are many."""
    sql = "SELECT count(*), sum(length(hashes)) FROM recent"
    pages, nbytes = connection.connection.cursor().execute(sql).fetchone()
    if pages > _MOST_PAGES or (pages and nbytes > 8 * _MOST_HASHES):
        settle(connection)


def settle(connection: Connection) -> None:
    """Move all rows into ``package``; hashes that have a row there keep it."""
    rows = index(connection)
    if len(rows):
        insert(connection, rows[np.argsort(rows[:, 0], kind="stable")])
        connection.exec_driver_sql("DELETE FROM recent")


def insert(connection: Connection, rows: NDArray[np.int64]) -> None:
    """Insert index rows (hash, page_id, slot) into ``package``."""
    # A statement for many rows: after each one the interpreter would be given up, and had again only when the threads
    # that compute let go of it, while other processes wait for this transaction.
    cursor = connection.connection.cursor()
    for start in range(0, len(rows), _INSERT_ROWS):
        part = rows[start : start + _INSERT_ROWS]
        places = ",".join(["(?, ?, ?)"] * len(part))
        cursor.execute(f"INSERT OR IGNORE INTO package VALUES {places}", part.reshape(-1).tolist())


def find(connection: Connection, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index rows (hash, page_id, slot) of some hashes, ascending and each there once; shape (m, 3)."""
    rows = index(connection)
    if not (len(rows) and len(wanted)):
        return rows[:0]
    at = np.searchsorted(wanted, rows[:, 0]).clip(max=len(wanted) - 1)
    found: NDArray[np.int64] = rows[wanted[at] == rows[:, 0]]
    return found


def index(connection: Connection) -> NDArray[np.int64]:
    """All rows as index rows (hash, page_id, slot), by ascending page; a damaged one is left out."""
    parts = [np.empty((0, 3), np.int64)]
    for page_id, hashes in _read(connection):
        n = len(hashes)
        parts.append(np.stack([hashes, np.full(n, page_id), np.arange(n)], axis=1))
    return np.concatenate(parts)


def _read(connection: Connection) -> Iterator[tuple[int, NDArray[np.int64]]]:
    cursor = connection.connection.cursor()
    rows: list[tuple[int, Any]] = cursor.execute("SELECT page_id, hashes FROM recent ORDER BY page_id").fetchall()
    for page_id, hashes in rows:
        if isinstance(hashes, bytes) and len(hashes) % 8 == 0:
            yield page_id, np.frombuffer(hashes, "<i8").astype(np.int64)
