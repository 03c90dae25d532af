"""The connections of one open store: the writer's, which is held, and readers', which come back; how all are closed.

None is closed while somebody reads: whoever does says so, and whoever closes waits. At a fork, too, none may be open.
"""

from __future__ import annotations

import threading
import time
import weakref
from functools import partial

from whiteboard.errors import ClosedError, StoreError
from whiteboard.storage.sql.location import Location
from whiteboard.storage.sqlite import write_queue
from whiteboard.storage.sqlite.connecting import connect, to_read, to_write
from whiteboard.storage.sqlite.connection import Held
from whiteboard.storage.sqlite.failures import translated
from whiteboard.storage.sqlite.file_identity import Place
from whiteboard.storage.sqlite.write_queue import WriteLock, in_turn

_POLL_SECONDS = 0.001
_SPARE = 4
_MOST_BLOBS = 10_000  # of which the driver keeps a megabyte
_MANY_READ = 64


class Reading:
    """One reader, as long as it lives: an interrupt that keeps it from saying that it is done leaves nothing behind.

    Attributes
    ----------
    thread : int
        Whose it is, until it is done; then 0.
    """

    __slots__ = ("__weakref__", "thread")
    thread: int


class Pool:
    """A writer's connection, held, and readers' that wait for the next one.

    Parameters
    ----------
    location : Location
    place : Place or None
        The file; None in memory.
    lock : WriteLock or None
        In whose turn the last one closes.
    mode : str
        What SQLite's URI says of the file beside its name.
    cache_kib : int
        SQLite's cache of the writer.

    Attributes
    ----------
    mutex, gate : RLock
        Who uses the writer's connection, and who begins to read or closes. Taken in this order.
    raw : Held or None
        The writer's connection.
    spare : list of Held
        Readers' that came back; another list after a close or a fork.
    closed : bool
        Whether none is made any more.
    alone : bool
        Whether the next that is made has the file for itself.
    """

    def __init__(
        self, location: Location, place: Place | None, lock: WriteLock | None, *, mode: str, cache_kib: int
    ) -> None:
        self.mutex = threading.RLock()
        self.gate = threading.RLock()
        self.raw: Held | None = None
        self.spare: list[Held] = []
        self.closed = self.alone = False
        self._location, self._place, self._lock = location, place, lock
        self._mode, self._cache_kib = mode, cache_kib
        self._prepared = False
        self._reading: list[weakref.ref[Reading]] = []
        self._readers: list[weakref.ref[Held]] = []
        self._made: weakref.WeakSet[Held] = weakref.WeakSet()

    # -- the writer's, for whoever has the mutex

    def held(self) -> Held:
        """The writer's connection."""
        if self.raw is None or self.raw.is_shut:
            raw = self._connect()
            if self._prepared:
                to_write(raw, self._cache_kib)
            self.raw = raw
        return self.raw

    def prepare(self) -> None:
        """Let the writer's connection write, and each that takes its place."""
        to_write(self.held(), self._cache_kib)
        self._prepared = True

    def idle(self) -> Held:
        """The writer's connection, with nothing under way."""
        raw = self.held()
        raw.settle()
        return raw

    def _connect(self) -> Held:
        return connect(self._location, self._mode, self._made, alone=self.alone)

    # -- readers'

    def register(self) -> Reading:
        """Say that a file is read, until its `thread` is 0: whoever closes its connections waits."""
        if self.raw is None:
            # A held connection keeps the log open, so that a reader's close is never the last one.
            with self.mutex:
                self.check_open()
                self.held()
        reading = Reading()
        reading.thread = threading.get_ident()
        try:
            with self.gate:
                self.check_open()
                if len(self._reading) >= _MANY_READ:
                    self._reading = [each for each in self._reading if (other := each()) is not None and other.thread]
                self._reading.append(weakref.ref(reading))
        except BaseException:  # its traceback may keep the reader alive
            reading.thread = 0
            raise
        return reading

    def reader(self) -> Held:
        """A connection that reads, from those that came back or a new one."""
        # A pool of SQLAlchemy's would do, but for its locks: an interrupt leaves them held.
        try:
            return self.spare.pop()
        except IndexError:
            pass
        if self._place is not None:
            self._place.check_file()
        raw = self._connect()
        to_read(raw)
        raw.released = partial(self._give_back, self.spare)
        self._readers = [*(each for each in self._readers if each() is not None), weakref.ref(raw)]
        return raw

    def _give_back(self, spare: list[Held], raw: Held) -> None:
        raw.settle()
        self.keep(spare, raw)

    def keep(self, spare: list[Held], raw: Held) -> None:
        """Keep a connection for the next reader, but for one from before a fork or a close, or that has read much."""
        if spare is self.spare and not self.closed and len(spare) < _SPARE and raw.blobs < _MOST_BLOBS:
            raw.cache()  # all of it, for the next one
            spare.append(raw)
        else:
            raw.shut()

    def _reads(self) -> list[int]:
        """The threads that read."""
        found = *(each() for each in [*self._reading]), *(each() for each in [*self._readers])
        return [thread for each in found if each is not None and (thread := each.thread)]

    # -- the end

    def check_open(self) -> None:
        """Raise `ClosedError` after the close."""
        if self.closed:
            message = f"the store {self._location} is closed"
            raise ClosedError(message)

    def release(self) -> None:
        """Close all connections, once those who read are done; for whoever has the mutex and the gate."""
        me, until = threading.get_ident(), time.monotonic() + write_queue.WAIT_SECONDS
        # What this thread left reading when it was interrupted is not waited for: it cannot go on.
        while any(thread != me for thread in self._reads()) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        if not self._reads():  # then what an interrupt kept from coming back is nobody's
            self.spare = [raw for raw in list(self._made) if raw is not self.raw and not raw.is_shut]
        if self.raw is None and not self.spare:
            return
        # The last close of a WAL file is a checkpoint, so it queues like any other write, but for a file that is gone.
        if self._place is not None and self._place.is_gone():
            self.close_all()
        else:
            with translated(self._location):
                try:
                    in_turn(self._lock, self.close_all)
                except StoreError:  # there is no turn to be had, as on a full disk: SQLite's own locks will do
                    self.close_all()

    def close_all(self) -> None:
        """Close the writer's connection, and those that wait, at once; for whoever has the mutex and the turn."""
        spare, self.spare = self.spare, []
        for raw in spare:
            raw.shut()
        if self.raw is not None:
            self.raw.settle()
            self.raw.shut()
            self.raw = None
        if self._place is not None:
            self._place.reopened()

    def forked(self) -> None:
        """Hear that this is the child of a fork, in which nobody reads."""
        self._reading = []
        self._readers = []
