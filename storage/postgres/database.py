"""Transactions on a server, over a pool: reads of one moment, and writes that are run again where that is safe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError

from whiteboard.concurrency.at_fork import watch
from whiteboard.errors import ClosedError, UnansweredError
from whiteboard.storage.postgres import rows
from whiteboard.storage.postgres.connecting import connect, schema_of
from whiteboard.storage.postgres.failures import Again, Lost, is_lost, translated
from whiteboard.storage.postgres.holding import Holding, lock_of
from whiteboard.storage.sql import backend
from whiteboard.storage.sql.location import Location

_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_TRIES: Final = 4
"""Times that a transaction is run which met others, or whose connection ended before its COMMIT was sent."""

ASK_SECONDS = 15.0
"""How long the server is asked what became of a COMMIT whose answer did not come."""

_PAUSE_SECONDS: Final = 0.05
_END_SECONDS: Final = 2.0
# A session that has not heard of its client's end, and perhaps never got the COMMIT, is ended: then it is known.
_END: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_xid = ?::xid8::xid"
_INDEX_ROW_BYTES: Final = 24
_TABLES: Final = ("page", "package", "page_access", "eviction", "system", "commit_log", "node_page", "writer", "claim")

T = TypeVar("T")


class PostgresDatabase(backend.Database):
    """One schema of a database on a server.

    Parameters
    ----------
    location : Location
        With a server.
    readonly : bool
        Write nothing.
    durability : {"normal", "full"}
        Either way what was acknowledged is as safe as the server keeps it (its ``synchronous_commit``).
    """

    fork_rank = 9
    typed = True

    def __init__(self, location: Location, *, readonly: bool = False, durability: str = "normal") -> None:
        self.location, self.readonly, self.durability = location, readonly, durability
        self.schema = schema_of(location)
        self._closed = False
        self._holding = Holding(location, self.check_open)
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: connect(location),
            max_overflow=-1,
            use_native_hstore=False,
            execution_options={"rows": rows},
        )
        event.listen(self._engine, "before_cursor_execute", _with_marks, retval=True)
        watch(self)

    @contextmanager
    def read(self) -> Iterator[backend.Connection]:
        self.check_open()
        with translated(self.location), self._begun(_READ) as connection:
            yield connection

    def query(self, work: Callable[[backend.Connection], T]) -> T:
        try:
            return super().query(work)
        except (Lost, Again):
            return super().query(work)

    @contextmanager
    def _begun(self, begin: str) -> Iterator[Connection]:
        """A connection in a transaction, which ends with the block; one of the pool that has ended is replaced."""
        connection = self._engine.connect()
        try:
            try:
                connection.exec_driver_sql(begin)
            except DBAPIError as error:
                if not is_lost(error.orig):
                    raise
                connection.close()
                self._engine.dispose()  # the others of the pool have ended too, most likely
                connection = self._engine.connect()
                connection.exec_driver_sql(begin)
            yield connection
        finally:
            with suppress(DBAPIError):
                connection.close()

    def write(self, work: Callable[[backend.Connection], T], *, durable: bool = False) -> T:  # noqa: ARG002
        self.check_writable()
        self.check_open()
        for left in reversed(range(_TRIES)):
            try:
                with translated(self.location):
                    return self._transacted(work)
            except (Lost, Again):
                if not left:
                    raise
        raise AssertionError

    def _transacted(self, work: Callable[[backend.Connection], T]) -> T:
        xid = None
        try:
            with self._begun("BEGIN") as connection:
                done = work(connection)
                sql = "SELECT pg_current_xact_id_if_assigned()::text"
                (number,) = connection.exec_driver_sql(sql).one()
                xid = number
                connection.commit()
                return done
        except DBAPIError as error:
            if xid is None or not is_lost(error.orig):
                raise
        if self._landed(xid):
            return done
        message = f"the store {self.location}: the connection ended before what was written could be committed"
        raise Lost(message)

    def _landed(self, xid: str) -> bool:
        """Whether a transaction was committed whose COMMIT got no answer; the server is asked until it knows.

        Raises
        ------
        UnansweredError
        """
        begun = time.monotonic()
        while True:
            try:
                status = self._status(xid, end=time.monotonic() - begun > _END_SECONDS)
                if status in ("committed", "aborted"):
                    return bool(status == "committed")
            except Lost:
                pass
            if time.monotonic() - begun > ASK_SECONDS:
                message = (
                    f"the store {self.location}: the connection ended at a COMMIT, and for {ASK_SECONDS:g} s the "
                    "server could not be asked whether it was done; ask again later"
                )
                raise UnansweredError(message)
            time.sleep(_PAUSE_SECONDS)

    def _status(self, xid: str, *, end: bool) -> Any:
        """What the server says of a transaction, whose session is ended before where that is wanted."""
        with translated(self.location), self._begun("BEGIN") as connection:
            if end:
                connection.exec_driver_sql(_END, (xid,))
            return connection.exec_driver_sql("SELECT pg_xact_status(?::xid8)", (xid,)).scalar()

    def live_bytes(self) -> int:
        sql = (
            "SELECT (SELECT coalesce(sum(nbytes), 0) FROM page) + (SELECT count(*) FROM package) * ? "
            "+ (SELECT coalesce(sum(length(header) + length(data)), 0) FROM node_page)"
        )
        with self.read() as connection:
            return int(connection.exec_driver_sql(sql, (_INDEX_ROW_BYTES,)).scalar_one())

    def give_back(self) -> None:
        """Nothing: the server's autovacuum makes what is free usable again, and VACUUM FULL gives it back."""

    def bytes_on_disk(self) -> int:
        sizes = " + ".join(f"coalesce(pg_total_relation_size(to_regclass('{name}')), 0)" for name in _TABLES)
        with self.read() as connection:
            return int(connection.exec_driver_sql(f"SELECT {sizes}").scalar_one())

    def structure(self) -> tuple[str, ...]:
        """Nothing: the server has amcheck and checksums of its own."""
        return ()

    def version(self) -> dict[str, str]:
        with self.read() as connection:
            return {"postgresql": str(connection.exec_driver_sql("SHOW server_version").scalar_one())}

    # -- who has it open

    @property
    def locks(self) -> backend.Locks | None:
        return None if self.readonly else self._holding

    def hold(self, token: str) -> None:
        self._holding.last(lock_of(token))

    def writer_lives(self, connection: backend.Connection, token: str) -> bool:
        """Whether a session has the lock of that token; the server ends a session with its client."""
        sql = "SELECT pg_try_advisory_xact_lock(?)"
        return not connection.exec_driver_sql(sql, (lock_of(token),)).scalar_one()

    # -- the end

    def close(self) -> None:
        self._closed = True
        self._holding.close()
        self._engine.dispose()

    @property
    def closed(self) -> bool:
        return self._closed

    def check_open(self) -> None:
        if self._closed:
            message = f"the store {self.location} is closed"
            raise ClosedError(message)

    def before_fork(self) -> None:
        """Wait for whoever changes what is held."""
        self._holding.quiet()

    def after_fork(self, *, child: bool) -> None:
        """Leave the parent's connections to it: a child makes its own."""
        self._holding.woken(child=child)
        if child:
            self._engine.dispose(close=False)


def _with_marks(*said: Any) -> tuple[str, Any]:
    """Statements that are written for all backends have ``?`` where this driver wants ``%s``."""
    _, _, statement, parameters, _, _ = said
    return (_marked(statement) if "?" in statement else statement), parameters


@lru_cache(256)
def _marked(statement: str) -> str:
    return statement.replace("?", "%s")
