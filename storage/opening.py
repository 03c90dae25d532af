"""A database of any backend, open at this version's schema: what is behind a store, and all that moves or mends one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from whiteboard.errors import StoreError
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.location import Location, StoreUrl, locate
from whiteboard.storage.sqlite import database as sqlite
from whiteboard.storage.sqlite import schema
from whiteboard.storage.sqlite.connecting import MOVING_CACHE_KIB
from whiteboard.storage.sqlite.location import probe


def open_database(
    location: Location, *, readonly: bool = False, durability: str = "normal", moves: bool = False, makes: bool = True
) -> Database:
    """Open a database whose schema is the one that this version reads.

    Parameters
    ----------
    location : Location
    readonly : bool
        Write nothing.
    durability : {"normal", "full"}
    moves : bool
        Packages are moved: they are many times more than any cache holds, and are moved in bounded memory.
    makes : bool
        Make a store where there is none.

    Raises
    ------
    StoreError, SchemaError, ReadOnlyError
        What lies there cannot be opened; it is left as it was.
    """
    if location.server is not None:
        from whiteboard.storage.postgres import open_postgres

        return open_postgres(location, readonly=readonly, durability=durability, makes=makes)
    if location.path is not None and not makes:
        probe(location.path, readonly=True)
    options = {"cache_kib": MOVING_CACHE_KIB} if moves else {}
    database = sqlite.Database(location, readonly=readonly, durability=durability, **options)
    try:
        schema.ensure(database)
    except BaseException:
        database.close()
        raise
    return database


def revision(url: StoreUrl) -> str | None:
    """The revision of a store's schema, None where nothing is there yet. Nothing is written."""
    location = locate(url)
    if location.server is None:
        return schema.current(url)
    with _server(location, readonly=True) as (server, database):
        found: str | None = server.revision_of(database)
        return found


def upgrade(url: StoreUrl) -> schema.Changed:
    """Bring a store to the newest schema, in one transaction; a file is copied first (of a server, make a dump).

    Raises
    ------
    SchemaError, StoreError
        The store is as it was.
    """
    location = locate(url)
    if location.server is None:
        return schema.upgrade(url)
    with _server(location, readonly=False) as (server, database):
        return schema.Changed(*server.upgrade(database))


@contextmanager
def _server(location: Location, *, readonly: bool) -> Iterator[tuple[Any, Any]]:
    from whiteboard.storage.postgres import connected

    server, database = connected(location, readonly=readonly, durability="normal")
    try:
        yield server, database
    finally:
        database.close()


def check_file(location: Location, what: str) -> None:
    """Raise where a store is no file, for what can be done to one only.

    Raises
    ------
    StoreError
    """
    if location.server is not None:
        message = f"{what} works on a store that is one file; {location} is on a server: use pg_dump and its like there"
        raise StoreError(message)
