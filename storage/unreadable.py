"""Rows that nobody can read, whose values are none that a store writes: found one by one, and taken away by a repair.

Of packages and of commits only what belongs to none is looked for here: `maintenance` reads them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Table

from whiteboard.errors import CorruptPackageError
from whiteboard.storage import recent, valid
from whiteboard.storage import tables as t
from whiteboard.storage.engine import Database

_LOOKED_AT = (t.page_access, t.eviction, t.writer)
_OF_SYSTEMS = (t.commit_log, t.node_page)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Rows of one table, and what is wrong with them."""

    table: str
    row_ids: tuple[int, ...]
    why: str


def unreadable(database: Database) -> tuple[Unreadable, ...]:
    """Look at the counts, claims and index of what was written lately, and for commits that belong to no system."""
    found = [each for table in _LOOKED_AT for each in _looked_at(database, table)]
    with database.read() as connection:
        for table, where, why in _strays():
            ids = tuple(_ids(connection, table, where))
            if ids:
                found.append(Unreadable(table.name, ids, f"{table.name}: {len(ids):,} rows {why}"))
    return tuple(found)


def take_away(connection: Connection, rows: Unreadable) -> None:
    """Delete what was found."""
    connection.exec_driver_sql(f"DELETE FROM {rows.table} WHERE rowid = ?", [(row_id,) for row_id in rows.row_ids])


def _strays() -> Iterator[tuple[Table, str, str]]:
    yield t.recent, recent.ODD, "that hold no hashes"
    for table in _OF_SYSTEMS:
        yield table, "system_id NOT IN (SELECT id FROM system)", "that belong to no system"


def _looked_at(database: Database, table: Table) -> Iterator[Unreadable]:
    sql = f"SELECT * FROM {table.name}"
    try:
        with database.read() as connection:
            for _ in valid.rows(table, connection.exec_driver_sql(sql)):
                pass
    except CorruptPackageError:
        # Where one of them is too large to be read, SQLite does not say which.
        with database.read() as connection:
            ids = _ids(connection, table)
        for row_id in ids:
            try:
                with database.read() as connection:
                    valid.row(table, connection.exec_driver_sql(f"{sql} WHERE rowid = ?", (row_id,)).one())
            except CorruptPackageError as error:
                yield Unreadable(table.name, (row_id,), str(error))


def _ids(connection: Connection, table: Table, where: str = "1") -> list[int]:
    return list(connection.exec_driver_sql(f"SELECT rowid FROM {table.name} WHERE {where}").scalars())
