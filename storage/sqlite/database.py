"""One SQLite file as a `Database`: who reads it and who writes it when, and what is done with it as a whole."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from whiteboard.concurrency.at_fork import watch
from whiteboard.errors import StoreError
from whiteboard.records.packages import Page
from whiteboard.storage.sql import backend
from whiteboard.storage.sql.location import Location
from whiteboard.storage.sql.tables import VERSION_TABLE
from whiteboard.storage.sqlite import claim_locks, one_package
from whiteboard.storage.sqlite.connecting import WAIT_MS, WRITE_CACHE_KIB
from whiteboard.storage.sqlite.connection import Held
from whiteboard.storage.sqlite.failures import TRANSLATED, primary, translate, translated, translation
from whiteboard.storage.sqlite.file_identity import Place
from whiteboard.storage.sqlite.location import can_write, create_empty, file_bytes, probe, wal_bytes
from whiteboard.storage.sqlite.pool import Pool
from whiteboard.storage.sqlite.transaction import BEGIN, Transaction, begun
from whiteboard.storage.sqlite.wal import LogKeeper
from whiteboard.storage.sqlite.write_queue import WriteLock, in_turn

if TYPE_CHECKING:
    import sqlalchemy

_CUTS, _CUT_PAUSE_SECONDS = 10, 0.05
_VACUUM_PAGES = 2048

T = TypeVar("T")
C = TypeVar("C")


class Database(backend.Database):
    """One SQLite file (or memory): a held writer connection under a lock, and a pool of readers.

    Making one reads the file and writes nothing; `prepare` sets it up for use once its schema is known to be right.

    What has to be undone whatever happens (the turn among the writers, an open transaction) is undone by ``with``
    blocks over objects whose exit is in C, which no signal handler can come between: so `exclusive` and `write` take
    the work to do, and are no context managers, whose exit a KeyboardInterrupt may skip.

    Parameters
    ----------
    location : Location
    readonly : bool
        Take no write lock and write nothing; works on a file in a folder that cannot be written.
    durability : {"normal", "full"}
        Whether a durable write also survives a power loss.
    cache_kib : int
        SQLite's cache of the writer.

    Attributes
    ----------
    lock : WriteLock or None
        The lock file; None in memory, and where nothing is written.
    """

    fork_rank = 9
    typed = False

    def __init__(
        self,
        location: Location,
        *,
        readonly: bool = False,
        durability: str = "normal",
        cache_kib: int = WRITE_CACHE_KIB,
    ) -> None:
        path = location.path
        self.location = location
        self.readonly = readonly
        self.durability = durability
        self.lock = None if path is None or readonly else WriteLock(path)
        if path is not None and probe(path, readonly=readonly):
            create_empty(path)
        self._place = None if path is None else Place(path)
        immutable = readonly and path is not None and not can_write(path) and not wal_bytes(path)
        mode = "immutable=1" if immutable else "mode=ro" if readonly else "mode=rw"
        self._pool = Pool(location, self._place, self.lock, mode=mode, cache_kib=cache_kib)
        self._mutex = self._pool.mutex
        self.fork_locks = (self._mutex, self._pool.gate)
        self._log = None if path is None else LogKeeper(path, self._pool.idle, self.exclusive, WAIT_MS)
        watch(self)

    def revision(self) -> str | None:
        """The schema revision that the file names, None where it holds no table at all."""
        with self._mutex, translated(self.location):
            names = {row[0] for row in self._pool.held().execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not names:
                return None
            if VERSION_TABLE not in names:
                return ""
            row = self._pool.held().execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
            return "" if row is None else str(row[0])

    def made_of(self) -> list[tuple[Any, Any, Any, Any]]:
        """Kind, name, table and SQL of all that the schema is made of."""
        with self._mutex, translated(self.location):
            return self._pool.held().execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()

    def format(self) -> int:
        """The file's ``user_version``."""
        return int(self.pragma("user_version"))

    def pragma(self, name: str) -> Any:
        """The value of a pragma on the held connection."""
        with self._mutex, translated(self.location):
            return self._pool.held().execute(f"PRAGMA {name}").fetchone()[0]

    def prepare(self) -> None:
        """Set the connection's pragmas; on an empty file also those that are fixed at its creation."""
        if self.readonly:
            return
        with self._mutex, translated(self.location):
            self._pool.prepare()

    def exclusive(self, work: Callable[[], T]) -> T:
        """Run `work` while no other thread or process writes, and return what it returns. It may be called inside it.

        Raises
        ------
        StoreError
            Another process has written for a minute, or the lock file cannot be used.
        ClosedError
        """
        with self._mutex, translated(self.location):
            self.check_open()
            return in_turn(self.lock, work)

    def write(self, work: Callable[[backend.Connection], T], *, durable: bool = False) -> T:
        """Run `work` in one write transaction, and return what it returns.

        Parameters
        ----------
        durable : bool
            What is committed survives a power loss when the store's durability says so.

        Raises
        ------
        StoreError
            Nothing was written: for want of room or of a turn, or as the file is not the one any more that was opened.
        ReadOnlyError, ClosedError
        """
        return self._written(work, begun, durable=durable)

    def migrate(self, work: Callable[[sqlalchemy.Connection], T], *, durable: bool = False) -> T:
        """As `write`, by a connection of SQLAlchemy's: migrations need one."""
        from sqlalchemy import create_engine, event
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.pool import StaticPool

        engine = create_engine("sqlite://", creator=self._pool.held, poolclass=StaticPool, pool_reset_on_return=None)

        @event.listens_for(engine, "begin")
        def _begin(connection: sqlalchemy.Connection) -> None:
            connection.exec_driver_sql(BEGIN)

        try:
            return self._written(work, lambda _: engine.begin(), durable=durable)
        except DBAPIError as error:
            raise translate(self.location, error.orig) from error
        except AssertionError as error:
            # SQLAlchemy finds its transaction half ended where an interrupt came into it.
            if isinstance(error.__context__, KeyboardInterrupt | MemoryError):
                raise error.__context__ from None
            raise

    def _written(
        self, work: Callable[[C], T], begin: Callable[[Held], AbstractContextManager[C]], *, durable: bool
    ) -> T:
        self.check_writable()
        self.check_open()
        if self._place is not None:
            self._place.check_file()  # before the lock file is looked for
        return self.exclusive(lambda: self._transact(work, begin, durable=durable))

    def _transact(
        self, work: Callable[[C], T], begin: Callable[[Held], AbstractContextManager[C]], *, durable: bool
    ) -> T:
        try:
            return self._transacted(work, begin, durable=durable)
        except Exception as error:
            # Where a file cannot be opened for writing, be it for a moment, SQLite opens it for reading, and leaves it
            # so: the next write opens it again.
            if primary(getattr(error, "orig", error)) == sqlite3.SQLITE_READONLY and self.location.path is not None:
                self._pool.close_all()
            raise

    def _transacted(
        self, work: Callable[[C], T], begin: Callable[[Held], AbstractContextManager[C]], *, durable: bool
    ) -> T:
        raw = self._pool.idle()
        raw.cache()
        raw.synchronous("FULL" if durable and self.durability == "full" else "NORMAL")
        with raw, begin(raw) as connection:  # raw: whatever comes between, no transaction stays open
            done = work(connection)
            if self._place is not None:
                self._place.check()
        if self._place is not None:
            self._place.check()
        if self._log is not None:
            self._log.written()
        return done

    @contextmanager
    def read(self) -> Iterator[backend.Connection]:
        """One read transaction: everything read in it is of one moment. Keep it short."""
        if self.location.path is None:
            # The one connection of ":memory:" is shared, so a reader there waits for the writer.
            with self._mutex, translated(self.location):
                self.check_open()
                # so no transaction may be open here: in memory nothing is read inside `write`
                raw = self._pool.idle()
                with raw, begun(raw) as connection:
                    yield connection
            return
        reading = self._pool.register()
        try:
            if self._place is not None:
                self._place.check_file()
            with translated(self.location):
                raw = self._pool.reader()
                try:
                    raw.execute("BEGIN DEFERRED")
                    yield Transaction(raw)
                finally:
                    raw.close()  # its transaction too
        finally:
            reading.thread = 0

    def look(self, hashed: int, seen: Container[int] | None) -> tuple[int, Page] | bool:
        if self.location.path is None:
            with self.read() as connection:
                return one_package.look(connection.connection, hashed, seen)
        # What `read` does, without generators, and what a connection that came back was registered by: they would take
        # as long as what is read.
        pool = self._pool
        spare, raw, settled = pool.spare, None, False
        try:
            try:
                with pool.gate:
                    if spare and spare is pool.spare and pool.raw is not None and not pool.closed:
                        raw = spare.pop()
                        raw.thread = threading.get_ident()
                found = self._look_anew(hashed, seen) if raw is None else one_package.look(raw, hashed, seen)
            finally:
                if raw is not None:
                    if raw.looks:
                        raw.settle()
                    settled = True
        except TRANSLATED as error:
            raise translation(self.location, error) from error
        finally:
            if raw is not None:
                raw.thread = 0
                if settled:
                    pool.keep(spare, raw)
        # A package proves itself, by its key and digests; that there is none is no word of another file's.
        if found is True and self._place is not None:
            self._place.check_file()
        return found

    def _look_anew(self, hashed: int, seen: Container[int] | None) -> tuple[int, Page] | bool:
        """The same by a connection that is made for it."""
        reading = self._pool.register()
        try:
            raw = self._pool.reader()
            try:
                return one_package.look(raw, hashed, seen)
            finally:
                raw.close()
        finally:
            reading.thread = 0

    def live_bytes(self) -> int:
        used = int(self.pragma("page_count")) - int(self.pragma("freelist_count"))
        return used * int(self.pragma("page_size"))

    def give_back(self) -> None:
        """Return free pages to the file system, in steps, and cut the log to nothing."""
        free = int(self.pragma("freelist_count"))
        while free > 0:
            self.vacuum(_VACUUM_PAGES)
            left = int(self.pragma("freelist_count"))
            if left >= free:
                break
            free = left
        self.checkpoint()

    def structure(self) -> tuple[str, ...]:
        try:
            with self.read() as connection:
                said = list(connection.exec_driver_sql("PRAGMA quick_check(20)").scalars())
        except StoreError as error:
            return (str(error),)
        return tuple(line for line in said if line != "ok")

    @property
    def locks(self) -> backend.Locks | None:
        lock = self.lock
        return None if lock is None or not claim_locks.supported() else claim_locks.FileLocks(lock)

    def version(self) -> dict[str, str]:
        return {"sqlite": sqlite3.sqlite_version}

    def checkpoint(self) -> None:
        """Move the log into the file and cut it to nothing; where readers need it for long, a later write does so."""
        log = self._log
        if log is None:
            return
        for _ in range(_CUTS):
            if self.exclusive(log.cut):
                return
            time.sleep(_CUT_PAUSE_SECONDS)  # in which others write

    def alone(self, work: Callable[[], T]) -> T:
        """Run `work` while nobody else has the file open, and return what it returns.

        Raises
        ------
        StoreError
            Somebody has it open, in this process or another, be it idle and for reading; the message says which.
        """

        def run() -> T:
            self._pool.close_all()
            self._pool.alone = True
            try:
                return work()
            finally:  # within the turn: whoever is next may read at once
                self._pool.alone = False
                self._pool.close_all()

        return self.exclusive(run)

    def vacuum(self, pages: int) -> None:
        """Give up to `pages` free pages back to the file system."""
        # It frees one page each time it is stepped, and only executescript steps to the end.
        self.exclusive(lambda: self._pool.idle().executescript(f"PRAGMA incremental_vacuum({int(pages)})"))

    def backup(self, target: Path) -> None:
        """Copy the whole file, as it stands now, into another; the copy needs no log."""

        def copied() -> None:
            with closing(sqlite3.connect(target)) as copy:
                self._pool.idle().backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")

        self.exclusive(copied)

    def bytes_on_disk(self) -> int:
        """Bytes of the file and its log (of the pages, in memory)."""
        path = self.location.path
        if path is None:
            return int(self.pragma("page_count")) * int(self.pragma("page_size"))
        return file_bytes(path)

    def close(self) -> None:
        """Close every connection. Closing twice is allowed, and after an interrupt needed."""
        with self._mutex, self._pool.gate:
            self._pool.closed = True
            self._pool.release()
            if self._place is not None:
                self._place.closed()

    def before_fork(self) -> None:
        """Close every connection of a file.

        SQLite's record of the locks that a process holds is inherited by the child, which does not hold them: even a
        connection that the child opens for itself would then take no lock on the file. So none may be open across a
        fork; both sides open new ones when they next need them.
        """
        if self.location.path is not None and not self._pool.closed:
            self._pool.release()

    def after_fork(self, *, child: bool) -> None:
        """Let both sides go on."""
        if child:
            self._pool.forked()
            if self._log is not None:
                self._log.forked()

    @property
    def closed(self) -> bool:
        """Whether it was closed, and nothing is left to close."""
        return self._pool.closed and self._pool.raw is None

    def check_open(self) -> None:
        """Raise `ClosedError` after `close`."""
        if self._pool.closed:  # without a call where it is not
            self._pool.check_open()
