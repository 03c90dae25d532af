"""Claims: bins that one process computes while the others wait, a row each, alive while its holder keeps a lock.

There is no heartbeat: a function that holds the interpreter for minutes would miss it. The kernel drops the lock with
the process, however it ends, and whoever looks next finds the row dead and takes its keys over.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from io import FileIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from whiteboard.concurrency import processes
from whiteboard.errors import CorruptPackageError, StoreError
from whiteboard.records.claims import Holder
from whiteboard.storage.base import Claim
from whiteboard.storage.page import row_checks
from whiteboard.storage.sql import tables as t
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.page_row import HASH_BITS, hashes_of
from whiteboard.storage.sql.rows import Broken, select_index
from whiteboard.storage.sqlite import claim_locks
from whiteboard.storage.sqlite.write_queue import WriteLock

_MOST_BYTES: Final = 8 * row_checks.MOST_ROWS
_ROWS: Final = (
    "SELECT id, boot, pid, started, cost_ns, CASE WHEN typeof(hashes) = 'blob' AND length(hashes) <= "
    f"{_MOST_BYTES} THEN hashes END AS hashes FROM claim"
)
_INSERT: Final = "INSERT INTO claim (id, boot, pid, started, cost_ns, hashes) VALUES (?, ?, ?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM claim WHERE id = ?"


class FileClaim(Claim):
    """A claim in a file that processes of one machine share.

    Parameters
    ----------
    database : Database
        Not of ``:memory:``, and not for reading alone.
    lock : WriteLock
        Whose file the locks are in.
    broken : callable
        Gives the pages and hashes of which something is there that is no package.
    bits : int
        Bits of a key that the index holds.
    """

    def __init__(
        self, database: Database, lock: WriteLock, broken: Callable[[], Broken], bits: int = HASH_BITS
    ) -> None:
        self._file: FileIO | None = None
        super().__init__()
        self._database, self._lock, self._broken, self._bits = database, lock, broken, bits
        self._number = -1
        self._left = 0

    def take(
        self, keys: Sequence[bytes], most: int, *, seconds: float | None = None, instead: Iterable[int] = ()
    ) -> None:
        self.release()
        hashes = hashes_of(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16), self._bits)
        self._file = claim_locks.opened(self._lock)
        file = self._file
        over, broken = set(instead), self._broken()

        def taken(connection: Connection) -> None:
            index = select_index(connection, hashes)
            there = [h for h, page, _ in index.tolist() if page not in broken.pages and h not in broken.hashes]
            found = np.isin(hashes, np.array(there, np.int64))
            living, dead = _divided(connection, file)
            living = [row for row in living if row.id not in over]
            delete(connection, {*dead, *over})
            held = ~found & np.isin(hashes, _joined(living))
            self.found, self.held = np.flatnonzero(found), np.flatnonzero(held)
            free = np.flatnonzero(~(found | held))
            self.mine, self.left = free[:most], free[most:]
            self._left = len(self.mine)
            if self._left:
                self._insert(connection, file, hashes[self.mine], seconds)

        self._database.write(taken)
        if not self._left:
            self._let_go()

    def _insert(self, connection: Connection, file: FileIO, hashes: NDArray[np.int64], seconds: float | None) -> None:
        number = secrets.randbelow(claim_locks.MOST)
        while not claim_locks.hold(file, number):  # of a claim whose row was deleted and whose holder goes on
            number = secrets.randbelow(claim_locks.MOST)
        self._number = number
        pid = os.getpid()
        cost = None if seconds is None else int(1e9 * min(seconds, 1e9))
        row = (number, processes.boot(), pid, _since(pid), cost, hashes.astype("<i8").tobytes())
        connection.connection.cursor().execute(_INSERT, row)

    def settle(self, connection: Connection, packages: int) -> None:
        """Give it back if so many packages, which this transaction puts, are all; `done` follows when it has ended."""
        if self._file is not None and not self._file.closed and packages >= self._left:
            delete(connection, [self._number])

    def done(self, packages: int) -> None:
        """Say that so many packages are on disk."""
        self._left -= packages
        if self._left <= 0:
            self._let_go()

    def release(self) -> None:
        if self._file is None or self._file.closed:  # in a forked child it is closed, and the claim its parent's
            return
        try:
            self._database.write(lambda connection: delete(connection, [self._number]))
        except StoreError:
            pass  # it is dead all the same, and whoever looks next deletes it
        finally:
            self._let_go()

    def __del__(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


@lru_cache(1)
def _since(pid: int) -> int:
    """When this process started."""
    return processes.started(pid)


def holders(database: Database, lock: WriteLock, keys: Sequence[bytes], bits: int = HASH_BITS) -> list[Holder]:
    """Who computes some keys at this moment."""
    hashes = hashes_of(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16), bits)
    with claim_locks.opened(lock) as file, database.read() as connection:
        living, _ = _divided(connection, file)
    found = []
    for row in living:
        rows = np.flatnonzero(np.isin(hashes, _hashes(row)))
        if len(rows):
            stopped = processes.is_stopped(row.boot, row.pid, row.started)
            found.append(Holder(row.id, rows, stopped, None if row.cost_ns is None else row.cost_ns / 1e9))
    return found


def sweep(database: Database) -> None:
    """Delete the rows of claims that nobody holds."""
    lock = database.lock
    if lock is None or not claim_locks.supported():
        return
    with database.read() as connection:
        if connection.exec_driver_sql("SELECT 1 FROM claim LIMIT 1").first() is None:
            return
    with claim_locks.opened(lock) as file:
        database.write(lambda connection: delete(connection, _divided(connection, file)[1]))


def delete(connection: Connection, numbers: Iterable[int]) -> None:
    """Delete rows; one that is not there is none."""
    if each := [(number,) for number in numbers]:
        connection.connection.cursor().executemany(_DELETE, each)


def _divided(connection: Connection, file: FileIO) -> tuple[list[Any], list[int]]:
    """The rows whose holders live, and the numbers of the others."""
    sound, dead = [], []
    for found in connection.exec_driver_sql(_ROWS).all():
        try:
            sound.append(row_checks.row(t.claim, found))
        except CorruptPackageError:
            dead.append(found.id)
    locked = claim_locks.held(file, [row.id for row in sound])
    living = []
    for row in sound:
        # A child that was forked behind our back may have the lock of a parent that is no more.
        if row.id in locked and not processes.has_ended(row.boot, row.pid, row.started):
            living.append(row)
        else:
            dead.append(row.id)
    return living, dead


def _hashes(row: Any) -> NDArray[np.int64]:
    return np.frombuffer(row.hashes[: len(row.hashes) // 8 * 8], "<i8")


def _joined(rows: Sequence[Any]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *map(_hashes, rows)])
