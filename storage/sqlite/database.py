"""Connections to one SQLite file: how they are made, who may write when, and what happens at fork and close."""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from whiteboard.concurrency.at_fork import watch
from whiteboard.errors import ClosedError, CorruptPackageError, ReadOnlyError, StoreError
from whiteboard.records.packages import Page
from whiteboard.storage.sql import backend
from whiteboard.storage.sql.location import Location
from whiteboard.storage.sql.results import MissingRowError
from whiteboard.storage.sql.tables import APPLICATION_ID, VERSION_TABLE
from whiteboard.storage.sqlite import claim_locks, rows
from whiteboard.storage.sqlite.bounds import VALUE_BYTES, Steps, let_write, was_endless
from whiteboard.storage.sqlite.connection import Held
from whiteboard.storage.sqlite.file_identity import Place
from whiteboard.storage.sqlite.holders import holders
from whiteboard.storage.sqlite.location import can_write, create_empty, file_bytes, probe, wal_bytes
from whiteboard.storage.sqlite.transaction import Transaction
from whiteboard.storage.sqlite.wal import LogKeeper
from whiteboard.storage.sqlite.write_queue import WriteLock

if TYPE_CHECKING:
    import sqlalchemy

WAIT_SECONDS = 60.0
"""How long a write waits for another process before it is an error."""
_WAIT_MS = int(WAIT_SECONDS * 1000)

# Room for the index of a million packages, of which every page is changed when what is recent gets its rows: SQLite's
# own 2 MB overflow at that.
_WRITE_CACHE_KIB, _READ_CACHE_KIB = 32 * 1024, 2 * 1024

MOVING_CACHE_KIB = 4 * 1024
"""The writer's cache of who moves packages: many times more than any cache holds, and in bounded memory."""

_JOURNAL_BYTES = 64 * 2**20
_POLL_SECONDS = 0.001
_CUTS, _CUT_PAUSE_SECONDS = 10, 0.05
_SPARE = 4
_MOST_BLOBS = 10_000  # of which the driver keeps a megabyte
_MANY_READ = 64
_VACUUM_PAGES = 2048
_ALONE_MS = 500  # for somebody who closes just now


T = TypeVar("T")
C = TypeVar("C")

_BEGIN: Final = "BEGIN IMMEDIATE"


class _Reading:
    """One reader, as long as it lives: an interrupt that keeps it from saying that it is done leaves nothing behind.

    Attributes
    ----------
    thread : int
        Whose it is, until it is done; then 0.
    """

    __slots__ = ("__weakref__", "thread")
    thread: int


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
        cache_kib: int = _WRITE_CACHE_KIB,
    ) -> None:
        path = location.path
        self._cache_kib = cache_kib
        self._alone = False
        self.location = location
        self.readonly = readonly
        self.durability = durability
        self._mutex = threading.RLock()
        self._gate = threading.RLock()
        self.fork_locks = (self._mutex, self._gate)
        self._reading: list[weakref.ref[_Reading]] = []
        self._readers: list[weakref.ref[Held]] = []
        self._closed = False
        self._prepared = False
        self._raw: Held | None = None
        self.lock = None if path is None or readonly else WriteLock(path)
        self._log = None if path is None else LogKeeper(path, self._idle, self.exclusive, _WAIT_MS)
        if path is not None and probe(path, readonly=readonly):
            create_empty(path)
        self._place = None if path is None else Place(path)
        self._immutable = readonly and path is not None and not can_write(path) and not wal_bytes(path)
        self._spare: list[Held] = []
        self._made: weakref.WeakSet[Held] = weakref.WeakSet()
        watch(self)

    def _held(self) -> Held:
        if self._raw is None or self._raw.is_shut:
            self._synchronous = ""
            raw = self._connect()
            if self._prepared:
                self._set_up(raw)
            self._raw = raw
        return self._raw

    def _connect(self) -> Held:
        path = self.location.path
        if path is None:
            name = ":memory:"
        else:
            mode = "immutable=1" if self._immutable else "mode=ro" if self.readonly else "mode=rw"
            name = f"file:{quote(str(path))}?{mode}"
        raw = Held(
            name,
            steps=Steps(path),
            uri=path is not None,
            isolation_level=None,
            check_same_thread=False,
            timeout=WAIT_SECONDS,
        )
        self._made.add(raw)
        # A damaged row may hold text that is none; it has to reach the gate, which refuses it.
        raw.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        raw.execute("PRAGMA trusted_schema=OFF")
        raw.execute("PRAGMA cell_size_check=ON")
        if self._alone:
            self._exclude(raw)
        raw.execute(f"PRAGMA busy_timeout={_WAIT_MS}")
        return raw

    def _exclude(self, raw: Held) -> None:
        """Take the file for this connection alone: whoever has a store open holds a shared lock on it all the time."""
        raw.execute(f"PRAGMA busy_timeout={_ALONE_MS}")
        raw.execute("PRAGMA locking_mode=EXCLUSIVE")
        try:
            raw.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            raw.shut()
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            message = f"the store {self.location} is open {holders(self.location.path)}; close it there first"
            raise StoreError(message) from error

    def _reader(self) -> Held:
        """A connection that reads, from those that came back or a new one."""
        # A pool of SQLAlchemy's would do, but for its locks: an interrupt leaves them held.
        try:
            return self._spare.pop()
        except IndexError:
            pass
        if self._place is not None:
            self._place.check_file()
        raw = self._connect()
        raw.execute("PRAGMA query_only=ON")
        raw.cache_kib = _READ_CACHE_KIB
        raw.cache()
        raw.released = partial(self._give_back, self._spare)
        self._readers = [*(each for each in self._readers if each() is not None), weakref.ref(raw)]
        return raw

    def _give_back(self, spare: list[Held], raw: Held) -> None:
        """Keep a connection for the next reader, but for one from before a fork or a close, or that has read much."""
        raw.settle()
        self._keep(spare, raw)

    def _keep(self, spare: list[Held], raw: Held) -> None:
        if spare is self._spare and not self._closed and len(spare) < _SPARE and raw.blobs < _MOST_BLOBS:
            raw.cache()  # all of it, for the next one
            spare.append(raw)
        else:
            raw.shut()

    def revision(self) -> str | None:
        """The schema revision that the file names, None where it holds no table at all."""
        with self._mutex, translated(self.location):
            names = {row[0] for row in self._held().execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not names:
                return None
            if VERSION_TABLE not in names:
                return ""
            row = self._held().execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
            return "" if row is None else str(row[0])

    def made_of(self) -> list[tuple[Any, Any, Any, Any]]:
        """Kind, name, table and SQL of all that the schema is made of."""
        with self._mutex, translated(self.location):
            return self._held().execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()

    def format(self) -> int:
        """The file's ``user_version``."""
        return int(self.pragma("user_version"))

    def pragma(self, name: str) -> Any:
        """The value of a pragma on the held connection."""
        with self._mutex, translated(self.location):
            return self._held().execute(f"PRAGMA {name}").fetchone()[0]

    def prepare(self) -> None:
        """Set the connection's pragmas; on an empty file also those that are fixed at its creation."""
        if self.readonly:
            return
        with self._mutex, translated(self.location):
            self._set_up(self._held())
            self._prepared = True

    def _set_up(self, raw: Held) -> None:
        run = raw.execute
        let_write(raw, raw.steps)
        run("PRAGMA page_size=8192")
        if not run("PRAGMA page_count").fetchone()[0]:
            # One transaction, and before WAL: from its first byte on, the main file says whose it is.
            # (A deferred one: BEGIN IMMEDIATE would make the first page before auto_vacuum is set.)
            with raw:
                run("BEGIN")
                run("PRAGMA auto_vacuum=INCREMENTAL")
                run(f"PRAGMA application_id={APPLICATION_ID}")
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=NORMAL")
        raw.cache_kib = self._cache_kib
        raw.cache()
        run("PRAGMA wal_autocheckpoint=0")
        run(f"PRAGMA journal_size_limit={_JOURNAL_BYTES}")
        run("PRAGMA secure_delete=OFF")
        run("PRAGMA foreign_keys=ON")

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
            return self._in_turn(work)

    def _in_turn(self, work: Callable[[], T]) -> T:
        lock = self.lock
        if lock is None or lock.held:
            return work()
        while True:
            with lock.opened() as file:
                if lock.acquire(file, WAIT_SECONDS):
                    return work()

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
        return self._written(work, _begun, durable=durable)

    def migrate(self, work: Callable[[sqlalchemy.Connection], T], *, durable: bool = False) -> T:
        """As `write`, by a connection of SQLAlchemy's: migrations need one."""
        from sqlalchemy import create_engine, event
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.pool import StaticPool

        engine = create_engine("sqlite://", creator=self._held, poolclass=StaticPool, pool_reset_on_return=None)

        @event.listens_for(engine, "begin")
        def _begin(connection: sqlalchemy.Connection) -> None:
            connection.exec_driver_sql(_BEGIN)

        try:
            return self._written(work, lambda _: engine.begin(), durable=durable)
        except DBAPIError as error:
            raise _translate(self.location, error.orig) from error
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
            if _primary(getattr(error, "orig", error)) == sqlite3.SQLITE_READONLY and self.location.path is not None:
                self._close_all()
            raise

    def _transacted(
        self, work: Callable[[C], T], begin: Callable[[Held], AbstractContextManager[C]], *, durable: bool
    ) -> T:
        raw = self._idle()
        raw.cache()
        self._set_synchronous(raw, "FULL" if durable and self.durability == "full" else "NORMAL")
        with raw, begin(raw) as connection:  # raw: whatever comes between, no transaction stays open
            done = work(connection)
            if self._place is not None:
                self._place.check()
        if self._place is not None:
            self._place.check()
        if self._log is not None:
            self._log.written()
        return done

    def _idle(self) -> Held:
        """The writer's connection, with nothing under way; for whoever has the mutex."""
        raw = self._held()
        raw.settle()
        return raw

    @contextmanager
    def read(self) -> Iterator[backend.Connection]:
        """One read transaction: everything read in it is of one moment. Keep it short."""
        if self.location.path is None:
            # The one connection of ":memory:" is shared, so a reader there waits for the writer.
            with self._mutex, translated(self.location):
                self.check_open()
                # so no transaction may be open here: in memory nothing is read inside `write`
                raw = self._idle()
                with raw, _begun(raw) as connection:
                    yield connection
            return
        reading = self._register()
        try:
            if self._place is not None:
                self._place.check_file()
            with translated(self.location):
                raw = self._reader()
                try:
                    raw.execute("BEGIN DEFERRED")
                    yield Transaction(raw)
                finally:
                    raw.close()  # its transaction too
        finally:
            reading.thread = 0

    def _register(self) -> _Reading:
        """Say that a file is read, until its `thread` is 0: whoever closes its connections waits."""
        if self._raw is None:
            # A held connection keeps the log open, so that a reader's close is never the last one.
            with self._mutex:
                self.check_open()
                self._held()
        reading = _Reading()
        reading.thread = threading.get_ident()
        try:
            with self._gate:
                self.check_open()
                if len(self._reading) >= _MANY_READ:
                    self._reading = [each for each in self._reading if (other := each()) is not None and other.thread]
                self._reading.append(weakref.ref(reading))
        except BaseException:  # its traceback may keep the reader alive
            reading.thread = 0
            raise
        return reading

    def _reads(self) -> list[int]:
        """The threads that read."""
        found = *(each() for each in [*self._reading]), *(each() for each in [*self._readers])
        return [thread for each in found if each is not None and (thread := each.thread)]

    def look(self, hashed: int, seen: Container[int] | None) -> tuple[int, Page] | bool:
        if self.location.path is None:
            with self.read() as connection:
                return rows.look(connection.connection, hashed, seen)
        # What `read` does, without generators, and what a connection that came back was registered by: they would take
        # as long as what is read.
        spare, raw, settled = self._spare, None, False
        try:
            try:
                with self._gate:
                    if spare and spare is self._spare and self._raw is not None and not self._closed:
                        raw = spare.pop()
                        raw.thread = threading.get_ident()
                found = self._look_anew(hashed, seen) if raw is None else rows.look(raw, hashed, seen)
            finally:
                if raw is not None:
                    if raw.looks:
                        raw.settle()
                    settled = True
        except _TRANSLATED as error:
            raise _translation(self.location, error) from error
        finally:
            if raw is not None:
                raw.thread = 0
                if settled:
                    self._keep(spare, raw)
        # A package proves itself, by its key and digests; that there is none is no word of another file's.
        if found is True and self._place is not None:
            self._place.check_file()
        return found

    def _look_anew(self, hashed: int, seen: Container[int] | None) -> tuple[int, Page] | bool:
        """The same by a connection that is made for it."""
        reading = self._register()
        try:
            raw = self._reader()
            try:
                return rows.look(raw, hashed, seen)
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
            self._close_all()
            self._alone = True
            try:
                return work()
            finally:  # within the turn: whoever is next may read at once
                self._alone = False
                self._close_all()

        return self.exclusive(run)

    def vacuum(self, pages: int) -> None:
        """Give up to `pages` free pages back to the file system."""
        # It frees one page each time it is stepped, and only executescript steps to the end.
        self.exclusive(lambda: self._idle().executescript(f"PRAGMA incremental_vacuum({int(pages)})"))

    def backup(self, target: Path) -> None:
        """Copy the whole file, as it stands now, into another; the copy needs no log."""

        def copied() -> None:
            with closing(sqlite3.connect(target)) as copy:
                self._idle().backup(copy)
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
        with self._mutex, self._gate:
            self._closed = True
            self._release_handles()
            if self._place is not None:
                self._place.closed()

    def _release_handles(self) -> None:
        """Close all connections, once those who read are done; for whoever has the mutex and the gate."""
        me, until = threading.get_ident(), time.monotonic() + WAIT_SECONDS
        # What this thread left reading when it was interrupted is not waited for: it cannot go on.
        while any(thread != me for thread in self._reads()) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        if not self._reads():  # then what an interrupt kept from coming back is nobody's
            self._spare = [raw for raw in list(self._made) if raw is not self._raw and not raw.is_shut]
        if self._raw is None and not self._spare:
            return
        # The last close of a WAL file is a checkpoint, so it queues like any other write, but for a file that is gone.
        if self._place is not None and self._place.is_gone():
            self._close_all()
        else:
            with translated(self.location):
                try:
                    self._in_turn(self._close_all)
                except StoreError:  # there is no turn to be had, as on a full disk: SQLite's own locks will do
                    self._close_all()

    def _close_all(self) -> None:
        spare, self._spare = self._spare, []
        for raw in spare:
            raw.shut()
        if self._raw is not None:
            self._raw.settle()
            self._raw.shut()
            self._raw = None
        if self._place is not None:
            self._place.reopened()

    def before_fork(self) -> None:
        """Close every connection of a file.

        SQLite's record of the locks that a process holds is inherited by the child, which does not hold them: even a
        connection that the child opens for itself would then take no lock on the file. So none may be open across a
        fork; both sides open new ones when they next need them.
        """
        if self.location.path is not None and not self._closed:
            self._release_handles()

    def after_fork(self, *, child: bool) -> None:
        """Let both sides go on."""
        if child:
            self._reading = []
            self._readers = []
            if self._log is not None:
                self._log.forked()

    def _set_synchronous(self, raw: sqlite3.Connection, level: str) -> None:
        if level != self._synchronous:
            self._synchronous = ""  # until it is known again
            raw.execute(f"PRAGMA synchronous={level}")
            self._synchronous = level

    @property
    def closed(self) -> bool:
        """Whether it was closed, and nothing is left to close."""
        return self._closed and self._raw is None

    def check_open(self) -> None:
        """Raise `ClosedError` after `close`."""
        if self._closed:
            message = f"the store {self.location} is closed"
            raise ClosedError(message)


def _begun(raw: Held) -> AbstractContextManager[backend.Connection]:
    """A write transaction, which the driver's connection ends."""
    raw.execute(_BEGIN)
    return nullcontext(Transaction(raw))


_TRANSLATED: Final = (MissingRowError, sqlite3.Error, UnicodeDecodeError, UnicodeEncodeError)


@contextmanager
def translated(location: Location) -> Iterator[None]:
    """Raise what SQLite raises as one-line errors of the store."""
    try:
        yield
    except _TRANSLATED as error:
        raise _translation(location, error) from error


def _translation(location: Location, error: Exception) -> StoreError | KeyboardInterrupt:
    match error:
        case MissingRowError():
            why = "a row that it leads to is not there"
        case UnicodeDecodeError():  # of SQLite's message, which quotes a damaged schema
            why = "its schema cannot be read; restore it from a copy"
        case UnicodeEncodeError():  # a text that was read from a damaged row is asked for
            return CorruptPackageError(f"the store {location}: {error.object!r} is no text in UTF-8")
        case _:
            return _translate(location, error)
    return CorruptPackageError(f"the store {location} is damaged: {why}")


_DAMAGE: Final = {
    sqlite3.SQLITE_CORRUPT: "",
    sqlite3.SQLITE_INTERRUPT: "to read it takes more steps than a file of its size can need",
    sqlite3.SQLITE_TOOBIG: f"it holds a value of more than {VALUE_BYTES} bytes where none is so large",
}


def _primary(error: BaseException | None) -> int:
    """The primary result code: the low byte, whatever the extended one says."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _translate(location: Location, error: BaseException | None) -> StoreError | KeyboardInterrupt:
    code = _primary(error)
    if code == sqlite3.SQLITE_INTERRUPT and not was_endless():
        return KeyboardInterrupt()
    gone = code == sqlite3.SQLITE_CANTOPEN and location.path is not None and not location.path.exists()
    if gone or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED:
        return StoreError(f"the store {location} was moved or removed while it was open; open it again")
    if code == sqlite3.SQLITE_READONLY:
        return ReadOnlyError(f"the store {location} cannot be written; open it with readonly=True ({error})")
    if code in _DAMAGE:
        why = _DAMAGE[code] or error
        # SQLite calls it damage, too, when a disk fails to read.
        return CorruptPackageError(
            f"the store {location} is damaged, or its disk fails; look at that, then restore the store from a copy, "
            f"or move it away ({why})"
        )
    why = {
        sqlite3.SQLITE_FULL: "there is no room left on its disk; make room and try again",
        sqlite3.SQLITE_IOERR: "its disk refused to read or write; look at its space, quota and health",
        sqlite3.SQLITE_BUSY: f"another process has kept it locked for {WAIT_SECONDS:.0f} s",
        sqlite3.SQLITE_NOTADB: "it is not a SQLite file, or is damaged; restore it from a copy",
        sqlite3.SQLITE_CANTOPEN: "it cannot be opened; look at the permissions of the file and its folder",
    }.get(code, "SQLite refused")
    return StoreError(f"the store {location}: {why} ({error})")
