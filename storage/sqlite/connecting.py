"""How a connection to a file is made, and what it is set to."""

from __future__ import annotations

import sqlite3
from collections.abc import MutableSet
from functools import partial
from typing import Final
from urllib.parse import quote

from whiteboard.errors import StoreError
from whiteboard.storage.sql.location import Location
from whiteboard.storage.sql.tables import APPLICATION_ID
from whiteboard.storage.sqlite.bounds import Steps, let_write
from whiteboard.storage.sqlite.connection import Held
from whiteboard.storage.sqlite.holders import holders
from whiteboard.storage.sqlite.write_queue import WAIT_SECONDS

WAIT_MS: Final = int(WAIT_SECONDS * 1000)
"""A connection's ``busy_timeout``."""

# Room for the index of a million packages, of which every page is changed when what is recent gets its rows: SQLite's
# own 2 MB overflow at that.
WRITE_CACHE_KIB: Final = 32 * 1024
"""The writer's cache."""

MOVING_CACHE_KIB: Final = 4 * 1024
"""The same of who moves packages: many times more than any cache holds, and in bounded memory."""

_ALONE_MS = 500  # for somebody who closes just now
_READ_CACHE_KIB = 2 * 1024
_JOURNAL_BYTES = 64 * 2**20


def connect(location: Location, mode: str, made: MutableSet[Held], *, alone: bool) -> Held:
    """Connect to a file, or to memory.

    Parameters
    ----------
    mode : str
        What SQLite's URI says of a file beside its name.
    made : set
        Takes the connection before anything is done with it: an interrupt leaves none that nobody knows.
    alone : bool
        Take the file for this connection alone.

    Raises
    ------
    StoreError
        Somebody else has it open.
    """
    path = location.path
    name = ":memory:" if path is None else f"file:{quote(str(path))}?{mode}"
    raw = Held(
        name,
        steps=Steps(path),
        uri=path is not None,
        isolation_level=None,
        check_same_thread=False,
        timeout=WAIT_SECONDS,
    )
    made.add(raw)
    # A damaged row may hold text that is none; it has to reach the gate, which refuses it.
    raw.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
    raw.execute("PRAGMA trusted_schema=OFF")
    raw.execute("PRAGMA cell_size_check=ON")
    if alone:
        _exclude(location, raw)
    raw.execute(f"PRAGMA busy_timeout={WAIT_MS}")
    return raw


def _exclude(location: Location, raw: Held) -> None:
    """Take the file for this connection alone: whoever has a store open holds a shared lock on it all the time."""
    raw.execute(f"PRAGMA busy_timeout={_ALONE_MS}")
    raw.execute("PRAGMA locking_mode=EXCLUSIVE")
    try:
        raw.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        raw.shut()
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        message = f"the store {location} is open {holders(location.path)}; close it there first"
        raise StoreError(message) from error


def to_read(raw: Held) -> None:
    """Let a connection read, and nothing else."""
    raw.execute("PRAGMA query_only=ON")
    raw.cache_kib = _READ_CACHE_KIB
    raw.cache()


def to_write(raw: Held, cache_kib: int) -> None:
    """Let a connection write, with so much of a cache; on an empty file also set what is fixed at its creation."""
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
    raw.cache_kib = cache_kib
    raw.cache()
    run("PRAGMA wal_autocheckpoint=0")
    run(f"PRAGMA journal_size_limit={_JOURNAL_BYTES}")
    run("PRAGMA secure_delete=OFF")
    run("PRAGMA foreign_keys=ON")
