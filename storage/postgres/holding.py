"""One session beside the pool, whose advisory locks say that this open store lives: the server ends them with it.

Where the session ends before its store, what it held is free: others may take it over, and writers and claims notice.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final, TypeVar

import numpy as np
import psycopg

from whiteboard.storage.postgres.connecting import Numbers, connect, schema_of
from whiteboard.storage.postgres.failures import is_lost, translated
from whiteboard.storage.sql.backend import Connection, Hold, Locks
from whiteboard.storage.sql.location import Location

_MOST: Final = 2**40
_HELD: Final = (
    "SELECT number FROM (SELECT classid::bigint << 32 | objid::bigint AS number FROM pg_locks "
    "WHERE locktype = 'advisory' AND objsubid = 1 AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS held WHERE number = ANY(?)"
)

T = TypeVar("T")


class Holding(Locks):
    """The locks of one open store.

    Parameters
    ----------
    location : Location
    check_open : callable
        Raises where the store is closed.
    """

    def __init__(self, location: Location, check_open: Callable[[], None]) -> None:
        self._location, self._check_open = location, check_open
        self._alone = lock_of(f"claims of {schema_of(location)}")
        self.lock = threading.Lock()
        self._session: psycopg.Connection[Any] | None = None
        self._lasting: set[int] = set()
        self._has: set[int] = set()
        self._freed: deque[tuple[int, psycopg.Connection[Any]]] = deque()

    def last(self, number: int) -> None:
        """Hold a number until the store is closed; again, where it is asked for after the session was lost."""
        with self.lock, translated(self._location):
            self._lasting.add(number)
            self._asked(lambda session: session.execute("SELECT 1"))

    def hold(self) -> SessionHold:
        with self.lock, translated(self._location):
            return self._asked(self._held_by)

    def held(self, connection: Connection, numbers: Iterable[int]) -> set[int]:
        asked = Numbers(np.array([number for number in numbers if 0 <= number < _MOST], np.int64))
        return set(connection.exec_driver_sql(_HELD, (asked,)).scalars()) if len(asked.values) else set()

    def alone(self, connection: Connection) -> None:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(?)", (self._alone,))

    def free(self, number: int, session: psycopg.Connection[Any], *, later: bool) -> None:
        """Let a number go that a session holds. Waits for no lock, as it may be called from anywhere: by dropping."""
        self._freed.append((number, session))
        while not later and self._freed and self.lock.acquire(blocking=False):
            try:
                self._let_go(self._session)
            except psycopg.Error:
                self._drop()
            finally:
                self.lock.release()

    def forget(self) -> None:
        """Leave the session to the parent of a fork, and all that it holds."""
        self._session = None
        self._lasting.clear()
        self._freed.clear()

    def close(self) -> None:
        """End the session."""
        with self.lock:
            self._drop()

    def _drop(self) -> None:
        """End the session, and with it all that it holds; the lock is held."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _asked(self, ask: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Ask the session; a new one where it has ended meanwhile, which holds anew what lasts."""
        self._check_open()
        if self._session is not None:
            try:
                self._let_go(self._session)
                self._lock_lasting(self._session)
                return ask(self._session)
            except psycopg.Error as error:
                if not is_lost(error):
                    raise
                self._drop()
        self._session = connect(self._location)
        self._has.clear()
        self._lock_lasting(self._session)
        return ask(self._session)

    def _held_by(self, session: psycopg.Connection[Any]) -> SessionHold:
        while True:
            number = secrets.randbelow(_MOST)
            hold = SessionHold(self, number, session)  # first, so that an interrupt leaves nothing that nobody frees
            found = session.execute("SELECT pg_try_advisory_lock(%s)", (number,)).fetchone()
            if found and found[0]:
                return hold

    def _lock_lasting(self, session: psycopg.Connection[Any]) -> None:
        for number in self._lasting - self._has:
            session.execute("SELECT pg_advisory_lock(%s)", (number,))
            self._has.add(number)

    def _let_go(self, session: psycopg.Connection[Any] | None) -> None:
        """Unlock what was freed; the lock is held."""
        while self._freed:
            number, of = self._freed.popleft()
            if session is not None and of is session:
                session.execute("SELECT pg_advisory_unlock(%s)", (number,))


class SessionHold(Hold):
    """An advisory lock of the session."""

    def __init__(self, holding: Holding, number: int, session: psycopg.Connection[Any]) -> None:
        self._holding, self.number, self._session, self._pid = holding, number, session, os.getpid()
        self._freed = False

    @property
    def lives(self) -> bool:
        return not self._freed and self._pid == os.getpid()

    def free(self, *, later: bool = False) -> None:
        if self.lives:
            self._freed = True
            self._holding.free(self.number, self._session, later=later)

    def __del__(self) -> None:
        with suppress(AttributeError):  # one that was interrupted in the making
            self.free()


def lock_of(name: str) -> int:
    """The number of the advisory lock of some name: 64 bits, which no claim's is."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
