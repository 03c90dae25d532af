"""A store in a schema of a PostgreSQL database, which many machines share.

`connecting` makes connections, `pool` keeps idle ones, `transaction` sends statements by them, `database` is reads and
writes, `holding` is a session whose locks say
who lives, `failures` says what went wrong in the store's errors, `schema` makes and checks the tables, `rows` is the
SQL of packages. Needs psycopg 3, and is imported where such a store is opened. May import `page` and `sql`, and of
`sqlite` what names the schema's revisions.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from whiteboard.errors import MissingExtraError
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.location import Location

if TYPE_CHECKING:
    from whiteboard.storage.postgres.database import PostgresDatabase


def open_postgres(location: Location, *, readonly: bool, durability: str, makes: bool) -> Database:
    """Open a store on a server; a new one is made where there is none.

    Raises
    ------
    MissingExtraError
        psycopg is not installed.
    StoreError, SchemaError, ReadOnlyError
    """
    schema, database = connected(location, readonly=readonly, durability=durability)
    try:
        schema.ensure(database, makes=makes and not readonly)
    except BaseException:
        database.close()
        raise
    return database


def connected(location: Location, *, readonly: bool, durability: str) -> tuple[ModuleType, PostgresDatabase]:
    """The module `schema`, and a database of which nothing is known yet."""
    try:
        from whiteboard.storage.postgres import database, schema
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "psycopg" and "pq wrapper" not in str(error):
            raise
        message = "a store on PostgreSQL needs psycopg 3: pip install 'psycopg[binary]>=3.1'"
        raise MissingExtraError(message) from error
    return schema, database.PostgresDatabase(location, readonly=readonly, durability=durability)
