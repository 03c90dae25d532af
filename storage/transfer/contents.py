"""What a store holds, read to be moved elsewhere: its pages one by one, its systems, and their commits as they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from whiteboard.storage.commits.log import SEALED, SYSTEMS, check_system, log_of, node_pages, spans_of
from whiteboard.storage.opening import open_database
from whiteboard.storage.page import row_checks
from whiteboard.storage.page.digests import Laid
from whiteboard.storage.page.format import Blob
from whiteboard.storage.sql import tables as t
from whiteboard.storage.sql.backend import Connection, Database
from whiteboard.storage.sql.location import StoreUrl, locate_lasting
from whiteboard.storage.sql.rows import count_packages, indexed, select_pages

_SAME: Final = SEALED[:6]  # whatever is a keyframe here or there
_NUMBERS = "SELECT number FROM commit_log WHERE system_id = ? AND number > ? AND number <= ? ORDER BY number"
_COMMIT = "SELECT * FROM commit_log WHERE system_id = ? AND number = ?"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A system on its way into a store.

    Parameters
    ----------
    name, uuid : str
    spec : str or None
        JSON, as it lies in the table.
    origin : (name, number) or None
        What it was forked from.
    history : mapping of int to bytes
        The identity of each commit of its history that is known, its origin's included.
    """

    name: str
    uuid: str
    spec: str | None
    origin: tuple[str, int] | None
    history: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class LoggedCommit:
    """A commit as it lies in the tables: the fields of its row, its seal, and its node pages."""

    values: Mapping[str, Any]
    seal: bytes
    blobs: tuple[Laid, ...]

    @property
    def number(self) -> int:
        """The commit's number."""
        return int(self.values["number"])

    @property
    def nbytes(self) -> int:
        """Bytes of its node pages."""
        return sum(len(blob.header) + len(blob.data) for blob in self.blobs)


def identity(values: Mapping[str, Any]) -> bytes:
    """A digest of what a commit is, wherever it lies and however its rows are stored."""
    text = json.dumps([values[name] for name in _SAME])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def identities(connection: Connection, name: str) -> dict[int, bytes]:
    """The identity of every commit of a history, its origins' included."""
    rows = (row for span in spans_of(connection, name) for row in log_of(connection, span))
    return {row.number: identity(row._asdict()) for row in rows}


def page_ids(connection: Connection, ops: Collection[str] | None, after: int = 0) -> list[int]:
    """The pages above an id that some package is found in, by ascending id; those of some ops, or of all (None)."""
    return [page_id for page_id, _ in _pages(connection, ops) if page_id > after]


def layout(connection: Connection, ops: Collection[str] | None, upto: int) -> list[int]:
    """How many pages there are up to an id, and packages in them.

    Where these are no longer what they were, pages were evicted, or cut and joined, and newer ones may hold what was in
    them: who reads page after page has to go on with those.
    """
    rows = [n for page_id, n in _pages(connection, ops) if page_id <= upto]
    return [len(rows), sum(rows)]


def _pages(connection: Connection, ops: Collection[str] | None) -> Iterator[tuple[int, int]]:
    sql = f"SELECT id, op, n FROM page WHERE id IN ({indexed(connection)}) ORDER BY id"
    found = row_checks.rows(t.page, connection.exec_driver_sql(sql))
    return ((page_id, n) for page_id, op, n in found if ops is None or op in ops)


def page(connection: Connection, page_id: int) -> Blob | None:
    """One page as it lies in its row, None where it is gone."""
    return select_pages(connection, [page_id]).get(page_id)


def incoming(connection: Connection) -> list[Incoming]:
    """All systems with their histories; a fork comes after what it was forked from."""
    return [
        Incoming(
            row.name,
            row.uuid,
            row.spec,
            None if row.origin_name is None else (row.origin_name, row.origin_number),
            identities(connection, row.name),
        )
        for row in map(check_system, connection.exec_driver_sql(f"{SYSTEMS} ORDER BY system.id"))
    ]


def own_commits(database: Database, name: str, after: int, upto: int) -> Iterator[LoggedCommit]:
    """The commits that a system made itself, with numbers above `after` up to `upto`; one read each."""
    with database.read() as connection:
        span = spans_of(connection, name)[-1]
        bounds = span.system_id, max(after, span.after), upto
        numbers = list(connection.exec_driver_sql(_NUMBERS, bounds).scalars())
    for number in numbers:
        with database.read() as connection:
            found = connection.exec_driver_sql(_COMMIT, (span.system_id, number)).one()
            row = row_checks.row(t.commit_log, found, f"system {name!r}: ")
            blobs = tuple(node_pages(connection, [(span, row)])[span.system_id, number])
        yield LoggedCommit({name: getattr(row, name) for name in SEALED}, row.seal, blobs)


def forecast(url: StoreUrl) -> dict[str, int]:
    """How many rows and bytes there are to move: pages that some package is found in, packages, systems, commits."""
    database = open_database(locate_lasting(url), readonly=True)
    try:
        with database.read() as connection:
            run = connection.exec_driver_sql
            live = f"FROM page WHERE id IN ({indexed(connection)})"
            pages, nbytes = run(f"SELECT count(*), coalesce(sum(nbytes), 0) {live}").one()
            node_pages, node_bytes = run(
                "SELECT count(*), coalesce(sum(length(header) + length(data)), 0) FROM node_page"
            ).one()
            packages = count_packages(connection)
            systems, commits = (
                run(f"SELECT count(*) FROM {name} WHERE id >= 0").scalar_one() for name in ("system", "commit_log")
            )
    finally:
        database.close()
    return {
        "pages": pages,
        "packages": packages,
        "systems": systems,
        "commits": commits,
        "node_pages": node_pages,
        "rows": pages + packages + systems + commits + node_pages,
        "bytes": nbytes + node_bytes,
    }
