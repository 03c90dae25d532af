"""Systems, commits and node versions in SQLite: one page an arena and commit, and keyframes that bound what is read.

A commit writes the rows that it changed. When the rows written since the last keyframe reach twice the system's
size, or 4,096 commits lie behind it, a commit writes all rows instead. So what `state` reads is bounded, and a
history takes at most half as much again as the changes alone.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from whiteboard.errors import (
    ConflictError,
    DtypeError,
    SpecError,
    StoreError,
    UnansweredError,
    UnknownCommitError,
    UnknownSystemError,
)
from whiteboard.records.systems import CommitRecord, NodeColumns, State, SystemRecord
from whiteboard.storage.base import VersionStore
from whiteboard.storage.cache.packages import SqlitePackages
from whiteboard.storage.commits.log import (
    LAST_OWN,
    SEALED,
    SYSTEMS,
    add_commits,
    add_system,
    by_name,
    check_head,
    check_whole,
    checked_log,
    commit_of,
    log_of,
    node_pages,
    opened,
    record_of,
    seal,
    since_keyframe,
    spans_of,
)
from whiteboard.storage.commits.materialize import latest
from whiteboard.storage.commits.writers import Writers
from whiteboard.storage.page import row_checks
from whiteboard.storage.page.format import Packed, pack
from whiteboard.storage.sql.backend import Connection, Database, rows_of
from whiteboard.storage.sql.rows import Batch

KEYFRAME_COMMITS: Final = 4096
KEYFRAME_GROWTH: Final = 2

_PART_BYTES = 32 * 2**20
_NAMES: Final = 256
_SEAL = "SELECT seal FROM commit_log WHERE system_id = ? AND number = ?"


@dataclass(slots=True)
class _Progress:
    """What has been written of a system since its last keyframe, as of commit `head`."""

    head: int
    keyframe_rows: int
    rows: int
    commits: int


class SqliteVersions(VersionStore):
    """Versions in the tables ``system``, ``commit_log`` and ``node_page``; commits carry the pending packages."""

    def __init__(self, database: Database, packages: SqlitePackages, writers: Writers) -> None:
        self.database = database
        self.writers = writers
        self.packages = packages
        self._progress: dict[str, _Progress] = {}

    def systems(self) -> list[SystemRecord]:
        with self.database.read() as connection:
            rows = connection.exec_driver_sql(f"{SYSTEMS} ORDER BY system.name").all()
        return [record_of(row) for row in rows]

    def names(self) -> Iterator[str]:
        with self.database.read() as connection:
            ids = array("q", connection.exec_driver_sql("SELECT id FROM system ORDER BY name").scalars())
        for start in range(0, len(ids), _NAMES):
            some = ",".join(map(str, ids[start : start + _NAMES]))
            with self.database.read() as connection:
                rows = connection.exec_driver_sql(f"SELECT name FROM system WHERE id IN ({some}) ORDER BY name").all()
            yield from (str(row.name) for row in rows)

    def system(self, name: str) -> SystemRecord | None:
        with self.database.read() as connection:
            row = by_name(connection, name)
        return None if row is None else record_of(row)

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
        pages = list(_encode(system.uuid, commit.number, columns))
        log = _log_row(system, commit, rows, keyframe, pages)
        try:
            self.packages.flushed(lambda batch: self._write(system, commit, log, pages, batch))
        except UnansweredError:
            raise
        except StoreError:
            if not self.packages.pending:
                raise
            # Packages that cannot be written, for want of room or for damage, must not keep a commit from it.
            self._write(system, commit, log, pages, None)
        if keyframe:
            progress.keyframe_rows, progress.rows, progress.commits = rows, 0, 0
        else:
            progress.rows += rows
            progress.commits += 1
        progress.head = commit.number
        self._progress[system.uuid] = progress

    def _write(
        self,
        system: SystemRecord,
        commit: CommitRecord,
        log: Mapping[str, Any],
        pages: Sequence[Packed],
        batch: Batch | None,
    ) -> None:
        def written(connection: Connection) -> None:
            system_id = self._advanced(connection, system, commit)
            if batch is not None:
                batch.write(connection)
            if system_id is None:
                there = _is_head(connection, system, commit, log["seal"])
                if commit.parent is not None or not there:
                    self.writers.check(connection, system.name)  # of two that write the same one is refused
                if there:
                    return  # an earlier call, or run, wrote it and was not told
                system_id = self._claim(connection, system, commit)
            add_commits(connection, system_id, [log])
            for part, page in enumerate(pages):
                rows_of(connection).insert_node_page(connection, (system_id, commit.number, part), page)

        self.database.write(written, durable=True)

    def commits(self, name: str) -> list[CommitRecord]:
        with self.database.read() as connection:
            return [commit_of(row) for row in checked_log(connection, name)]

    def state(self, name: str, number: int | None = None) -> State:
        with self.database.read() as connection:
            spans = spans_of(connection, name, number)
            rows = since_keyframe(connection, spans)
            if number is None:
                check_head(name, spans, rows[-1][1].number if rows else -1)
            if not rows or (number is not None and rows[-1][1].number != number):
                message = f"system {name!r} has no commit {number}"
                raise UnknownCommitError(message)
            check_whole(name, [row for _, row in rows])
            pages = node_pages(connection, rows)
        columns = [each for span, row in rows for each in opened(name, span, row, pages[span.system_id, row.number])]
        return State(commit_of(rows[-1][1]), latest(columns))

    def fork(self, system: SystemRecord) -> None:
        if system.origin is None:
            message = f"system {system.name!r} names no origin to fork from"
            raise ValueError(message)
        origin, number = system.origin

        def forked(connection: Connection) -> None:
            spans = spans_of(connection, origin, number)
            holder = next((span for span in reversed(spans) if span.after < number), None)
            if holder is None or not any(row.number == number for row in log_of(connection, holder)):
                message = f"system {origin!r} has no commit {number}"
                raise UnknownCommitError(message)
            made = by_name(connection, system.name)
            if made is None or made.uuid != system.uuid:  # else by an earlier run of this
                _create(connection, system, spans[-1].system_id, number)

        self.database.write(forked, durable=True)

    def _advanced(self, connection: Connection, system: SystemRecord, commit: CommitRecord) -> int | None:
        """The system's id where one statement has moved its head on; None where more has to be looked at, or said."""
        if commit.parent is None:
            return None
        token = self.writers.token_of(system.name)
        return rows_of(connection).advance(connection, (system.name, system.uuid), commit.number, token)

    def _claim(self, connection: Connection, system: SystemRecord, commit: CommitRecord) -> int:
        """The system's id, once it is certain that the commit follows its head; a first commit creates it."""
        row = by_name(connection, system.name)
        if commit.parent is None:
            if row is not None:
                message = f"a system {system.name!r} exists already; open it, or take another name"
                raise SpecError(message)
            return _create(connection, system, None, None)
        if row is None:
            message = f"there is no system {system.name!r} for commit {commit.number} to go on"
            raise UnknownSystemError(message)
        head = connection.exec_driver_sql(LAST_OWN, (row.id,)).scalar()
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
                rows = since_keyframe(connection, spans_of(connection, system.name, commit.parent))
            except UnknownSystemError:
                rows = []
        keyframe_rows = rows[0][1].rows if rows else 0
        return _Progress(commit.parent, keyframe_rows, sum(row.rows for _, row in rows[1:]), len(rows[1:]))


def _is_head(connection: Connection, system: SystemRecord, commit: CommitRecord, sealed: bytes) -> bool:
    """Whether this very commit is the head."""
    row = by_name(connection, system.name)
    if row is None or (row.uuid, row.head) != (system.uuid, commit.number):
        return False
    return bool(connection.exec_driver_sql(_SEAL, (row.id, commit.number)).scalar() == sealed)


def _create(connection: Connection, system: SystemRecord, origin_id: int | None, origin_number: int | None) -> int:
    if connection.exec_driver_sql("SELECT id FROM system WHERE name = ?", (system.name,)).first() is not None:
        message = f"a system {system.name!r} exists already; take another name"
        raise SpecError(message)
    spec = None if system.spec is None else json.dumps(dict(system.spec), sort_keys=True)
    try:
        row_checks.system(system.name, system.uuid, spec)
    except ValueError as error:
        message = f"system {system.name!r} cannot be stored: {error}"
        raise SpecError(message) from error
    values = {
        "name": system.name,
        "uuid": system.uuid,
        "spec": spec,
        "origin_id": origin_id,
        "origin_number": origin_number,
    }
    return add_system(connection, values)


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
    system: SystemRecord, commit: CommitRecord, rows: int, keyframe: bool, pages: Sequence[Packed]
) -> dict[str, Any]:
    # SQLite has no NaN: it would come back as NULL, and the seal would not fit.
    stress, residual_norm = _number(commit.stress), _number(commit.residual_norm)
    said = (commit.number, commit.parent, commit.changed, stress, residual_norm, commit.digest, rows, int(keyframe))
    values = dict(zip(SEALED, said, strict=True))
    return {**values, "seal": seal(system.uuid, values, [page.digest for page in pages])}


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _encode(uuid: str, number: int, columns: Sequence[NodeColumns]) -> Iterator[Packed]:
    for column in columns:
        if column.values.dtype.kind not in "biufc":
            message = f"node attribute {column.attr!r}: dtype {column.values.dtype} cannot be stored"
            raise DtypeError(message)
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
