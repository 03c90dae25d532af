"""Transactions on a server, over a pool: reads of one moment, and writes that are run again where that is safe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import psycopg

from whiteboard.concurrency.at_fork import watch
from whiteboard.errors import ClosedError, StoreError, UnansweredError
from whiteboard.storage.postgres import rows
from whiteboard.storage.postgres.connecting import connect, schema_of
from whiteboard.storage.postgres.failures import Again, Faster, Lost, is_lost, translated
from whiteboard.storage.postgres.holding import Holding, lock_of
from whiteboard.storage.postgres.pool import Pool
from whiteboard.storage.postgres.transaction import Transaction
from whiteboard.storage.sql import backend
from whiteboard.storage.sql.location import Location

_OPTIONS: Final = {"rows": rows}
_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_TRIES: Final = 4
"""Times that a transaction is run which met others, or whose connection ended before its COMMIT was sent."""

ASK_SECONDS = 15.0
"""How long the server is asked what became of a COMMIT whose answer did not come."""

_PAUSE_SECONDS: Final = 0.05
_END_SECONDS: Final = 2.0
# A session that has not heard of its client's end, and perhaps never got the COMMIT, is ended: then it is known.
_END: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_xid = ?::xid8::xid"
_UNDER_WAY: Final = "SELECT 1 FROM pg_stat_activity WHERE backend_xid = ?::xid8::xid"
_INDEX_ROW_BYTES: Final = 24
_TABLES: Final = (
    "page",
    "page_part",
    "package",
    "page_access",
    "eviction",
    "system",
    "commit_log",
    "node_page",
    "writer",
    "claim",
)

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
    page_bytes = 128 * 1024  # a key alone brings its page, and a link of 1 Gbit/s takes 1 ms for it

    def __init__(self, location: Location, *, readonly: bool = False, durability: str = "normal") -> None:
        self.location, self.readonly, self.durability = location, readonly, durability
        self.schema = schema_of(location)
        self._closed = False
        self._holding = Holding(location, self.check_open)
        self._pool = Pool(lambda: connect(location))
        self.fork_locks = (self._holding.lock,)
        watch(self)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        self.check_open()
        with translated(self.location):
            session = self._reading()
            try:
                yield Transaction(session, _OPTIONS)
            finally:
                self._pool.give(session)

    def _reading(self) -> psycopg.Connection[Any]:
        """A connection in a transaction that reads, begun at once, so that one which has ended can be replaced."""
        session = self._pool.take()
        try:
            session.execute(_READ)
        except psycopg.Error as error:
            if not is_lost(error):
                self._pool.give(session)
                raise
            session.close()
            self._pool.clear()
            session = self._pool.take()
            session.execute(_READ)
        return session

    def check_direct(self) -> None:
        """Raise where sessions are not one's own, as by a pooler: neither search path nor locks would hold.

        Raises
        ------
        StoreError
        """
        sql = "SELECT pg_backend_pid(), current_setting('search_path')"
        with translated(self.location), self._session() as session:
            (pid, path), expected = session.execute(sql).fetchone() or (0, ""), session.info.backend_pid
        if pid != expected or path != f'"{self.schema}"':
            message = (
                f"cannot open the store {self.location}: a pooler of connections is in front of its server, and locks "
                "that tell who lives do not hold there; name the server itself"
            )
            raise StoreError(message)

    def query(self, work: Callable[[backend.Connection], T]) -> T:
        return self._asked(work, (_READ,))

    def glance(self, work: Callable[[backend.Connection], T]) -> T:
        return self._asked(work, ())

    def _asked(self, work: Callable[[backend.Connection], T], begin: Sequence[str]) -> T:
        """Run work that only reads; once more where that failed for what happened to the connection."""
        self.check_open()
        for again in (True, False):
            try:
                with translated(self.location), self._session() as session:
                    return work(Transaction(session, _OPTIONS, begin))
            except (Lost, Again):
                if not again:
                    raise
        raise AssertionError

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection of the pool; where it was lost, the others of the pool are not used again either."""
        session = self._pool.take()
        try:
            yield session
        except psycopg.Error as error:
            if is_lost(error):
                self._pool.clear()
            raise
        finally:
            self._pool.give(session)

    def write(self, work: Callable[[backend.Connection], T], *, durable: bool = False) -> T:  # noqa: ARG002
        self.check_writable()
        self.check_open()
        for left in reversed(range(_TRIES)):
            try:
                with translated(self.location):
                    return self._transacted(work)
            except (Lost, Again, Faster):
                if not left:
                    raise
        raise AssertionError

    def _transacted(self, work: Callable[[backend.Connection], T]) -> T:
        xid = None
        try:
            with self._session() as session:
                connection = Transaction(session, _OPTIONS, ("BEGIN",))
                named = connection.run("SELECT pg_current_xact_id()::text")
                done = work(connection)
                (xid,) = named.fetchone()  # before COMMIT is sent, so that the server can be asked what became of it
                connection.run("COMMIT")
                connection.send()
                return done
        except psycopg.Error as error:
            if xid is None or not is_lost(error):
                raise
        self._await_end(xid)
        # Run again even where the server says that it was committed: after a crash another may have its number.
        message = f"the store {self.location}: the connection ended at a COMMIT"
        raise Lost(message)

    def _await_end(self, xid: str) -> None:
        """Wait until a transaction is over whose COMMIT got no answer: what runs then sees what it has done.

        Raises
        ------
        UnansweredError
            The server did not say so for long.
        """
        begun = time.monotonic()
        while True:
            with suppress(Lost):
                if self._is_over(xid, end=time.monotonic() - begun > _END_SECONDS):
                    return
            if time.monotonic() - begun > ASK_SECONDS:
                message = (
                    f"the store {self.location}: the connection ended at a COMMIT, and for {ASK_SECONDS:g} s the "
                    "server could not be asked whether it was done; ask again later"
                )
                raise UnansweredError(message)
            time.sleep(_PAUSE_SECONDS)

    def _is_over(self, xid: str, *, end: bool) -> bool:
        """Whether a transaction is under way no more; its session is ended before where that is wanted."""

        def asked(connection: backend.Connection) -> bool:
            if end:
                connection.exec_driver_sql(_END, (xid,))
            found = connection.exec_driver_sql(_UNDER_WAY, (xid,)).scalar()
            return not found

        return self._asked(asked, ())

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
        self._pool.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def check_open(self) -> None:
        if self._closed:
            message = f"the store {self.location} is closed"
            raise ClosedError(message)

    def before_fork(self) -> None:
        """Nothing more than holding the lock of what is held."""

    def after_fork(self, *, child: bool) -> None:
        """Leave the parent's connections to it: a child makes its own."""
        if child:
            self._holding.forget()
            self._pool.forget()
