"""Systems, commits and node versions in SQLite: one page an arena and commit, and keyframes that bound what is read.

A commit writes the rows that it changed. When the rows written since the last keyframe reach twice the system's
size, or 4,096 commits lie behind it, a commit writes all rows instead. So what `state` reads is bounded, and a
history takes at most half as much again as the changes alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, func, insert, select

from whiteboard.errors import ConflictError, CorruptPackageError, SpecError, UnknownCommitError, UnknownSystemError
from whiteboard.storage import tables as t
from whiteboard.storage.base import CommitRecord, NodeColumns, State, SystemRecord, VersionStore
from whiteboard.storage.engine import Database
from whiteboard.storage.packages import SqlitePackages
from whiteboard.storage.pages import Blob, pack, unpack

KEYFRAME_COMMITS: Final = 4096
KEYFRAME_GROWTH: Final = 2

_SEALED: Final = ("number", "parent", "changed", "stress", "residual_norm", "digest", "rows", "keyframe")
_PART_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class _Span:
    """The commits that a history takes from one system: numbers above `after`, up to `upto`."""

    system_id: int
    uuid: str
    after: int
    upto: int | None


@dataclass(slots=True)
class _Progress:
    """What has been written of a system since its last keyframe, as of commit `head`."""

    head: int
    keyframe_rows: int
    rows: int
    commits: int


class SqliteVersions(VersionStore):
    """Versions in the tables ``system``, ``commit_log`` and ``node_page``; commits carry the pending packages."""

    def __init__(self, database: Database, packages: SqlitePackages) -> None:
        self.database = database
        self.packages = packages
        self._progress: dict[str, _Progress] = {}

    def systems(self) -> list[SystemRecord]:
        with self.database.read() as connection:
            rows = connection.execute(_SYSTEMS.order_by(t.system.c.name)).all()
        return [_record(row) for row in rows]

    def system(self, name: str) -> SystemRecord | None:
        with self.database.read() as connection:
            row = connection.execute(_SYSTEMS.where(t.system.c.name == name)).one_or_none()
        return None if row is None else _record(row)

    def append(
        self,
        system: SystemRecord,
        commit: CommitRecord,
        changed: Sequence[NodeColumns],
        everything: Callable[[], Sequence[NodeColumns]],
    ) -> None:
        expected = 0 if commit.parent is None else commit.parent + 1
        if commit.number != expected:
            message = f"system {system.name!r}: commit {commit.number} cannot follow {commit.parent}"
            raise ConflictError(message)
        progress = self._progress_at(system, commit)
        columns, keyframe = _keyframe(progress, commit, changed, everything)
        rows = sum(len(column.ids) for column in columns)
        blobs = list(_encode(system.uuid, commit.number, columns))
        with self.packages.batch() as batch, self.database.write(durable=True) as connection:
            system_id = self._claim(connection, system, commit)
            batch.write(connection)
            connection.execute(insert(t.commit_log), _log_row(system, system_id, commit, rows, keyframe, blobs))
            if blobs:
                parts = [(system_id, commit.number, part, b.header, b.digest, b.data) for part, b in enumerate(blobs)]
                connection.exec_driver_sql(_INSERT_NODE_PAGE, parts)
        if keyframe:
            progress.keyframe_rows, progress.rows, progress.commits = rows, 0, 0
        else:
            progress.rows += rows
            progress.commits += 1
        progress.head = commit.number
        self._progress[system.uuid] = progress

    def commits(self, name: str) -> list[CommitRecord]:
        with self.database.read() as connection:
            rows = [row for span in self._spans(connection, name, None) for row in _log(connection, span)]
        return [_commit(row) for row in rows]

    def state(self, name: str, number: int | None = None) -> State:
        with self.database.read() as connection:
            rows = _since_keyframe(connection, self._spans(connection, name, number))
            if not rows or (number is not None and rows[-1][1].number != number):
                message = f"system {name!r} has no commit {number}"
                raise UnknownCommitError(message)
            _check_whole(name, [row for _, row in rows])
            pages = _node_pages(connection, rows)
        columns = [each for span, row in rows for each in _opened(name, span, row, pages[span.system_id, row.number])]
        return State(_commit(rows[-1][1]), _latest(columns))

    def fork(self, system: SystemRecord) -> None:
        if system.origin is None:
            message = f"system {system.name!r} names no origin to fork from"
            raise ValueError(message)
        origin, number = system.origin
        with self.database.write(durable=True) as connection:
            spans = self._spans(connection, origin, number)
            holder = next((span for span in reversed(spans) if span.after < number), None)
            if holder is None or not any(row.number == number for row in _log(connection, holder)):
                message = f"system {origin!r} has no commit {number}"
                raise UnknownCommitError(message)
            _create(connection, system, spans[-1].system_id, number)

    def _claim(self, connection: Connection, system: SystemRecord, commit: CommitRecord) -> int:
        """The system's id, once it is certain that the commit follows its head; a first commit creates it."""
        row = connection.execute(_SYSTEMS.where(t.system.c.name == system.name)).one_or_none()
        if commit.parent is None:
            if row is not None:
                message = f"a system {system.name!r} exists already; open it, or take another name"
                raise SpecError(message)
            return _create(connection, system, None, None)
        if row is None:
            message = f"there is no system {system.name!r} for commit {commit.number} to go on"
            raise UnknownSystemError(message)
        own = connection.execute(select(func.max(t.commit_log.c.number)).where(t.commit_log.c.system_id == row.id))
        head = own.scalar()
        head = row.origin_number if head is None else head
        if head != commit.parent or row.uuid != system.uuid:
            what = (
                f"stands at commit {head}, not at {commit.parent}" if row.uuid == system.uuid else "is another one now"
            )
            message = f"system {system.name!r} {what}: another writer moved it on; open it again and go on from there"
            raise ConflictError(message)
        return int(row.id)

    def _progress_at(self, system: SystemRecord, commit: CommitRecord) -> _Progress:
        known = self._progress.get(system.uuid)
        if commit.parent is None:
            return _Progress(-1, 0, 0, 0)
        if known is not None and known.head == commit.parent:
            return known
        with self.database.read() as connection:
            try:
                rows = _since_keyframe(connection, self._spans(connection, system.name, commit.parent))
            except UnknownSystemError:
                rows = []
        keyframe_rows = rows[0][1].rows if rows else 0
        return _Progress(commit.parent, keyframe_rows, sum(row.rows for _, row in rows[1:]), len(rows[1:]))

    def _spans(self, connection: Connection, name: str, number: int | None) -> list[_Span]:
        """The systems that a history runs through, the oldest first, each with its part of the numbers."""
        row = connection.execute(_SYSTEMS.where(t.system.c.name == name)).one_or_none()
        if row is None:
            message = f"the store {self.database.location} holds no system {name!r}"
            raise UnknownSystemError(message)
        spans: list[_Span] = []
        upto = number
        while True:
            after = -1 if row.origin_number is None else row.origin_number
            spans.append(_Span(row.id, row.uuid, after, upto))
            if row.origin_id is None:
                return spans[::-1]
            upto = after if upto is None else min(upto, after)
            row = connection.execute(_SYSTEMS.where(t.system.c.id == row.origin_id)).one()


_INSERT_NODE_PAGE = "INSERT INTO node_page (system_id, number, part, header, digest, data) VALUES (?, ?, ?, ?, ?, ?)"
_SELECT_NODE_PAGES = (
    "SELECT number, header, digest, data FROM node_page WHERE system_id = ? AND number BETWEEN ? AND ? "
    "ORDER BY number, part"
)
_ORIGIN = t.system.alias("origin")
_SYSTEMS = select(t.system, _ORIGIN.c.name.label("origin_name")).select_from(
    t.system.outerjoin(_ORIGIN, t.system.c.origin_id == _ORIGIN.c.id)
)


def _record(row: Row[Any]) -> SystemRecord:
    origin = None if row.origin_name is None else (row.origin_name, row.origin_number)
    return SystemRecord(row.name, row.uuid, None if row.spec is None else json.loads(row.spec), origin)


def _commit(row: Row[Any]) -> CommitRecord:
    return CommitRecord(row.number, row.parent, row.changed, row.stress, row.residual_norm, row.digest)


def _create(connection: Connection, system: SystemRecord, origin_id: int | None, origin_number: int | None) -> int:
    if connection.execute(select(t.system.c.id).where(t.system.c.name == system.name)).first() is not None:
        message = f"a system {system.name!r} exists already; take another name"
        raise SpecError(message)
    spec = None if system.spec is None else json.dumps(dict(system.spec), sort_keys=True)
    values = {
        "name": system.name,
        "uuid": system.uuid,
        "spec": spec,
        "origin_id": origin_id,
        "origin_number": origin_number,
    }
    return int(connection.execute(insert(t.system), values).lastrowid)


def _keyframe(
    progress: _Progress,
    commit: CommitRecord,
    changed: Sequence[NodeColumns],
    everything: Callable[[], Sequence[NodeColumns]],
) -> tuple[Sequence[NodeColumns], bool]:
    """What to write: the changed rows, or all of them as a keyframe."""
    rows = sum(len(column.ids) for column in changed)
    if commit.parent is None:
        return everything(), True
    due = progress.commits + 1 >= KEYFRAME_COMMITS or progress.rows + rows >= KEYFRAME_GROWTH * progress.keyframe_rows
    if due or rows >= progress.keyframe_rows:
        full = everything()
        # A commit that changed every row is a keyframe at no cost.
        if due or sum(len(column.ids) for column in full) == rows:
            return full, True
    return changed, False


def _log_row(
    system: SystemRecord, system_id: int, commit: CommitRecord, rows: int, keyframe: bool, blobs: Sequence[Blob]
) -> dict[str, Any]:
    values = {
        "number": commit.number,
        "parent": commit.parent,
        "changed": commit.changed,
        # SQLite has no NaN: it would come back as NULL, and the seal would not fit.
        "stress": _number(commit.stress),
        "residual_norm": _number(commit.residual_norm),
        "digest": commit.digest,
        "rows": rows,
        "keyframe": int(keyframe),
    }
    return {**values, "system_id": system_id, "seal": _seal(system.uuid, values, [blob.digest for blob in blobs])}


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _seal(uuid: str, values: dict[str, Any], digests: Iterable[bytes]) -> bytes:
    text = json.dumps([uuid, values], sort_keys=True).encode()
    return hashlib.blake2b(b"".join([len(text).to_bytes(8, "little"), text, *digests]), digest_size=16).digest()


def _encode(uuid: str, number: int, columns: Sequence[NodeColumns]) -> Iterator[Blob]:
    for column in columns:
        rows = max(1, _PART_BYTES // max(1, column.values.nbytes // max(1, len(column.ids)) + 17))
        for start in range(0, len(column.ids), rows):
            part = slice(start, start + rows)
            yield pack(
                {"system": uuid, "number": number, "attr": column.attr},
                {
                    "ids": column.ids[part],
                    "versions": column.versions[part],
                    "fixed": column.fixed[part],
                    "values": column.values[part],
                },
            )


def _log(connection: Connection, span: _Span) -> Sequence[Row[Any]]:
    log = t.commit_log
    query = select(log).where(log.c.system_id == span.system_id, log.c.number > span.after)
    if span.upto is not None:
        query = query.where(log.c.number <= span.upto)
    return connection.execute(query.order_by(log.c.number)).all()


def _since_keyframe(connection: Connection, spans: Sequence[_Span]) -> list[tuple[_Span, Row[Any]]]:
    """Commits from the last keyframe on, oldest first."""
    log = t.commit_log
    found: list[tuple[_Span, Row[Any]]] = []
    for span in reversed(spans):
        upto = 2**62 if span.upto is None else span.upto
        inside = (log.c.system_id == span.system_id, log.c.number > span.after, log.c.number <= upto)
        last = connection.execute(select(func.max(log.c.number)).where(*inside, log.c.keyframe == 1)).scalar()
        query = select(log).where(*inside, log.c.number >= (span.after if last is None else last))
        found[:0] = [(span, row) for row in connection.execute(query.order_by(log.c.number))]
        if last is not None:
            break
    return found


def _check_whole(name: str, rows: Sequence[Row[Any]]) -> None:
    """Raise where a commit is missing between a keyframe and the last commit."""
    numbers = [row.number for row in rows]
    if not rows[0].keyframe or numbers != list(range(numbers[0], numbers[-1] + 1)):
        message = f"system {name!r}: commits are missing between {numbers[0]} and {numbers[-1]}"
        raise CorruptPackageError(message)


def _node_pages(connection: Connection, rows: Sequence[tuple[_Span, Row[Any]]]) -> dict[tuple[int, int], list[Blob]]:
    """The node pages of commits, by system and number: one query a system."""
    ranges: dict[int, tuple[int, int]] = {}
    for span, row in rows:
        ranges[span.system_id] = (ranges.get(span.system_id, (row.number,))[0], row.number)
    pages: dict[tuple[int, int], list[Blob]] = defaultdict(list)
    for system_id, (low, high) in ranges.items():
        for number, *blob in connection.exec_driver_sql(_SELECT_NODE_PAGES, (system_id, low, high)):
            pages[system_id, number].append(Blob(*blob))
    return pages


def _opened(name: str, span: _Span, row: Row[Any], blobs: Sequence[Blob]) -> list[NodeColumns]:
    """The node rows of one commit, once its seal and every digest fit."""
    values = {name: getattr(row, name) for name in _SEALED}
    if _seal(span.uuid, values, [blob.digest for blob in blobs]) != row.seal:
        message = f"system {name!r}, commit {row.number}: its row or its pages are not those that were written"
        raise CorruptPackageError(message)
    try:
        return [_columns(blob) for blob in blobs]
    except (CorruptPackageError, KeyError, TypeError) as error:
        message = f"system {name!r}, commit {row.number} is damaged: {error}"
        raise CorruptPackageError(message) from error


def _columns(blob: Blob) -> NodeColumns:
    meta, arrays = unpack(blob)
    return NodeColumns(meta["attr"], arrays["ids"], arrays["versions"], arrays["fixed"], arrays["values"])


def _latest(columns: Sequence[NodeColumns]) -> list[NodeColumns]:
    """The last row of each (attribute, node): arenas by attribute, shape and dtype, their rows by ascending id."""
    arenas: dict[tuple[Any, ...], list[tuple[int, NodeColumns]]] = {}
    for order, column in enumerate(columns):
        key = (column.attr, column.values.shape[1:], column.values.dtype.str)
        arenas.setdefault(key, []).append((order, column))
    last = _last_places(columns)
    made = []
    for (attr, *_), members in sorted(arenas.items(), key=lambda item: item[0]):
        ids = np.concatenate([column.ids for _, column in members])
        place = np.concatenate([_places(order, len(column.ids)) for order, column in members])
        wanted_ids, wanted = last[attr]
        keep = np.flatnonzero(wanted[np.searchsorted(wanted_ids, ids)] == place)
        keep = keep[np.argsort(ids[keep])]
        if len(keep):
            made.append(
                NodeColumns(
                    attr,
                    *(
                        _frozen(np.concatenate([getattr(column, name) for _, column in members])[keep])
                        for name in ("ids", "versions", "fixed", "values")
                    ),
                )
            )
    return made


def _last_places(columns: Sequence[NodeColumns]) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each attribute, its node ids in order and the place where each was written last."""
    places: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    for attr in {column.attr for column in columns}:
        members = [(order, column.ids) for order, column in enumerate(columns) if column.attr == attr]
        ids = np.concatenate([mine for _, mine in members])
        place = np.concatenate([_places(order, len(mine)) for order, mine in members])
        unique, inverse = np.unique(ids, return_inverse=True)
        last = np.full(len(unique), -1, np.int64)
        np.maximum.at(last, inverse, place)
        places[attr] = unique, last
    return places


def _places(order: int, n: int) -> NDArray[np.int64]:
    return (np.int64(order) << 32) + np.arange(n, dtype=np.int64)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
