"""Systems into a store that may hold some of them: a history that is there goes on, another one is kept beside it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Final

from whiteboard.errors import ConflictError, CorruptPackageError, UnknownCommitError
from whiteboard.storage.commits.log import LAST_OWN, add_commits, add_system, by_name, seal
from whiteboard.storage.commits.sealed import Sealed
from whiteboard.storage.commits.writers import Writers
from whiteboard.storage.page import row_checks
from whiteboard.storage.page.digests import is_intact
from whiteboard.storage.page.format import Packed, moved
from whiteboard.storage.sql.backend import Connection, Database, rows_of
from whiteboard.storage.transfer.contents import Incoming, LoggedCommit, identities

BATCH_BYTES: Final = 4 * 2**20
BATCH_COMMITS: Final = 256


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a system goes: the name it has in the store, its uuid there, and the last commit that is there already."""

    name: str
    uuid: str
    head: int
    exists: bool


@dataclass(slots=True)
class Systems:
    """What became of the systems that were offered."""

    created: list[str] = field(default_factory=list)
    extended: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    """Name in the source to name here, where a system of that name has another history."""
    commits: int = 0
    damaged: list[tuple[str, int, str]] = field(default_factory=list)
    """Name, number and reason of each commit at which a history had to be left."""


class SystemMerge:
    """Takes systems into one store; `systems` counts. A system must come after what it was forked from."""

    def __init__(self, database: Database, writers: Writers) -> None:
        self._database, self._writers = database, writers
        self._placed: dict[str, str] = {}
        self.counts = Systems()

    def place(self, system: Incoming) -> Placement:
        """Find the system of this history in the store, or a name for it.

        A system of the same name whose history is the same as far as both go is the same system: what it lacks is
        added to it. Otherwise the name gets the suffix ``~1``, ``~2``, … As another store may have named this very
        system so, names that differ in such suffixes only count as the same.

        Raises
        ------
        UnknownCommitError
            The history begins after its first commit, and the store has no system that stands there.
        """
        with self._database.read() as connection:
            rows = {row.name: row for row in connection.exec_driver_sql("SELECT name, uuid, spec FROM system")}
            alike = sorted((name for name in rows if _base(name) == _base(system.name)), key=len)
            for name in sorted(alike, key=lambda name: name != system.name):  # its own name before the others
                ours = identities(connection, name)
                if _agree(ours, system, rows[name].spec):
                    self._place_as(system, name)
                    return Placement(name, rows[name].uuid, max(ours, default=-1), exists=True)
            return self._new(connection, system, next(name for name in _candidates(system.name) if name not in rows))

    def accepts(self, system: Incoming) -> bool:
        """Whether a system is one that a store holds; one that is not is counted as damaged."""
        try:
            row_checks.system(system.name, system.uuid, system.spec, system.origin)
        except ValueError as error:
            self.counts.damaged.append((str(system.name), 0, str(error)))
            return False
        return True

    def add(self, system: Incoming, commits: Iterable[LoggedCommit], where: Placement) -> None:
        """Write the commits that the store lacks, in bounded transactions; each passes its seal and the gate first.

        Raises
        ------
        ConflictError
            A living process writes the system, or has moved it on meanwhile.
        """
        if why := self._rootless(system, where):
            self.counts.damaged.append((system.name, where.head + 1, why))
            return
        fresh = (commit for commit in commits if commit.number > where.head)
        written, system_id = 0, None
        for batch in self._batches(system, fresh, where):
            if system_id is None:
                self._writers.claim(where.name)
            append = partial(self._append, system, where, where.head + written, batch)
            system_id = self._database.write(append, durable=True)
            written += len(batch)
        if system_id is None and not where.exists and system.origin is not None:
            self._database.write(partial(self._append, system, where, where.head, ()), durable=True)
        self._count(where, written)

    def _append(
        self, system: Incoming, where: Placement, head: int, batch: Sequence[LoggedCommit], connection: Connection
    ) -> int:
        system_id = self._begin(connection, system, where, head)
        if batch:
            _insert(connection, system_id, batch)
        return system_id

    def _rootless(self, system: Incoming, where: Placement) -> str:
        """Say that the commit is not there from which a new fork goes on, or return an empty string."""
        if where.exists or system.origin is None:
            return ""
        origin, number = system.origin
        with self._database.read() as connection:
            name = self._placed.get(origin, origin)
            there = by_name(connection, name)
            if there is not None and number in identities(connection, name):
                return ""
        return f"commit {number} of {origin!r}, from which it was forked, is not there"

    def _count(self, where: Placement, written: int) -> None:
        self.counts.commits += written
        kind = self.counts.created if not where.exists else self.counts.extended
        (kind if written or not where.exists else self.counts.unchanged).append(where.name)

    def _batches(
        self, system: Incoming, commits: Iterator[LoggedCommit], where: Placement
    ) -> Iterator[list[LoggedCommit]]:
        batch: list[LoggedCommit] = []
        nbytes = 0
        expected = where.head + 1
        for commit in commits:
            why = damage(system.uuid, commit) if commit.number == expected else f"commit {expected} is missing"
            if why:
                self.counts.damaged.append((system.name, expected, why))
                break
            batch.append(_adopted(commit, system.uuid, where.uuid))
            nbytes += commit.nbytes
            expected += 1
            if nbytes >= BATCH_BYTES or len(batch) >= BATCH_COMMITS:
                yield batch
                batch, nbytes = [], 0
        if batch:
            yield batch

    def _new(self, connection: Connection, system: Incoming, name: str) -> Placement:
        first = min(system.history, default=0)
        if first:
            message = (
                f"the commits of system {system.name!r} begin after {first}, and the store has no system that "
                f"stands there: bring its earlier commits first"
            )
            raise UnknownCommitError(message)
        head = -1 if system.origin is None else system.origin[1]
        self._place_as(system, name)
        taken = connection.exec_driver_sql("SELECT id FROM system WHERE uuid = ?", (system.uuid,)).first()
        return Placement(name, _other_uuid(system.uuid, name) if taken else system.uuid, head, exists=False)

    def _place_as(self, system: Incoming, name: str) -> None:
        self._placed[system.name] = name
        if name != system.name:
            self.counts.renamed[system.name] = name

    def _begin(self, connection: Connection, system: Incoming, where: Placement, head: int) -> int:
        """The system's id, once it is certain that the next commit follows its head."""
        row = by_name(connection, where.name)
        if row is None and not where.exists and head == where.head:
            return self._create(connection, system, where)
        stands = None if row is None else connection.exec_driver_sql(LAST_OWN, (row.id,)).scalar()
        if row is not None and stands is None:
            stands = -1 if row.origin_number is None else row.origin_number
        if row is None or stands != head or row.uuid != where.uuid:
            message = f"system {where.name!r} stands at commit {stands}, not at {head}: another writer moved it on"
            raise ConflictError(message)
        return int(row.id)

    def _create(self, connection: Connection, system: Incoming, where: Placement) -> int:
        values: dict[str, Any] = {"name": where.name, "uuid": where.uuid, "spec": system.spec}
        if system.origin is not None:
            origin, number = system.origin
            row = by_name(connection, self._placed.get(origin, origin))
            values |= {"origin_id": None if row is None else row.id, "origin_number": number}
        return add_system(connection, values)


def damage(uuid: str, commit: LoggedCommit) -> str:
    """Say what is wrong with a commit of a system, or return an empty string."""
    try:
        sealed = Sealed(uuid, commit.values, commit.seal)
        for blob in commit.blobs:
            if not is_intact(blob):
                return "the digest of a node page does not fit it"
            sealed.add(blob)
        sealed.close()
    except (CorruptPackageError, TypeError) as error:
        return str(error)
    return ""


def _candidates(name: str) -> Iterator[str]:
    yield name
    yield from (f"{_base(name)}~{number}" for number in count(1))


def _base(name: str) -> str:
    """A name without the suffixes that `SystemMerge.place` gives."""
    return re.sub(r"(?<=.)(~\d+)+$", "", name)


def _agree(ours: Mapping[int, bytes], system: Incoming, spec: str | None) -> bool:
    """Whether two histories are one, as far as both go."""
    both = ours.keys() & system.history.keys()
    joined = bool(both) or (not ours and not system.history)
    return (
        joined and _read(spec) == _read(system.spec) and all(ours[number] == system.history[number] for number in both)
    )


def _read(spec: str | None) -> Any:
    try:
        return None if spec is None else row_checks.read_json(spec)
    except ValueError:
        return spec  # a damaged row of the store is like no other


def _other_uuid(uuid: str, name: str) -> str:
    return hashlib.blake2b(f"{uuid} as {name}".encode(), digest_size=16).hexdigest()


def _adopted(commit: LoggedCommit, uuid: str, new: str) -> LoggedCommit:
    """The commit as one of the system `new`: the uuid stands in its pages' headers and under its seal."""
    if uuid == new:
        return commit
    blobs = []
    for blob in commit.blobs:
        fields = json.loads(blob.header)
        header = json.dumps({**fields, "system": new}, separators=(",", ":")).encode()
        blobs.append(moved(blob, header))
    return LoggedCommit(commit.values, seal(new, commit.values, [blob.digest for blob in blobs]), tuple(blobs))


def _insert(connection: Connection, system_id: int, batch: Sequence[LoggedCommit]) -> None:
    add_commits(connection, system_id, [{**commit.values, "seal": commit.seal} for commit in batch])
    for commit in batch:
        for part, blob in enumerate(commit.blobs):
            page = Packed(blob.header, blob.digest, (blob.data,))
            rows_of(connection).insert_node_page(connection, (system_id, commit.number, part), page)
