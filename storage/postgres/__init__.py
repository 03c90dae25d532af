"""A store in a schema of a PostgreSQL database, which many machines share.

`connecting` makes connections, `database` is transactions over a pool of them, `failures` says what went wrong in the
store's errors, `schema` makes and checks the tables, `rows` is the SQL of packages. Needs psycopg 3, and is imported
where such a store is opened. May import `page` and `sql`, and of `sqlite` what names the schema's revisions.
"""

from __future__ import annotations

from whiteboard.errors import MissingExtraError
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.location import Location


def open_postgres(location: Location, *, readonly: bool, durability: str, makes: bool) -> Database:
    """Open a store on a server; a new one is made where there is none.

    Raises
    ------
    MissingExtraError
        psycopg is not installed.
    StoreError, SchemaError, ReadOnlyError
    """
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        message = "a store on PostgreSQL needs psycopg 3: pip install 'psycopg[binary]>=3'"
        raise MissingExtraError(message) from error
    from whiteboard.storage.postgres import schema
    from whiteboard.storage.postgres.database import PostgresDatabase

    database = PostgresDatabase(location, readonly=readonly, durability=durability)
    try:
        schema.ensure(database, makes=makes and not readonly)
    except BaseException:
        database.close()
        raise
    return database
