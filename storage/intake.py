"""An archive into a store: read once whole for its digests, then frame by frame through the gate."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from whiteboard.errors import ArchiveError, CorruptPackageError
from whiteboard.storage import schema
from whiteboard.storage.archive import COMMIT, HEAD, NODES, PAGE, SYSTEM, Frame, Reader
from whiteboard.storage.engine import MOVING_CACHE_KIB, Database
from whiteboard.storage.graft import Graft, Systems
from whiteboard.storage.holdings import LOGGED, Incoming, LoggedCommit, identity
from whiteboard.storage.location import StoreUrl, locate_file
from whiteboard.storage.pages import Blob
from whiteboard.storage.place import refuse
from whiteboard.storage.union import Packages, Union
from whiteboard.storage.writers import Writers

Progress = Callable[[int, int], None]
"""``progress(done, total)``, in bytes of the archive."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: pages read, and what became of packages and systems."""

    pages: int
    packages: Packages
    systems: Systems


@dataclass(slots=True)
class Survey:
    """What an archive holds, once all its digests fit."""

    digest: str
    pages: int = 0
    first: int = 0
    systems: list[Incoming] = field(default_factory=list)


def import_archive(url: StoreUrl, path: Path, *, progress: Progress | None = None) -> Imported:
    """Bring an archive's packages and systems into a store, which is created where there is none.

    Nothing that is there is replaced: a key with other bytes is a conflict and stays, and a system of one name with
    another history is kept under a suffix. A call that was killed is made again: it finds what it did and goes on.

    Raises
    ------
    ArchiveError
        The archive is truncated, altered, of a newer format, or none. The store is as it was.
    ConflictError
        A living process writes one of the systems.
    """
    with _opened(path) as file:
        found = survey(path, file)
        database = Database(locate_file(url), cache_kib=MOVING_CACHE_KIB)
        writers = Writers(database)
        try:
            schema.ensure(database)
            return _apply(path, file, found, database, writers, progress)
        finally:
            try:
                writers.release()
            finally:
                database.close()


def _opened(path: Path) -> BinaryIO:
    refuse(path)
    try:
        # Without waiting: a pipe that nobody writes would be waited for.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)), "rb")
    except OSError as error:
        message = f"cannot read the archive {path}: {error.strerror}"
        raise ArchiveError(message) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        message = f"cannot read the archive {path}: it is not a regular file"
        raise ArchiveError(message)
    return file


def survey(path: Path, file: BinaryIO) -> Survey:
    """Read a whole archive and compare every digest in it; nothing is decoded.

    Raises
    ------
    ArchiveError
    """
    reader = Reader(path, file)
    found = Survey("")
    history: dict[str, dict[int, bytes]] = {}
    name, waiting, done = "", 0, False
    digest = reader.digest.copy()
    for frame in reader.frames():
        if done:
            raise _damaged(path, "something follows its last frame")
        if frame.kind == HEAD and found.first:
            raise _damaged(path, "it has two first frames")
        if waiting and frame.kind != NODES:
            raise _damaged(path, f"node pages are missing before byte {frame.at}")
        if frame.kind == HEAD:
            found.first = frame.end
        elif not found.first:
            raise _damaged(path, "its first frame is missing")
        elif frame.kind == PAGE:
            found.pages += 1
        elif frame.kind == SYSTEM:
            system = _incoming(path, frame, history)
            name = system.name
            found.systems.append(system)
        elif frame.kind == COMMIT:
            values, _, waiting = _commit(path, frame)
            if name not in history or values["number"] in history[name]:
                raise _damaged(path, f"the commit at byte {frame.at} belongs to no system, or is there twice")
            history[name][values["number"]] = identity(values)
        elif frame.kind == NODES:
            waiting -= 1
            if waiting < 0:
                raise _damaged(path, f"the node page at byte {frame.at} belongs to no commit")
        else:
            done = True
            found.digest = str(frame.fields().get("digest"))
            if found.digest != digest.hexdigest():
                raise _damaged(path, "the digest over all of it does not fit")
        digest = reader.digest.copy()
    if not done:
        message = f"the archive {path} is truncated: it ends at byte {reader.size}, without its last frame"
        raise ArchiveError(message)
    return found


def _incoming(path: Path, frame: Frame, history: dict[str, dict[int, bytes]]) -> Incoming:
    fields = frame.fields()
    name, uuid, spec, origin = (fields.get(key) for key in ("name", "uuid", "spec", "origin"))
    if not (isinstance(name, str) and name and name.isprintable() and isinstance(uuid, str)) or name in history:
        raise _damaged(path, f"the system at byte {frame.at} has no name, or one that is there twice")
    known: dict[int, bytes] = {}
    try:
        if origin is not None:
            origin = (str(origin[0]), int(origin[1]))
            if "base" not in fields:
                known.update({number: each for number, each in history[origin[0]].items() if number <= origin[1]})
        if "base" in fields:
            known[int(fields["base"][0])] = bytes.fromhex(fields["base"][1])
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise _damaged(path, f"the system at byte {frame.at} cannot be read: {error!r}") from error
    history[name] = known
    return Incoming(name, uuid, spec if isinstance(spec, str) else None, origin, known)


def _commit(path: Path, frame: Frame) -> tuple[dict[str, Any], bytes, int]:
    fields = frame.fields()
    try:
        values = {name: fields[name] for name in LOGGED}
        seal, parts = bytes.fromhex(fields["seal"]), fields["parts"]
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(path, f"the commit at byte {frame.at} cannot be read") from error
    if type(values["number"]) is not int or type(parts) is not int or parts < 0:
        raise _damaged(path, f"the commit at byte {frame.at} has no number")
    return values, seal, parts


def _apply(
    path: Path, file: BinaryIO, found: Survey, database: Database, writers: Writers, progress: Progress | None
) -> Imported:
    union, graft = Union(database), Graft(database, writers)
    for system in found.systems:
        if min(system.history, default=0):
            graft.place(system)  # refused before anything is written, where what it goes on from is not there
    file.seek(0)
    reader = Reader(path, file)
    frames = _Frames(reader, progress)
    systems = {system.name: system for system in found.systems}
    for frame in frames:
        if frame.kind == PAGE:
            try:
                union.add(frame.blob)
            except CorruptPackageError as error:
                raise _damaged(path, f"the page at byte {frame.at} fails the gate: {error}") from error
        elif frame.kind == SYSTEM:
            union.flush()
            system = systems[frame.fields()["name"]]
            graft.graft(system, frames.commits(), graft.place(system))
            if graft.systems.damaged:
                name, number, why = graft.systems.damaged[0]
                raise _damaged(path, f"system {name!r}, commit {number}: {why}")
    union.flush()
    return Imported(found.pages, union.packages, graft.systems)


class _Frames:
    """The frames of an archive, of which those of a system's commits can be taken as commits."""

    def __init__(self, reader: Reader, progress: Progress | None) -> None:
        self._frames = reader.frames()
        self._reader, self._progress = reader, progress
        self._ahead: Frame | None = None

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        frame, self._ahead = self._ahead, None
        if frame is None:
            frame = next(self._frames, None)
        if frame is not None and self._progress:
            self._progress(frame.end, self._reader.size)
        return frame

    def commits(self) -> Iterator[LoggedCommit]:
        """The commits from here to the next frame of another kind, which stays."""
        while (frame := self._next()) is not None:
            if frame.kind != COMMIT:
                self._ahead = frame
                return
            values, seal, parts = _commit(self._reader.path, frame)
            yield LoggedCommit(values, seal, tuple(self._node_page() for _ in range(parts)))

    def _node_page(self) -> Blob:
        frame = self._next()
        if frame is None or frame.kind != NODES:
            raise _damaged(self._reader.path, "it was changed while it was read")
        return frame.blob


def _damaged(path: Path, why: str) -> ArchiveError:
    return ArchiveError(f"the archive {path} is damaged: {why}")
