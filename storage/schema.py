"""Which schema a store has, and how it gets the one that this version reads: Alembic alone makes and changes it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from whiteboard.errors import SchemaError
from whiteboard.storage.engine import Database
from whiteboard.storage.location import StoreUrl, locate
from whiteboard.storage.tables import FORMAT, VERSION_TABLE

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0002"
"""The newest revision. A constant, so that opening a store that is at head imports no Alembic."""


def ensure(database: Database) -> None:
    """Make a new store's schema, or see that an old one's is the one this version reads.

    Raises
    ------
    SchemaError
        The schema is older (the message holds the command that upgrades it), newer, or none of ours.
    """
    revision = database.revision()
    if revision is None and not database.readonly:
        # Processes that race to create one file queue here; whoever comes later finds the work done.
        with database.exclusive():
            database.prepare()
            with database.write() as connection:
                if database.revision() is None:
                    _run_upgrade(connection)
        revision = database.revision()
    if revision != HEAD or database.format() != FORMAT:
        raise _refusal(database, revision)
    database.prepare()


def current(url: StoreUrl) -> str | None:
    """The revision of a store's schema, None for an empty file. Nothing is written."""
    database = Database(locate(url), readonly=True)
    try:
        return database.revision()
    finally:
        database.close()


def upgrade(url: StoreUrl) -> tuple[str | None, str]:
    """Bring a store to the newest schema in one transaction; returns the revisions before and after."""
    database = Database(locate(url))
    try:
        before = database.revision()
        if before != HEAD:
            if before is not None and before not in _revisions():
                raise _refusal(database, before)
            with database.exclusive():
                database.prepare()
                with database.write() as connection:
                    _run_upgrade(connection)
        return before, HEAD
    finally:
        database.close()


def alembic_config() -> Config:
    """Alembic's configuration for the migrations that were installed with this package."""
    from alembic.config import Config

    spec = importlib.util.find_spec("whiteboard.migrations")
    if spec is None or spec.origin is None:
        message = "the package whiteboard.migrations is not installed; install whiteboard again"
        raise SchemaError(message)
    config = Config()
    # A percent sign in the path would be read as interpolation.
    config.set_main_option("script_location", str(Path(spec.origin).parent).replace("%", "%%"))
    return config


def _run_upgrade(connection: Connection) -> None:
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.exec_driver_sql(f"PRAGMA user_version={FORMAT}")


def _revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}


def _refusal(database: Database, revision: str | None) -> SchemaError:
    where = f"cannot open the store {database.location}: "
    if not revision:
        return SchemaError(f"{where}it has no whiteboard schema (no row in {VERSION_TABLE}); name another path")
    if revision in _revisions() - {HEAD}:
        upgrade_command = f"whiteboard db upgrade --store {database.location}"
        return SchemaError(f"{where}its schema {revision} is older than {HEAD}; run `{upgrade_command}`")
    return SchemaError(
        f"{where}its schema {revision}, format {database.format()}, is newer than this version reads "
        f"({HEAD}, format {FORMAT}); upgrade whiteboard"
    )
