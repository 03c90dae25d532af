"""Rows that nobody can read, whose values are none that a store writes: found one by one, and taken away by a repair.

Of packages and of commits only what belongs to none is looked for here: `verify` reads them all. Commits whose
system has lost its row are not taken away: the system gets a row again, under another name.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from whiteboard.errors import CorruptPackageError
from whiteboard.storage.page import row_checks
from whiteboard.storage.sql import tables as t
from whiteboard.storage.sql.backend import Connection, Database
from whiteboard.storage.sqlite import gathered_index, known_hashes, recent_index

_LOOKED_AT = (t.page_access, t.eviction, t.writer, t.claim)
_OF_SYSTEMS = (t.commit_log, t.node_page)
_ODD_PART = "typeof(page_id) <> 'integer' OR page_id NOT IN (SELECT id FROM page)"
_LOST = "typeof(system_id) = 'integer' AND system_id NOT IN (SELECT id FROM system)"
_LAST = "SELECT max(number) FROM commit_log WHERE system_id = ? AND typeof(number) = 'integer'"
_HEADERS = "SELECT header FROM node_page WHERE system_id = ? AND typeof(header) = 'blob' ORDER BY id LIMIT 8"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Rows of one table, and what is wrong with them."""

    table: str
    row_ids: tuple[int, ...]
    why: str


def unreadable(database: Database) -> tuple[Unreadable, ...]:
    """Look at the counts, claims and index of what was written lately, and for commits that belong to no system."""
    if database.typed:
        return ()  # such rows cannot be
    found = [each for table in _LOOKED_AT for each in _looked_at(database, table)]
    with database.read() as connection:
        for table, where, why in _strays():
            ids = tuple(_ids(connection, table, where))
            if ids:
                found.append(Unreadable(table.name, ids, f"{table.name}: {len(ids):,} rows {why}"))
        for part, count in known_hashes.left_out(connection):
            found.append(Unreadable(t.known.name, (part,), f"known: part {part} leaves out {count:,} packages"))
    return tuple(found)


def without_row(database: Database) -> list[int]:
    """The ids of systems that have commits or node pages, and no row."""
    if database.typed:
        return []
    sql = " UNION ".join(f"SELECT system_id FROM {table.name} WHERE {_LOST}" for table in _OF_SYSTEMS)
    with database.read() as connection:
        return sorted(connection.exec_driver_sql(sql).scalars())


def give_row(connection: Connection, system_id: int) -> None:
    """Give a system that has none a row again: its uuid is in its node pages, and its head is its last commit."""
    uuid = ""
    for (header,) in connection.exec_driver_sql(_HEADERS, (system_id,)):
        try:
            uuid = str(row_checks.read_json(header)["system"])
            break
        except (ValueError, TypeError, KeyError):
            continue
    head = connection.exec_driver_sql(_LAST, (system_id,)).scalar()
    row = (system_id, any_name(system_id), uuid or secrets.token_hex(16), head)
    connection.exec_driver_sql("INSERT INTO system (id, name, uuid, head) VALUES (?, ?, ?, ?)", row)


def any_name(system_id: int) -> str:
    """A name for a system that has lost its own."""
    return f"damaged-{system_id}-{secrets.token_hex(4)}"


def delete_unreadable(connection: Connection, rows: Unreadable) -> None:
    """Delete what was found."""
    connection.exec_driver_sql(f"DELETE FROM {rows.table} WHERE rowid = ?", [(row_id,) for row_id in rows.row_ids])


def _strays() -> Iterator[tuple[row_checks.Table, str, str]]:
    yield t.recent, recent_index.ODD, "that hold no hashes"
    yield t.gathered, gathered_index.ODD, "that hold no index rows"
    yield t.known, known_hashes.ODD, "that hold no bits of hashes"
    yield t.page_part, _ODD_PART, "that belong to no page"
    for table in _OF_SYSTEMS:
        yield table, "typeof(system_id) <> 'integer'", "that belong to no system"


def _looked_at(database: Database, table: row_checks.Table) -> Iterator[Unreadable]:
    sql = f"SELECT * FROM {table.name}"
    try:
        with database.read() as connection:
            for _ in row_checks.rows(table, connection.exec_driver_sql(sql)):
                pass
    except CorruptPackageError:
        # Where one of them is too large to be read, SQLite does not say which.
        with database.read() as connection:
            ids = _ids(connection, table)
        for row_id in ids:
            try:
                with database.read() as connection:
                    row_checks.row(table, connection.exec_driver_sql(f"{sql} WHERE rowid = ?", (row_id,)).one())
            except CorruptPackageError as error:
                yield Unreadable(table.name, (row_id,), str(error))


def _ids(connection: Connection, table: row_checks.Table, where: str = "1") -> list[int]:
    return list(connection.exec_driver_sql(f"SELECT rowid FROM {table.name} WHERE {where}").scalars())
