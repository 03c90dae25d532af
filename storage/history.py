"""A system's history in the tables: its spans over forks, its commits, and its node pages behind seal and digest."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, func, insert, select

from whiteboard.errors import CorruptPackageError, UnknownSystemError
from whiteboard.storage import tables as t
from whiteboard.storage.base import CommitRecord, NodeColumns, SystemRecord
from whiteboard.storage.pages import Blob, unpack

_LAST: Final = 2**62
"""No commit has a number of so many; larger ones SQLite cannot be asked for."""

_SEALED: Final = ("number", "parent", "changed", "stress", "residual_norm", "digest", "rows", "keyframe")

_SELECT_NODE_PAGES = (
    "SELECT number, header, digest, data FROM node_page WHERE system_id = ? AND number BETWEEN ? AND ? "
    "ORDER BY number, part"
)
_SELECT_DIGESTS = "SELECT number, digest FROM node_page WHERE system_id = ? ORDER BY number, part"
_ORIGIN = t.system.alias("origin")
SYSTEMS = select(t.system, _ORIGIN.c.name.label("origin_name")).select_from(
    t.system.outerjoin(_ORIGIN, t.system.c.origin_id == _ORIGIN.c.id)
)
# Made once: putting a statement together costs more than running it.
BY_NAME = SYSTEMS.where(t.system.c.name == bindparam("name"))
LAST_OWN = select(func.max(t.commit_log.c.number)).where(t.commit_log.c.system_id == bindparam("id"))
ADD_COMMIT = insert(t.commit_log)


@dataclass(frozen=True, slots=True)
class Span:
    """The commits that a history takes from one system: numbers above `after`, up to `upto`; `head` is its last one."""

    system_id: int
    uuid: str
    after: int
    upto: int | None
    head: int | None


def record_of(row: Row[Any]) -> SystemRecord:
    """What the table says of a system.

    Raises
    ------
    CorruptPackageError
        For a row that no system has.
    """
    try:
        spec = None if row.spec is None else json.loads(row.spec)
        sound = isinstance(row.name, str) and isinstance(row.uuid, str) and isinstance(spec, dict | None)
    except (ValueError, TypeError, RecursionError):
        sound = False
    if not sound:
        message = f"system {row.name!r}: its row is damaged: name, uuid or specification cannot be read"
        raise CorruptPackageError(message)
    if row.origin_id is not None and row.origin_name is None:
        message = f"system {row.name!r}: the system that it was forked from is gone"
        raise CorruptPackageError(message)
    origin = None if row.origin_name is None else (row.origin_name, row.origin_number)
    return SystemRecord(row.name, row.uuid, spec, origin)


def commit_of(row: Row[Any]) -> CommitRecord:
    return CommitRecord(row.number, row.parent, row.changed, row.stress, row.residual_norm, row.digest)


def spans_of(connection: Connection, name: str, number: int | None = None) -> list[Span]:
    """The systems that a history runs through, the oldest first, each with its part of the numbers."""
    row = connection.execute(BY_NAME, {"name": name}).one_or_none()
    if row is None:
        message = f"the store holds no system {name!r}"
        raise UnknownSystemError(message)
    spans: list[Span] = []
    upto = None if number is None else max(-_LAST, min(number, _LAST))
    while True:
        after = -1 if row.origin_number is None else row.origin_number
        spans.append(Span(row.id, row.uuid, after, upto, row.head))
        if row.origin_id is None:
            return spans[::-1]
        upto = after if upto is None else min(upto, after)
        forked, row = row.name, connection.execute(SYSTEMS.where(t.system.c.id == row.origin_id)).one_or_none()
        if row is None:
            message = f"system {forked!r}: the system that it was forked from is gone"
            raise CorruptPackageError(message)


def log_of(connection: Connection, span: Span) -> Sequence[Row[Any]]:
    """The commits of a span, oldest first, as they lie in the table."""
    log = t.commit_log
    query = select(log).where(log.c.system_id == span.system_id, log.c.number > span.after)
    if span.upto is not None:
        query = query.where(log.c.number <= span.upto)
    return connection.execute(query.order_by(log.c.number)).all()


def since_keyframe(connection: Connection, spans: Sequence[Span]) -> list[tuple[Span, Row[Any]]]:
    """Commits from the last keyframe on, oldest first."""
    log = t.commit_log
    found: list[tuple[Span, Row[Any]]] = []
    for span in reversed(spans):
        upto = _LAST if span.upto is None else span.upto
        inside = (log.c.system_id == span.system_id, log.c.number > span.after, log.c.number <= upto)
        last = connection.execute(select(func.max(log.c.number)).where(*inside, log.c.keyframe == 1)).scalar()
        query = select(log).where(*inside, log.c.number >= (span.after if last is None else last))
        found[:0] = [(span, row) for row in connection.execute(query.order_by(log.c.number))]
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


def check_whole(name: str, rows: Sequence[Row[Any]]) -> None:
    """Raise where a commit is missing between a keyframe and the last commit."""
    numbers = [row.number for row in rows]
    if not rows[0].keyframe or numbers != list(range(numbers[0], numbers[-1] + 1)):
        message = f"system {name!r}: commits are missing between {numbers[0]} and {numbers[-1]}"
        raise CorruptPackageError(message)


def node_pages(connection: Connection, rows: Sequence[tuple[Span, Row[Any]]]) -> dict[tuple[int, int], list[Blob]]:
    """The node pages of commits, by system and number: one query a system."""
    ranges: dict[int, tuple[int, int]] = {}
    for span, row in rows:
        ranges[span.system_id] = (ranges.get(span.system_id, (row.number,))[0], row.number)
    pages: dict[tuple[int, int], list[Blob]] = defaultdict(list)
    for system_id, (low, high) in ranges.items():
        for number, *blob in connection.exec_driver_sql(_SELECT_NODE_PAGES, (system_id, low, high)):
            pages[system_id, number].append(Blob(*blob))
    return pages


def checked_log(connection: Connection, name: str) -> list[Row[Any]]:
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


def check_seal(name: str, span: Span, row: Row[Any], digests: Sequence[Any]) -> None:
    """Raise where a commit's row or the digests of its pages are not those that were written."""
    values = {name: getattr(row, name) for name in _SEALED}
    try:
        intact = seal(span.uuid, values, digests) == row.seal
    except TypeError:
        intact = False
    if not intact:
        message = f"system {name!r}, commit {row.number}: its row or its pages are not those that were written"
        raise CorruptPackageError(message)


def opened(name: str, span: Span, row: Row[Any], blobs: Sequence[Blob]) -> list[NodeColumns]:
    """The node rows of one commit, once its seal and every digest fit."""
    check_seal(name, span, row, [blob.digest for blob in blobs])
    try:
        return [_columns(blob) for blob in blobs]
    except (CorruptPackageError, KeyError, TypeError) as error:
        message = f"system {name!r}, commit {row.number} is damaged: {error}"
        raise CorruptPackageError(message) from error


def _columns(blob: Blob) -> NodeColumns:
    meta, arrays = unpack(blob)
    return NodeColumns(meta["attr"], arrays["ids"], arrays["versions"], arrays["fixed"], arrays["values"])


def seal(uuid: str, values: Mapping[str, Any], digests: Iterable[bytes]) -> bytes:
    """blake2b-128 over a commit's fields and the digests of its node pages, in their order."""
    text = json.dumps([uuid, dict(values)], sort_keys=True).encode()
    return hashlib.blake2b(b"".join([len(text).to_bytes(8, "little"), text, *digests]), digest_size=16).digest()
