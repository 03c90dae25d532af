"""A system's history in the tables: its spans over forks, its commits, and its node pages behind seal and digest."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from blake3 import blake3

from whiteboard.errors import CorruptPackageError, UnknownSystemError
from whiteboard.records.systems import CommitRecord, NodeColumns, SystemRecord, is_attr
from whiteboard.storage.page import row_checks
from whiteboard.storage.page.format import Blob, unpack
from whiteboard.storage.sql import tables as t
from whiteboard.storage.sql.backend import Connection, Row, rows_of

_LAST: Final = 2**62
"""No commit has a number of so many; larger ones SQLite cannot be asked for."""

SEALED: Final = ("number", "parent", "changed", "stress", "residual_norm", "digest", "rows", "keyframe")
"""The fields of a commit that its seal covers."""


_SELECT_NODE_PAGES = (
    "SELECT number, id, header, digest, {} FROM node_page WHERE system_id = ? AND number BETWEEN ? AND ? "
    "ORDER BY number, part"
)
_SELECT_DIGESTS = "SELECT number, digest FROM node_page WHERE system_id = ? ORDER BY number, part"
SYSTEMS: Final = (
    "SELECT system.*, origin.name AS origin_name FROM system LEFT JOIN system AS origin ON system.origin_id = origin.id"
)
BY_ID: Final = f"{SYSTEMS} WHERE system.id = ?"
LAST_OWN: Final = "SELECT max(number) FROM commit_log WHERE system_id = ?"
_BY_NAME = f"{SYSTEMS} WHERE system.name = ?"
_ADD_COMMIT = (
    f"INSERT INTO commit_log (system_id, {', '.join(SEALED)}, seal) VALUES ({', '.join('?' * (len(SEALED) + 2))})"
)
# of a system, above a number
_ALL = "SELECT * FROM commit_log WHERE system_id = ? AND number > ? ORDER BY number"
# and up to another one
_SOME = "SELECT * FROM commit_log WHERE system_id = ? AND number > ? AND number <= ? ORDER BY number"
# and from a third one on
_SINCE = "SELECT * FROM commit_log WHERE system_id = ? AND number > ? AND number <= ? AND number >= ? ORDER BY number"
_KEYFRAME = "SELECT max(number) FROM commit_log WHERE system_id = ? AND number > ? AND number <= ? AND keyframe = 1"


@dataclass(frozen=True, slots=True)
class Span:
    """The commits that a history takes from one system: numbers above `after`, up to `upto`; `head` is its last one."""

    system_id: int
    name: str
    uuid: str
    after: int
    upto: int | None
    head: int | None


def by_name(connection: Connection, name: str) -> Row | None:
    """The row of a system with its origin's name, as it lies; None where there is none."""
    # A name that is no text in UTF-8, as an argument of a command may be, is no row's, and cannot be asked for.
    return connection.exec_driver_sql(_BY_NAME, (name,)).first() if row_checks.is_text(name) else None


def add_system(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a system, given as its columns, one of them its name, and return its id."""
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    connection.exec_driver_sql(f"INSERT INTO system ({names}) VALUES ({marks})", tuple(values.values()))
    return int(connection.exec_driver_sql("SELECT id FROM system WHERE name = ?", (values["name"],)).scalar_one())


def add_commits(connection: Connection, system_id: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert commits of a system, given as their fields and seals; at least one."""
    values = [(system_id, *(row[name] for name in SEALED), row["seal"]) for row in rows]
    connection.exec_driver_sql(_ADD_COMMIT, values)


def record_of(row: Row) -> SystemRecord:
    """What the table says of a system.

    Raises
    ------
    CorruptPackageError
        For a row that no system has.
    """
    check_system(row)
    try:
        spec = None if row.spec is None else row_checks.read_json(row.spec)
    except ValueError as error:
        message = f"system {row.name!r}: its row is damaged: the specification cannot be read: {error}"
        raise CorruptPackageError(message) from error
    if not isinstance(spec, dict | None):
        message = f"system {row.name!r}: its row is damaged: the specification is {reprlib.repr(spec)}, not an object"
        raise CorruptPackageError(message)
    origin = None if row.origin_name is None else (row.origin_name, row.origin_number)
    return SystemRecord(row.name, row.uuid, spec, origin)


def is_name(name: str) -> bool:
    """Whether a system can be called so."""
    return bool(name) and name.isprintable()


def check_system(row: Row) -> Row:
    """A system's row, with its origin's name, once its values are some that a system has.

    Raises
    ------
    CorruptPackageError
    """
    row_checks.row(t.system, row, f"system {reprlib.repr(row.name)}: ")
    if not is_name(row.name):
        message = f"system {row.name!r}: row {row.id} of system is damaged: this is no name"
        raise CorruptPackageError(message)
    if (row.origin_id is None) != (row.origin_number is None):
        message = f"system {row.name!r}: its row is damaged: what it was forked from is said by halves"
        raise CorruptPackageError(message)
    if row.origin_id is not None and not isinstance(row.origin_name, str):
        raise _gone(row.name)
    return row


def _gone(name: str) -> CorruptPackageError:
    return CorruptPackageError(f"system {name!r}: the system that it was forked from is gone")


def commit_of(row: Row) -> CommitRecord:
    return CommitRecord(row.number, row.parent, row.changed, row.stress, row.residual_norm, row.digest)


def spans_of(connection: Connection, name: str, number: int | None = None) -> list[Span]:
    """The systems that a history runs through, the oldest first, each with its part of the numbers."""
    row = by_name(connection, name)
    if row is None:
        message = f"the store holds no system {name!r}"
        raise UnknownSystemError(message)
    spans: list[Span] = []
    through: set[int] = set()
    upto = None if number is None else max(-_LAST, min(number, _LAST))
    while True:
        check_system(row)
        through.add(row.id)
        after = -1 if row.origin_number is None else row.origin_number
        spans.append(Span(row.id, row.name, row.uuid, after, upto, row.head))
        if row.origin_id is None:
            return spans[::-1]
        upto = after if upto is None else min(upto, after)
        forked, row = row.name, connection.exec_driver_sql(BY_ID, (row.origin_id,)).one()
        if row.id in through:
            message = (
                f"system {name!r}: {forked!r}, which it comes from, was forked from {row.name!r}: it has no beginning"
            )
            raise CorruptPackageError(message)


def log_of(connection: Connection, span: Span) -> Sequence[Row]:
    """The commits of a span, oldest first, as they lie in the table."""
    bounds = span.system_id, span.after
    if span.upto is None:  # a number that is a text, which is above all numbers, is seen so
        rows = connection.exec_driver_sql(_ALL, bounds)
    else:
        rows = connection.exec_driver_sql(_SOME, (*bounds, span.upto))
    return list(row_checks.rows(t.commit_log, rows, f"system {span.name!r}: "))


def since_keyframe(connection: Connection, spans: Sequence[Span]) -> list[tuple[Span, Row]]:
    """Commits from the last keyframe on, oldest first."""
    found: list[tuple[Span, Row]] = []
    for span in reversed(spans):
        upto = _LAST if span.upto is None else span.upto
        bounds = span.system_id, span.after, upto
        last = connection.exec_driver_sql(_KEYFRAME, bounds).scalar()
        rows = connection.exec_driver_sql(_SINCE, (*bounds, span.after if last is None else last))
        found[:0] = [(span, row) for row in row_checks.rows(t.commit_log, rows, f"system {span.name!r}: ")]
        if last is not None:
            break
    return found


def check_head(name: str, spans: Sequence[Span], last: int) -> None:
    """Raise where a history does not end at the head that its system has."""
    own = spans[-1]
    head = own.after if own.head is None else own.head
    if last != head:
        message = f"system {name!r}: its last commit is {head}, but the log ends at {last}"
        raise CorruptPackageError(message)


def check_whole(name: str, rows: Sequence[Row]) -> None:
    """Raise where a commit is missing between a keyframe and the last commit."""
    numbers = [row.number for row in rows]
    if not rows[0].keyframe or numbers != list(range(numbers[0], numbers[-1] + 1)):
        message = f"system {name!r}: commits are missing between {numbers[0]} and {numbers[-1]}"
        raise CorruptPackageError(message)


def node_pages(connection: Connection, rows: Sequence[tuple[Span, Row]]) -> dict[tuple[int, int], list[Blob]]:
    """The node pages of commits, by system and number: one query a system."""
    ranges: dict[int, tuple[int, int]] = {}
    for span, row in rows:
        ranges[span.system_id] = (ranges.get(span.system_id, (row.number,))[0], row.number)
    pages: dict[tuple[int, int], list[Blob]] = defaultdict(list)
    of = rows_of(connection)
    for system_id, (low, high) in ranges.items():
        found = connection.exec_driver_sql(_SELECT_NODE_PAGES.format(of.AS_COLUMN), (system_id, low, high))
        for number, page_id, header, digest, data in found:
            whole = of.read_data(connection, "node_page", page_id, header) if data is None else data
            pages[system_id, number].append(Blob(header, digest, whole))
    return pages


def checked_log(connection: Connection, name: str) -> list[Row]:
    """All commits of a history, oldest first, each behind its seal."""
    spans = spans_of(connection, name)
    rows = [(span, row) for span in spans for row in log_of(connection, span)]
    check_head(name, spans, rows[-1][1].number if rows else -1)
    digests: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for system_id in {span.system_id for span, _ in rows}:
        for number, digest in connection.exec_driver_sql(_SELECT_DIGESTS, (system_id,)):
            digests[system_id, number].append(digest)
    if [row.number for _, row in rows] != list(range(len(rows))):
        message = f"system {name!r}: one of the commits 0 to {rows[-1][1].number} is missing"
        raise CorruptPackageError(message)
    for span, row in rows:
        check_seal(name, span, row, digests[span.system_id, row.number])
    return [row for _, row in rows]


def check_seal(name: str, span: Span, row: Row, digests: Sequence[Any]) -> None:
    """Raise where a commit's row or the digests of its pages are not those that were written."""
    values = {name: getattr(row, name) for name in SEALED}
    try:
        intact = is_seal(row.seal, span.uuid, values, digests)
    except TypeError:
        intact = False
    if not intact:
        message = f"system {name!r}, commit {row.number}: its row or its pages are not those that were written"
        raise CorruptPackageError(message)


def opened(name: str, span: Span, row: Row, blobs: Sequence[Blob]) -> list[NodeColumns]:
    """The node rows of one commit, once its seal and every digest fit."""
    check_seal(name, span, row, [blob.digest for blob in blobs])
    try:
        return [_columns(blob) for blob in blobs]
    except (CorruptPackageError, KeyError, TypeError) as error:
        message = f"system {name!r}, commit {row.number} is damaged: {error}"
        raise CorruptPackageError(message) from error


def _columns(blob: Blob) -> NodeColumns:
    meta, arrays = unpack(blob)
    if not is_attr(attr := meta["attr"]):
        message = f"{reprlib.repr(attr)} is no attribute's name"
        raise CorruptPackageError(message)
    return NodeColumns(attr, arrays["ids"], arrays["versions"], arrays["fixed"], arrays["values"])


def seal(uuid: str, values: Mapping[str, Any], digests: Iterable[bytes]) -> bytes:
    """BLAKE3-128 over a commit's fields and the digests of its node pages, in their order."""
    return blake3(_sealed(uuid, values, digests)).digest(length=16)


def is_seal(given: object, uuid: str, values: Mapping[str, Any], digests: Sequence[bytes]) -> bool:
    """Whether it is the seal of a commit: of one of before it is BLAKE2b's."""
    said = _sealed(uuid, values, digests)
    return given in (blake3(said).digest(length=16), hashlib.blake2b(said, digest_size=16).digest())


def _sealed(uuid: str, values: Mapping[str, Any], digests: Iterable[bytes]) -> bytes:
    text = json.dumps([uuid, dict(values)], sort_keys=True).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *digests])
