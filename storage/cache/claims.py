"""Claims: bins that one process computes while the others wait, a row each, alive while its holder keeps a lock.

There is no heartbeat: a function that holds the interpreter for minutes would miss it. The kernel, or the server, drops
the lock with the process, however it ends, and whoever looks next finds the row dead and takes its keys over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.concurrency import processes
from whiteboard.errors import CorruptPackageError, StoreError
from whiteboard.records.claims import Holder
from whiteboard.storage.base import Claim
from whiteboard.storage.page import row_checks
from whiteboard.storage.sql import tables as t
from whiteboard.storage.sql.backend import Connection, Database, Hold, Locks
from whiteboard.storage.sql.page_row import HASH_BITS, hashes_of
from whiteboard.storage.sql.rows import Broken, select_index

_MOST_BYTES: Final = 8 * row_checks.MOST_ROWS
_WHOLE: Final = f"length(hashes) <= {_MOST_BYTES}"
_ROWS: Final = "SELECT id, boot, pid, started, cost_ns, CASE WHEN {} THEN hashes END AS hashes FROM claim"
_INSERT: Final = "INSERT INTO claim (id, boot, pid, started, cost_ns, hashes) VALUES (?, ?, ?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM claim WHERE id = ?"
_TOUCH: Final = "UPDATE claim SET id = id WHERE id = ?"


class ClaimLostError(Exception):
    """A claim is nobody's, or another's."""


class SqlClaim(Claim):
    """A claim in a store that several processes share.

    Parameters
    ----------
    database : Database
        Not for reading alone.
    locks : Locks
        Its own.
    broken : callable
        Gives the pages and hashes of which something is there that is no package.
    bits : int
        Bits of a key that the index holds.
    """

    def __init__(self, database: Database, locks: Locks, broken: Callable[[], Broken], bits: int = HASH_BITS) -> None:
        self._hold: Hold | None = None
        super().__init__()
        self._database, self._locks, self._broken, self._bits = database, locks, broken, bits
        self._left = 0
        self.hashes = np.empty(0, np.int64)
        """Of the keys that are the caller's: they were in no package when it was taken."""

    def take(
        self, keys: Sequence[bytes], most: int, *, seconds: float | None = None, instead: Iterable[int] = ()
    ) -> None:
        self.release()
        hashes = hashes_of(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16), self._bits)
        hold = self._hold = self._locks.hold()
        over, broken = {*instead, hold.number}, self._broken()  # its own is there where this runs again

        def taken(connection: Connection) -> None:
            self._locks.alone(connection)
            # Claims before packages, where others write meanwhile: what is no claim any more is a package by then.
            living, dead = _divided(self._database, self._locks, connection)
            living = [row for row in living if row.id not in over]
            index = select_index(connection, hashes)
            there = [h for h, page, _ in index.tolist() if page not in broken.pages and h not in broken.hashes]
            found = np.isin(hashes, np.array(there, np.int64))
            delete(connection, {*dead, *over})
            held = ~found & np.isin(hashes, _joined(living))
            self.found, self.held = np.flatnonzero(found), np.flatnonzero(held)
            free = np.flatnonzero(~(found | held))
            self.mine, self.left = free[:most], free[most:]
            self._left, self.hashes = len(self.mine), hashes[self.mine]
            if self._left:
                connection.exec_driver_sql(_INSERT, _row(hold.number, self.hashes, seconds))

        try:
            self._database.write(taken)
        except StoreError:
            self._let_go()  # at once: its row may be there, where the answer was lost
            raise
        if not self._left:
            self._let_go(later=True)

    def settle(self, connection: Connection, packages: int) -> None:
        """Give it back if so many packages, which this transaction puts, are all; `done` follows when it has ended.

        Raises
        ------
        ClaimLostError
            Somebody took it over, or the transaction is run again that has given it back: its packages may be there.
        """
        hold = self._hold
        if hold is None or not hold.lives:
            raise ClaimLostError
        sql = _DELETE if packages >= self._left else _TOUCH
        if not connection.exec_driver_sql(sql, (hold.number,)).rowcount:
            raise ClaimLostError

    def done(self, packages: int) -> None:
        """Say that so many packages are on disk."""
        self._left -= packages
        if self._left <= 0:
            self._let_go(later=True)

    def release(self) -> None:
        hold = self._hold
        if hold is None or not hold.lives:  # in a forked child the claim is its parent's
            return
        later = False
        try:
            self._database.write(lambda connection: delete(connection, [hold.number]))
            later = True
        except StoreError:
            pass  # it is dead all the same, and whoever looks next deletes it
        finally:
            self._let_go(later=later)

    def __del__(self) -> None:
        self._let_go()

    def _let_go(self, *, later: bool = False) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.free(later=later)


def _row(number: int, hashes: NDArray[np.int64], seconds: float | None) -> tuple[Any, ...]:
    pid = os.getpid()
    cost = None if seconds is None else int(1e9 * min(seconds, 1e9))
    return number, processes.boot(), pid, _since(pid), cost, hashes.astype("<i8").tobytes()


@lru_cache(1)
def _since(pid: int) -> int:
    """When this process started."""
    return processes.started(pid)


def holders(database: Database, locks: Locks, keys: Sequence[bytes], bits: int = HASH_BITS) -> list[Holder]:
    """Who computes some keys at this moment."""
    hashes = hashes_of(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16), bits)
    living, _ = database.glance(partial(_divided, database, locks))
    found = []
    for row in living:
        rows = np.flatnonzero(np.isin(hashes, _hashes(row)))
        if len(rows):
            stopped = processes.is_stopped(row.boot, row.pid, row.started)
            found.append(Holder(row.id, rows, stopped, None if row.cost_ns is None else row.cost_ns / 1e9))
    return found


def sweep(database: Database) -> None:
    """Delete the rows of claims that nobody holds."""
    locks = database.locks
    if locks is None:
        return
    with database.read() as connection:
        if connection.exec_driver_sql("SELECT 1 FROM claim LIMIT 1").first() is None:
            return

    def swept(connection: Connection) -> None:
        locks.alone(connection)
        delete(connection, _divided(database, locks, connection)[1])

    database.write(swept)


def delete(connection: Connection, numbers: Iterable[int]) -> None:
    """Delete rows; one that is not there is none."""
    if each := [(number,) for number in sorted(numbers)]:
        connection.exec_driver_sql(_DELETE, each)


def _divided(database: Database, locks: Locks, connection: Connection) -> tuple[list[Any], list[int]]:
    """The rows whose holders live, and the numbers of the others."""
    sound, dead = [], []
    whole = _WHOLE if database.typed else f"typeof(hashes) = 'blob' AND {_WHOLE}"
    for found in connection.exec_driver_sql(_ROWS.format(whole)).all():
        try:
            sound.append(row_checks.row(t.claim, found))
        except CorruptPackageError:
            dead.append(found.id)
    locked = locks.held(connection, [row.id for row in sound])
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
