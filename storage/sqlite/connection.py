"""A connection to SQLite that goes on, whatever an interrupt has left of it."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable
from typing import Any, Final

from whiteboard.storage.sqlite.bounds import Steps, bound

VERSION: Final = "PRAGMA data_version"
"""Another number after each change of the file by another connection, within a transaction that has read something."""

_MANY_CURSORS: Final = 64


class Held(sqlite3.Connection):
    """A connection that knows what is under way on it, and that SQLAlchemy does not close.

    SQLAlchemy closes a connection that an interrupt came through, though nothing is wrong with it; and the traceback
    of the interrupt keeps alive what was under way, for as long as somebody keeps it.

    Attributes
    ----------
    released : callable
        Called with the connection when SQLAlchemy lets go of it.
    is_shut : bool
        Whether it was closed.
    steps : Steps
        Bounds what is run on one cursor.
    seen : tuple of (version, object), or None
        What was read here, and at which version of the file: see `version`.
    gathered : object
        What was read here of the table of that name: see `gathered_index`.
    filters : dict
        By part, what was read here of the table ``known``, and how much was in it: see `known_hashes`.
    blobs : int
        How many were opened: the driver keeps 100 bytes of each until the connection is closed.
    cache_kib : int
        The most that SQLite's cache may have; 0 is its own default.
    looks : bool
        Whether something is under way on the cursors of a look.
    thread : int
        In which it looks for one package; 0 in none.
    """

    def __init__(self, *given: Any, steps: Steps, **options: Any) -> None:
        super().__init__(*given, **options)
        self.steps = steps
        bound(self, steps)
        self._cursors: list[weakref.ref[sqlite3.Cursor]] = []
        self.released: Callable[[Held], None] = _stays
        self.is_shut = False
        self.seen: tuple[tuple[int, int], Any] | None = None
        self.gathered: Any = None
        self.filters: dict[int, tuple[list[int], bytes]] = {}
        self.blobs = self.thread = 0
        self.cache_kib = self._cache_kib = 0
        self._synchronous = ""
        self.looks = False
        self._looking: tuple[Any, Any] | None = None

    @property
    def version(self) -> tuple[int, int]:
        """Another one after each change of the file, within a transaction that has read something."""
        return self.version_by(self.cursor())

    def version_by(self, cursor: Any) -> tuple[int, int]:
        """The same, by a cursor of its own."""
        (others,) = cursor.execute(VERSION).fetchone()
        return others, self.total_changes

    def cursor(self, *given: Any, **options: Any) -> Any:
        """Return a cursor, and know of it for as long as it lives."""
        self.steps.begin()
        cursor = super().cursor(*given, **options)
        if len(self._cursors) >= _MANY_CURSORS:
            self._cursors = [each for each in self._cursors if each() is not None]
        self._cursors.append(weakref.ref(cursor))  # without a callback, which an interrupt could come into
        return cursor

    def blobopen(self, table: str, column: str, row: int, /, *, readonly: bool = False, name: str = "main") -> Any:
        """Open a blob, and count it."""
        self.blobs += 1
        return super().blobopen(table, column, row, readonly=readonly, name=name)

    def cache(self, kib: int | None = None) -> None:
        """Let SQLite's cache have so much, or all that it may have."""
        kib = self.cache_kib if kib is None else min(kib, self.cache_kib)
        if kib != self._cache_kib:
            self._cache_kib = 0  # until it is known again
            self.execute(f"PRAGMA cache_size=-{kib}")
            self._cache_kib = kib

    def synchronous(self, level: str) -> None:
        """Let what is committed be as safe as that: ``NORMAL`` or ``FULL``."""
        if level != self._synchronous:
            self._synchronous = ""  # until it is known again
            self.execute(f"PRAGMA synchronous={level}")
            self._synchronous = level

    def looking(self) -> tuple[Any, Any]:
        """Return two cursors for a look, which are kept for the next one where `looks` tells that it is at its end."""
        self.steps.looks = 0
        if self.looks:
            self._end_look()
        if self._looking is None:
            self._looking = super().cursor(), super().cursor()
        self.looks = True
        return self._looking

    def settle(self) -> None:
        """End the statements and the transaction that are under way."""
        if self.is_shut:
            return
        if self.looks:
            self._end_look()
        for each in self._cursors:
            if (cursor := each()) is not None:
                cursor.close()
        self._cursors = []
        if self.in_transaction:
            self.rollback()

    def _end_look(self) -> None:
        for cursor in self._looking or ():
            cursor.close()
        self._looking = None
        self.looks = False

    def close(self) -> None:
        """Go back to whoever lends it."""
        self.released(self)

    def shut(self) -> None:
        """Close it."""
        self.is_shut = True
        self._looking = None
        super().close()

    def create_function(self, *given: Any, **options: Any) -> None:
        """Make none: those that SQLAlchemy makes at each connect are used by nobody here."""


def _stays(_: Held) -> None:
    pass
