"""An archive into a store: read once whole for its digests, then frame by frame through the gate."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from whiteboard.errors import ArchiveError, CorruptPackageError
from whiteboard.records.reports import Progress
from whiteboard.storage.commits.writers import Writers
from whiteboard.storage.opening import open_database
from whiteboard.storage.page.digests import Laid
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.location import StoreUrl, locate_lasting
from whiteboard.storage.sqlite.file_identity import refuse
from whiteboard.storage.transfer.archive import COMMIT, NODES, PAGE, SYSTEM, Frame, Reader
from whiteboard.storage.transfer.contents import LoggedCommit
from whiteboard.storage.transfer.merge_packages import PackageMerge, Packages
from whiteboard.storage.transfer.merge_systems import SystemMerge, Systems
from whiteboard.storage.transfer.survey import Survey, commit_of, damaged, survey


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: pages read, and what became of packages and systems."""

    pages: int
    packages: Packages
    systems: Systems


def import_archive(url: StoreUrl, path: Path, *, progress: Progress | None = None) -> Imported:
    """Bring an archive's packages and systems into a store, which is created where there is none.

    Nothing that is there is replaced: a key with other bytes is a conflict and stays, and a system of one name with
    another history is kept under a suffix. A call that was killed is made again: it finds what it did and goes on.
    `progress` counts bytes of the archive.

    Raises
    ------
    ArchiveError
        The archive is truncated, altered, of a newer format, or none. The store is as it was.
    ConflictError
        A living process writes one of the systems.
    """
    with _opened(path) as file:
        found = survey(path, file)
        database = open_database(locate_lasting(url), moves=True)
        writers = Writers(database)
        try:
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


def _apply(
    path: Path, file: BinaryIO, found: Survey, database: Database, writers: Writers, progress: Progress | None
) -> Imported:
    packages, histories = PackageMerge(database), SystemMerge(database, writers)
    for system in found.systems:
        if min(system.history, default=0):
            histories.place(system)  # refused before anything is written, where what it goes on from is not there
    file.seek(0)
    reader = Reader(path, file)
    frames = _Frames(reader, progress)
    systems = {system.name: system for system in found.systems}
    for frame in frames:
        if frame.kind == PAGE:
            try:
                packages.add(frame)
            except CorruptPackageError as error:
                raise damaged(path, frame, error) from error
        elif frame.kind == SYSTEM:
            packages.flush()
            system = systems[frame.fields()["name"]]
            histories.add(system, frames.commits(), histories.place(system))
            if histories.counts.damaged:
                name, number, why = histories.counts.damaged[0]
                raise damaged(path, frame, f"system {name!r}, commit {number}: {why}")
    packages.flush()
    return Imported(found.pages, packages.counts, histories.counts)


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
            values, seal, parts = commit_of(frame)
            yield LoggedCommit(values, seal, tuple(self._node_page() for _ in range(parts)))

    def _node_page(self) -> Laid:
        frame = self._next()
        if frame is None or frame.kind != NODES:
            message = f"the archive {self._reader.path} was changed while it was read"
            raise ArchiveError(message)
        return self._reader.laid(frame)
