"""Writers: which living process may write a system, so that a second one is told before it has computed for hours.

A row names the process by host, boot, PID namespace, pid and start time. Whoever finds the process dead takes the row
over; of a process on another host or in another namespace (a container's) nothing can be known, so there the user has
to say so. A commit looks again, in its own transaction: a writer whose claim another one has taken over is refused,
however late it comes.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from whiteboard.concurrency.processes import boot, has_ended, started
from whiteboard.errors import ConflictError, CorruptPackageError, WhiteboardError
from whiteboard.storage.page import row_checks
from whiteboard.storage.sql import tables as t
from whiteboard.storage.sql.backend import Connection, Database, Row, rows_of

_BY_NAME = "SELECT * FROM writer WHERE name = ?"
_DELETE = "DELETE FROM writer WHERE name = ?"
_INSERT = "INSERT INTO writer (name, token, host, boot, pid, started) VALUES (?, ?, ?, ?, ?, ?)"

_log = logging.getLogger(__name__)


class Writers:
    """The rows of one open store; `release` gives back what was claimed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._names: set[str] = set()
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._token = os.urandom(8).hex()

    @property
    def token(self) -> str:
        """What claims of this process are known by: a forked child holds none of its parent's."""
        if self._pid != os.getpid():
            self._renew()
        return self._token

    def claim(self, name: str, *, takeover: bool = False) -> None:
        """Become the writer of a system, or stay it.

        Raises
        ------
        ConflictError
            Another writer lives, or is on another host, and `takeover` is false; the message names it.
        """
        if self._database.readonly:
            return  # the commit says that nothing can be written

        def claimed(connection: Connection) -> None:
            row = _row_of(connection, name)
            if (
                row is not None
                and row.token != self.token
                and not takeover
                and (why := self._in_the_way(connection, row))
            ):
                msg = f"system {name!r} is written by {why}"
                raise ConflictError(msg)
            connection.exec_driver_sql(_DELETE, (name,))
            connection.exec_driver_sql(_INSERT, (name, self.token, *_identity().values()))

        _LIVING.add(self)
        self._database.hold(self.token)
        before = name in self._names
        self._names.add(name)  # first, so that an interrupt leaves no row that nobody gives back
        try:
            self._database.write(claimed)
        except WhiteboardError:
            if not before:
                self._names.discard(name)
            raise
        if takeover:
            _log.info("took over system %r", name)

    def _in_the_way(self, connection: Connection, row: Any) -> str:
        """Say which living writer a row names, or return an empty string where it is dead."""
        lives = self._database.writer_lives(connection, row.token)
        if lives is None:
            return _in_the_way(row)
        if not lives or has_ended(row.boot, row.pid, row.started):  # the server hears of it a moment later
            return ""
        return f"process {row.pid} on {row.host}: end it first, or take over (takeover=True, --takeover)"

    @contextmanager
    def claimed(self, name: str) -> Iterator[None]:
        """Be the writer of a system while the block runs, and afterwards if this one was it before."""
        before = name in self._names
        self.claim(name)
        try:
            yield
        finally:
            if not before:
                self.release(name)

    def token_of(self, name: str) -> str | None:
        """What this one's claim of a system is known by; None where it has none, and the head alone decides."""
        return self.token if name in self._names else None

    def check(self, connection: Connection, name: str) -> None:
        """Raise where another writer has taken over what this one claimed; within the transaction of a commit.

        Raises
        ------
        ConflictError
        """
        if name not in self._names:
            return  # claimed by nobody here: then the head that a commit follows decides alone
        row = _row_of(connection, name)
        if row is None or row.token != self.token:
            why = "" if row is None else self._in_the_way(connection, row)
            who = f", {why}" if why else ""
            msg = f"system {name!r} has another writer now{who}; open it again and go on from there"
            raise ConflictError(msg)

    def release(self, name: str | None = None) -> None:
        """Stop being the writer of a system, or of everything that was claimed."""
        if name is None:
            _LIVING.discard(self)  # first, so that a claim that cannot be deleted is a dead one all the same
        names = set(self._names) if name is None else self._names & {name}
        if names:
            mine = [(name, self.token) for name in sorted(names)]
            self._database.write(lambda connection: connection.exec_driver_sql(f"{_DELETE} AND token = ?", mine))
            self._names -= names


_LIVING: weakref.WeakSet[Writers] = weakref.WeakSet()
"""Those of this process that write: a claim of any other of it is of a board that was closed, or let go."""


def _row_of(connection: Connection, name: str) -> Row | None:
    """The claim of a system; one that is damaged is nobody's, as no process can be told by it."""
    # Where others write at the same time, nobody takes a claim over before the commit that looked at it is done.
    row = connection.exec_driver_sql(_BY_NAME + rows_of(connection).TO_CHANGE, (name,)).first()
    try:
        return row if row is None else row_checks.row(t.writer, row)
    except CorruptPackageError:
        return None


def _identity() -> dict[str, Any]:
    return {"host": os.uname().nodename, "boot": boot(), "pid": os.getpid(), "started": started(os.getpid())}


def _in_the_way(row: Any) -> str:
    """Say which living writer a row names, or return an empty string where it is dead."""
    here = _identity()
    (booted, _, space), (booted_here, _, space_here) = (at.partition("/") for at in (row.boot, here["boot"]))
    unknown = "whether it lives: end it, or take over (takeover=True, --takeover) if it is dead"
    if row.host != here["host"]:
        return f"process {row.pid} on {row.host}, of which {here['host']} cannot know {unknown}"
    if booted != booted_here:
        return ""
    if space and space != space_here:  # without a slash: an older version's, which did not say
        return f"process {row.pid} in another PID namespace of {row.host}, of which this one cannot know {unknown}"
    try:
        os.kill(row.pid, 0)
    except (ProcessLookupError, OverflowError):  # or a pid that no process has
        return ""
    except PermissionError:
        pass  # it lives, as another user
    if row.started != started(row.pid):
        return ""  # the pid is another process's now
    if row.pid == here["pid"]:
        if not any(writers.token == row.token for writers in list(_LIVING)):
            return ""
        return "another board of this process: close that one first, or open this one with readonly=True"
    return f"process {row.pid} on this machine: end it first, or open the store with readonly=True"
