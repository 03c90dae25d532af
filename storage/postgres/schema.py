"""The schema of a store on a server: made once whoever comes first, checked at each opening, changed on command."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from whiteboard.errors import SchemaError, StoreError
from whiteboard.storage.postgres.connecting import connect
from whiteboard.storage.postgres.database import PostgresDatabase
from whiteboard.storage.postgres.failures import translated
from whiteboard.storage.sql import backend
from whiteboard.storage.sql.tables import VERSION_TABLE
from whiteboard.storage.sqlite.schema import HEAD, revisions, run

if TYPE_CHECKING:
    import sqlalchemy

_MAKING = 0x57424F44
"""The advisory lock under which a schema is made or changed."""

_log = logging.getLogger(__name__)


def revision_of(database: PostgresDatabase) -> str | None:
    """The revision of the schema, None where there is no store."""
    with database.read() as connection:
        return _revision(database, connection)


def ensure(database: PostgresDatabase, *, makes: bool) -> None:
    """See that the schema is the one that this version reads; where there is none, make it.

    Raises
    ------
    SchemaError
        It is older (the message holds the command that upgrades it), newer, or there is none.
    StoreError
        A pooler of connections is between.
    """
    database.check_direct()
    revision = revision_of(database)
    if revision is None and makes:
        _migrate(database, only_new=True)
        revision = revision_of(database)
    where = f"cannot open the store {database.location}: "
    if revision is None:
        message = f"{where}there is none in schema {database.schema}; open it once for writing, which makes it"
        raise SchemaError(message)
    if revision == HEAD:
        return
    if revision in revisions():
        command = f"whiteboard db upgrade --store {database.location}"
        message = f"{where}its schema {revision} is older than {HEAD}; run `{command}`"
    else:
        message = f"{where}its schema {revision!r} is newer than this version reads ({HEAD}); upgrade whiteboard"
    raise SchemaError(message)


def upgrade(database: PostgresDatabase) -> tuple[str | None, str]:
    """Bring a store to the newest schema in one transaction; returns the revisions before and after."""
    database.check_direct()
    before = revision_of(database)
    if before is not None and before not in revisions():
        ensure(database, makes=False)
    _migrate(database, only_new=False)
    return before, HEAD


def _revision(database: PostgresDatabase, connection: backend.Connection) -> str | None:
    sql = "SELECT to_regclass(?)::text"
    if connection.exec_driver_sql(sql, (f'"{database.schema}".{VERSION_TABLE}',)).scalar_one() is None:
        return None
    found = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()
    return None if found is None else str(found)


def _migrate(database: PostgresDatabase, *, only_new: bool) -> None:
    """Make or upgrade the tables in one transaction, by Alembic and a connection as it wants one."""
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import DBAPIError

    database.check_writable()
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect(database.location), poolclass=NullPool, use_native_hstore=False
    )
    with translated(database.location):
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("BEGIN")
                _migrated(database, connection, only_new=only_new)
                connection.exec_driver_sql("COMMIT")
        except DBAPIError as error:
            raise (error.orig or error) from None


def _migrated(database: PostgresDatabase, connection: sqlalchemy.Connection, *, only_new: bool) -> None:
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_MAKING,))
    revision = revision_of(database)  # of the moment after whoever else made it
    if revision == HEAD or (only_new and revision is not None):
        return
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        message = f"cannot make the store {database.location}: its database is in {encoding}, and must be in UTF8"
        raise StoreError(message)
    connection.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{database.schema}"')
    run(connection, HEAD)
    _log.info("%s has schema %s now", database.location, HEAD)
