"""Which schema a store has, and how it gets the one that this version reads: Alembic alone changes it.

A new store is made as Alembic makes one, letter by letter, by `new_store`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import re
import reprlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from whiteboard.errors import SchemaError, StoreError
from whiteboard.storage.sql.location import StoreUrl, locate
from whiteboard.storage.sql.tables import FORMAT, HEAD_TRIGGER_NAME, TABLES, VERSION_TABLE
from whiteboard.storage.sqlite import new_store
from whiteboard.storage.sqlite.database import Database
from whiteboard.storage.sqlite.location import create_empty
from whiteboard.storage.sqlite.part_files import sync_folder

if TYPE_CHECKING:
    import sqlalchemy
    from alembic.config import Config

HEAD = "0007"
"""The newest revision. A constant, so that opening a store that is at head imports no Alembic."""

STATEMENTS = "34482581ebfb8f0341814318bec8d70c"
"""Digest of what the migrations make at `HEAD`: a constant for the same reason; what differs is looked at closely."""

_MOST_SHOWN = 32
_QUOTES, _SPACES = re.compile(r"[\"`\[\]]"), re.compile(r"\s*([(),])\s*")

_log = logging.getLogger(__name__)


def ensure(database: Database) -> None:
    """Make a new store's schema, or see that an old one's is the one this version reads, and nothing else.

    Raises
    ------
    SchemaError
        The schema is older (the message holds the command that upgrades it), newer, or none of ours; or something was
        added to it or changed: a view in a table's place, a trigger, a computed column could run or return anything.
    """
    _at_head(database)
    have = _statements(database)
    if _digest(have) != STATEMENTS and (found := _differences(have)):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        message = (
            f"cannot open the store {database.location}: its schema was changed: {found[0]}{more}; "
            "undo that, or restore the store from a copy"
        )
        raise SchemaError(message)
    database.prepare()
    if not database.readonly and database.format() < FORMAT:
        database.write(lambda connection: connection.exec_driver_sql(f"PRAGMA user_version={FORMAT}"))


def _at_head(database: Database) -> None:
    revision = database.revision()
    if revision is None and not database.readonly:
        # Processes that race to create one file queue here; whoever comes later finds the work done.
        database.exclusive(partial(_made, database))
        revision = database.revision()
    if revision != HEAD or not 1 <= database.format() <= FORMAT:
        raise _refusal(database, revision)


def _made(database: Database) -> None:
    database.prepare()
    if database.revision() is None:
        database.write(partial(new_store.make, revision=HEAD))
        _log.info("made a new store: %s", database.location)


def current(url: StoreUrl) -> str | None:
    """The revision of a store's schema, None for an empty file. Nothing is written."""
    database = Database(locate(url), readonly=True)
    try:
        return database.revision()
    finally:
        database.close()


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change of schema did: the revisions before and after, and the copy that was made first, if any."""

    before: str | None
    after: str
    copy: Path | None = None


def upgrade(url: StoreUrl) -> Changed:
    """Bring a store to the newest schema in one transaction; a file that holds something is copied beside itself first.

    Raises
    ------
    SchemaError
        The schema is newer, or none of ours, or has something in it that no version made.
    StoreError
        Somebody has the store open (the message says which process), or the copy or the upgrade could not be written.
        The store is as it was.
    """
    return _changed(url, _upgraded)


def _changed(url: StoreUrl, change: Callable[[Database], Changed]) -> Changed:
    """Change a store's schema; processes that come to do the same queue, with nothing open, and find it done."""
    database = Database(locate(url))
    try:
        return database.exclusive(partial(change, database))
    finally:
        database.close()


def _upgraded(database: Database) -> Changed:
    before = database.revision()
    if before == HEAD:
        return Changed(HEAD, HEAD)  # another process has done it meanwhile
    if before is not None:
        if before not in revisions():
            raise _refusal(database, before)
        _check_inert(database)
    return Changed(before, HEAD, database.alone(partial(_migrated, database, HEAD, copies=before is not None)))


def _migrated(database: Database, revision: str, *, copies: bool) -> Path | None:
    database.prepare()
    copy = _copied(database, f"before-{revision}") if copies else None
    database.migrate(partial(run, revision=revision), durable=True)
    _log.info("%s has schema %s now%s", database.location, revision, f"; as it was: {copy}" if copy else "")
    return copy


def downgrade(url: StoreUrl, revision: str) -> Changed:
    """Bring a store to an older schema, in one transaction, for an older version to use.

    Raises
    ------
    SchemaError
        Something in the store has no place in the older schema (the message says what), or there is no such older
        revision. The store is as it was.
    StoreError
        Somebody has the store open; the message says which process.
    """
    current(url)  # a store that is not there is not made
    return _changed(url, partial(_downgraded, revision=revision))


def _downgraded(database: Database, revision: str) -> Changed:
    before = database.revision()
    if before is None or before not in revisions():
        raise _refusal(database, before)
    older = sorted(known for known in revisions() if known <= before)
    if revision not in older:
        message = f"the store {database.location} has schema {before}: name one of {', '.join(older)}"
        raise SchemaError(message)
    _check_inert(database)
    database.alone(partial(_migrated, database, revision, copies=False))
    return Changed(before, revision)


def differences(url: StoreUrl) -> list[str]:
    """What the tables, indexes and triggers of a store at head are other than they should be; empty where nothing."""
    database = Database(locate(url), readonly=True)
    try:
        _at_head(database)
        return _differences(_statements(database, foreign=True))
    finally:
        database.close()


@cache
def _right() -> Mapping[str, str]:
    database = Database(locate(":memory:"))
    try:
        _at_head(database)
        return _statements(database)
    finally:
        database.close()


def _differences(have: Mapping[str, str]) -> list[str]:
    want = _right()
    return [
        f"{name} {'is missing' if name not in have else 'does not belong here' if name not in want else 'differs'}"
        for name in sorted(have.keys() | want.keys())
        if have.get(name) != want.get(name)
    ]


def _statements(database: Database, *, foreign: bool = False) -> dict[str, str]:
    """The statements that made the store's tables, indexes, triggers and views, whatever their spaces and quotes.

    Tables of others, with their indexes, are left out unless `foreign`: nothing here asks them anything.
    """
    ours = {*(table.name for table in TABLES), VERSION_TABLE}
    return {
        f"{kind} {name}": " ".join(_SPACES.sub(r"\1", _QUOTES.sub("", str(sql))).split()).lower()
        for kind, name, table, sql in database.made_of()
        if sql is not None
        and (
            str(table).lower() in ours
            or kind not in ("table", "index")
            or (foreign and not str(name).startswith("sqlite_"))
        )
    }


def _check_inert(database: Database) -> None:
    """Raise where a migration would run what somebody added."""
    for kind, name, _, _ in database.made_of():
        if kind in ("view", "trigger") and name != HEAD_TRIGGER_NAME:
            message = f"the store {database.location} has a {kind} {name} that no version made; drop it first"
            raise SchemaError(message)


def _digest(statements: Mapping[str, str]) -> str:
    text = "\n".join(f"{name}: {sql}" for name, sql in sorted(statements.items()))
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _copied(database: Database, suffix: str) -> Path | None:
    """Copy a store's file beside itself with SQLite's backup; the copy gets its name when it is whole."""
    path = database.location.path
    if path is None:
        return None
    part = path.with_name(f"{path.name}.{suffix}-{secrets.token_hex(8)}.part")
    create_empty(part)
    try:
        database.backup(part)
        names = (f"{path}.{suffix}{f'.{number}' if number else ''}" for number in count())
        copy = next(found for found in map(Path, names) if not found.exists())
        part.rename(copy)
        sync_folder(copy.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, StoreError):
            message = f"the store {path} was left as it is, as its copy cannot be written: {error.strerror}"
            raise StoreError(message) from error
        raise
    return copy


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


def run(connection: sqlalchemy.Connection, revision: str) -> None:
    """Run the migrations up, or down, to a revision, in the transaction of a connection."""
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    (command.upgrade if revision == HEAD else command.downgrade)(config, revision)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA user_version={FORMAT}")


def revisions() -> set[str]:
    """All revisions that there are."""
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}


def _refusal(database: Database, revision: str | None) -> SchemaError:
    where = f"cannot open the store {database.location}: "
    if revision is None and database.readonly:
        return SchemaError(f"{where}its making was interrupted; open it once for writing, which finishes it")
    if not revision:
        return SchemaError(f"{where}it has no whiteboard schema (no row in {VERSION_TABLE}); name another path")
    if revision in revisions() - {HEAD}:
        upgrade_command = f"whiteboard db upgrade --store {database.location}"
        return SchemaError(f"{where}its schema {revision} is older than {HEAD}; run `{upgrade_command}`")
    shown = revision if revision.isprintable() and len(revision) <= _MOST_SHOWN else reprlib.repr(revision)
    return SchemaError(
        f"{where}its schema {shown}, format {database.format()}, is newer than this version reads "
        f"({HEAD}, format {FORMAT}); upgrade whiteboard"
    )
