"""A store, or some of it, into one archive: page by page, and from where it was stopped."""

from __future__ import annotations

import errno
import hashlib
import json
import reprlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from whiteboard.errors import ArchiveError, CorruptPackageError, ParamError, UnknownCommitError, UnknownSystemError
from whiteboard.records.reports import Progress
from whiteboard.storage.opening import open_database
from whiteboard.storage.page import page_checks, row_checks
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.location import StoreUrl, locate_lasting
from whiteboard.storage.sql.rows import laid, ops_of
from whiteboard.storage.sqlite import part_files, schema
from whiteboard.storage.transfer import archive, contents
from whiteboard.storage.transfer.archive import COMMIT, DONE, HEAD, NODES, PAGE, SYSTEM, Reader, Writer
from whiteboard.storage.transfer.contents import Incoming
from whiteboard.storage.transfer.merge_systems import damage

ALL: Final = "*"
"""As the name of an op or a system: every one."""

_RESUMED_BY: Final = ("source", "systems", "ops", "since", "schema")
"""What an export that goes on with another's file has in common with it."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an archive holds. `damaged` pages of the store failed their digest and were left out."""

    path: Path
    pages: int
    packages: int
    systems: int
    commits: int
    nbytes: int
    damaged: int
    resumed: bool
    digest: str


@dataclass(slots=True)
class _Written:
    """How far a file goes that was left half written: the end of what counts, and what is in it."""

    end: int
    page: int = 0
    pages: int = 0
    packages: int = 0
    commits: int = 0
    damaged: int = 0
    systems: dict[str, int] | None = None


def export(
    url: StoreUrl,
    path: Path,
    *,
    systems: Collection[str] = (),
    ops: Collection[str] = (),
    since: int | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write an archive of a store that others may go on using.

    It grows as a file of its own beside it, ``<path>.….part``, and gets its name when it is whole and on its disk.
    Called again after a crash, by the same user and with the same arguments, it goes on from the last whole frame.

    Parameters
    ----------
    url : str or path
        The store; nothing is written to it.
    path : Path
        The archive, which must not exist.
    systems, ops : collections of str
        What to export: systems (with those that they were forked from), and packages of these ops; ``"*"`` for all.
        Naming neither exports everything, naming only one of them nothing of the other.
    since : int, optional
        Only commits after this one; with exactly one system.
    progress : callable, optional
        In pages and commits.

    Raises
    ------
    ArchiveError
        The file exists, or cannot be written.
    UnknownSystemError, UnknownCommitError, ParamError
        A name that the store does not have.
    CorruptPackageError
        A system is damaged: an archive of it could not be imported. What is written may be gone on with.
    """
    if not systems and not ops:
        systems = ops = (ALL,)
    if path.exists() or path.is_symlink():
        message = f"cannot write the archive {path}: it exists; remove it, or name another path"
        raise ArchiveError(message)
    database = open_database(locate_lasting(url), readonly=True)
    try:
        head, chosen, pages = _plan(database, systems, ops, since)
        part = path
        try:
            part, file = part_files.open_part(path, _same(head))
            with file:
                return _write(database, file, part, path, head, chosen, pages, progress)
        except OSError as error:
            if isinstance(error, ArchiveError) or error.errno is None:
                raise
            raise _refusal(part, error) from error
    finally:
        database.close()


def _plan(
    database: Database, systems: Collection[str], ops: Collection[str], since: int | None
) -> tuple[dict[str, Any], list[Incoming], list[int]]:
    """The first frame, the systems and the pages of an archive."""
    with database.read() as connection:
        known = contents.incoming(connection)
        held = set(ops_of(connection))
        pages = contents.page_ids(connection, None if ALL in ops else ops)
        last = pages[-1] if pages else 0
        layout = contents.layout(connection, None if ALL in ops else ops, last)
    by_name = {system.name: system for system in known}
    wanted = set(by_name) if ALL in systems else set(systems)
    if missing := sorted(wanted - by_name.keys()):
        message = f"{database.location} has no system {missing[0]!r}; it has {', '.join(by_name) or 'none'}"
        raise UnknownSystemError(message)
    if missing := sorted(set(ops) - held - {ALL}):
        message = (
            f"{database.location} has no packages of op {missing[0]!r}; it has {', '.join(sorted(held)) or 'none'}"
        )
        raise ParamError(message)
    if since is not None:
        if len(wanted) != 1 or ALL in systems:
            message = "--since says from which commit of one system on: name that system"
            raise ParamError(message)
        (name,) = wanted
        if since not in by_name[name].history:
            message = f"system {name!r} has no commit {since}"
            raise UnknownCommitError(message)
    else:
        for name in list(wanted):
            while (origin := by_name[name].origin) is not None:
                name = origin[0]
                wanted.add(name)
    chosen = [system for system in known if system.name in wanted]
    head = {
        "source": _source(database),
        "systems": sorted(systems),
        "ops": sorted(ops),
        "since": since,
        "schema": schema.HEAD,
        "heads": {system.name: max(system.history, default=-1) for system in chosen},
        "last_page": last,
        "layout": layout,
    }
    return head, chosen, pages


def _source(database: Database) -> str:
    """A name for the store that holds nothing of where it is."""
    path = database.location.path
    info = None if path is None else path.stat()
    text = f"{path} {info and (info.st_dev, info.st_ino)}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _same(head: Mapping[str, Any]) -> str:
    """What two exports of which one may go on with what the other wrote have in common, as 16 hexadecimal digits."""
    said = json.dumps([head[name] for name in _RESUMED_BY], separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(said.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _write(
    database: Database,
    file: BinaryIO,
    part: Path,
    path: Path,
    head: dict[str, Any],
    chosen: list[Incoming],
    pages: list[int],
    progress: Progress | None,
) -> Exported:
    written = _resumed(part, file, head)
    resumed = written is not None
    if written is None:
        file.seek(0)
        file.truncate()
        writer = Writer(file, archive.whole_digest())
        writer.start()
        writer.fields(HEAD, archive.FORMAT, head)
        written = _Written(writer.nbytes)
    else:
        # What was half written goes; what the first call saw of the store is what the archive holds.
        head = _head_of(part, file)
        digest = archive.digest_up_to(file, written.end)
        file.seek(written.end)
        file.truncate()
        writer = Writer(file, digest)
    written.systems = written.systems or {}
    heads: dict[str, int] = head["heads"]
    pages = [page_id for page_id in pages if page_id <= head["last_page"]]
    total = len(pages) + sum(heads.values()) + len(heads)
    for done, page_id in enumerate(pages, 1):
        if page_id > written.page:
            _write_page(database, writer, page_id, written)
            if progress:
                progress(done, total)
    for page_id in _later(database, head):
        if page_id > written.page:
            _write_page(database, writer, page_id, written)
    for system in chosen:
        if system.name in heads:
            _write_system(database, writer, system, heads[system.name], head["since"], written)
            if progress:
                progress(min(len(pages) + written.commits, total), total)
    counts = {
        "pages": written.pages,
        "packages": written.packages,
        "systems": len(written.systems),
        "commits": written.commits,
        "damaged": written.damaged,
    }
    writer.done(counts)
    digest = archive.digest_up_to(file, writer.nbytes).hexdigest()
    part_files.name(part, path)
    return Exported(path, **counts, nbytes=writer.nbytes, resumed=resumed, digest=digest)


def _later(database: Database, head: Mapping[str, Any]) -> list[int]:
    """Pages made since the plan, where what was planned may lie in them now."""
    ops = None if ALL in head["ops"] else head["ops"]
    with database.read() as connection:
        if contents.layout(connection, ops, head["last_page"]) == head.get("layout"):
            return []
        return contents.page_ids(connection, ops, head["last_page"])


def _write_page(database: Database, writer: Writer, page_id: int, written: _Written) -> None:
    with database.read() as connection, laid(connection, page_id) as page:
        if page is None:
            return  # evicted since the plan was made
        try:
            rows = page_checks.checked(page)
        except CorruptPackageError:
            written.damaged += 1
            return
        writer.blob(PAGE, page_id, page)
    written.pages += 1
    written.packages += rows


def _write_system(
    database: Database, writer: Writer, system: Incoming, upto: int, since: int | None, written: _Written
) -> None:
    names = written.systems if written.systems is not None else {}
    after = -1 if since is None else since
    if system.name not in names:
        try:
            row_checks.system(system.name, system.uuid, system.spec, system.origin)
        except ValueError as error:
            message = f"system {reprlib.repr(system.name)}: its row is damaged: {error}"
            raise CorruptPackageError(message) from error
        fields: dict[str, Any] = {
            "name": system.name,
            "uuid": system.uuid,
            "spec": system.spec,
            "origin": system.origin,
        }
        if since is not None:
            fields["base"] = [since, system.history[since].hex()]
        writer.fields(SYSTEM, 0, fields)
        names[system.name] = after
    for commit in contents.own_commits(database, system.name, names[system.name], upto):
        if why := damage(system.uuid, commit):
            message = (
                f"system {system.name!r}, commit {commit.number} is damaged: {why}; name what to export without it"
            )
            raise CorruptPackageError(message)
        fields = {**commit.values, "seal": commit.seal.hex(), "parts": len(commit.blobs)}
        writer.fields(COMMIT, commit.number, fields)
        for part, blob in enumerate(commit.blobs):
            writer.blob(NODES, part, blob)
        written.commits += 1
    names[system.name] = upto


def _resumed(part: Path, file: BinaryIO, head: Mapping[str, Any]) -> _Written | None:
    """How far an earlier call came with the same export, None where there is nothing to go on from."""
    file.seek(0)
    written: _Written | None = None
    name, waiting = "", 0
    with suppress(ArchiveError, ValueError):
        # The first frame that is cut short ends what counts.
        for frame in Reader(part, file).frames():
            if frame.kind == HEAD:
                said = frame.fields()
                if any(said.get(name) != head[name] for name in _RESUMED_BY):
                    return None
                written = _Written(frame.end, systems={})
                continue
            if written is None or written.systems is None or frame.kind == DONE:
                break
            if frame.kind == PAGE:
                written.page, written.pages = frame.number, written.pages + 1
                written.packages += int(frame.fields()["n"])
            elif frame.kind == SYSTEM:
                name = frame.fields()["name"]
                written.systems[name] = -1 if head["since"] is None else head["since"]
            elif frame.kind == COMMIT:
                number, waiting = frame.number, frame.fields()["parts"]
            else:
                waiting -= 1
            if not waiting:
                if frame.kind in (COMMIT, NODES):
                    written.systems[name] = number
                    written.commits += 1
                written.end = frame.end
    return written


def _head_of(part: Path, file: BinaryIO) -> dict[str, Any]:
    file.seek(0)
    return next(Reader(part, file).frames()).fields()


def _refusal(part: Path, error: OSError) -> ArchiveError:
    why = {
        errno.ENOSPC: "there is no room left on its disk; make room",
        errno.EDQUOT: "its quota is used up; make room",
        errno.EFBIG: "it may not grow any further; make room",
    }.get(error.errno or 0)
    again = f" and run the same command again: it goes on from {part}" if why else ""
    return ArchiveError(f"cannot write the archive {part}: {why or error.strerror}{again}")
