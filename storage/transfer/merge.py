"""Stores into a store: the union of packages and systems, in bounded transactions; merging twice changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from whiteboard.errors import CorruptPackageError, StoreError
from whiteboard.records.reports import Progress
from whiteboard.storage.commits.writers import Writers
from whiteboard.storage.opening import open_database
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.location import StoreUrl, locate_lasting
from whiteboard.storage.sql.rows import laid
from whiteboard.storage.sqlite.file_identity import same_file
from whiteboard.storage.transfer import contents
from whiteboard.storage.transfer.merge_packages import PackageMerge, Packages
from whiteboard.storage.transfer.merge_systems import SystemMerge, Systems


@dataclass(frozen=True, slots=True)
class Merged:
    """What one store gave: pages read, pages that failed the gate, and what became of packages and systems."""

    source: str
    pages: int
    damaged: int
    packages: Packages
    systems: Systems


def merge(into: StoreUrl, sources: Sequence[StoreUrl], *, progress: Progress | None = None) -> list[Merged]:
    """Bring the packages and systems of other stores into one, which is created where there is none.

    Nothing that is there is replaced. A merge that was killed is made again: it finds what it did and goes on.

    Parameters
    ----------
    into : str or path
    sources : sequence of str or path
        Stores at this version's schema; nothing is written to them, and others may go on using them.
    progress : callable, optional
        In pages and systems of one source.

    Raises
    ------
    StoreError, SchemaError
        One of them cannot be opened, or is `into` itself. Nothing is written then.
    ConflictError
        A living process writes one of the systems.
    """
    target = locate_lasting(into)
    opened: list[Database] = []
    try:
        for source in sources:
            location = locate_lasting(source)
            if location == target or same_file(location.path, target.path):
                message = f"cannot merge {location} into {target}: they are one store; name another"
                raise StoreError(message)
            opened.append(open_database(location, readonly=True))
        database = open_database(target, moves=True)
        opened.append(database)
        writers = Writers(database)
        try:
            return [_merge(database, writers, source, progress) for source in opened[:-1]]
        finally:
            writers.release()
    finally:
        for each in opened:
            each.close()


def _merge(database: Database, writers: Writers, source: Database, progress: Progress | None) -> Merged:
    with source.read() as connection:
        ids = contents.page_ids(connection, None)
        last = ids[-1] if ids else 0
        layout = contents.layout(connection, None, last)
        systems = contents.incoming(connection)
    packages, histories = PackageMerge(database), SystemMerge(database, writers)
    damaged, total = 0, len(ids) + len(systems)
    for done, page_id in enumerate(ids, 1):
        damaged += _add(packages, source, page_id)
        if progress:
            progress(done, total)
    with source.read() as connection:
        if contents.layout(connection, None, last) != layout:
            ids += contents.page_ids(connection, None, last)
    for page_id in ids[total - len(systems) :]:
        damaged += _add(packages, source, page_id)
    packages.flush()
    for done, system in enumerate(systems, 1):
        if histories.accepts(system):
            where = histories.place(system)
            commits = contents.own_commits(source, system.name, where.head, max(system.history, default=-1))
            histories.add(system, commits, where)
        if progress:
            progress(total - len(systems) + done, total)
    return Merged(str(source.location), len(ids), damaged, packages.counts, histories.counts)


def _add(packages: PackageMerge, source: Database, page_id: int) -> bool:
    """Offer one page, if it is still there; return whether it is damaged."""
    with source.read() as connection, laid(connection, page_id) as page:
        try:
            if page is not None:
                packages.add(page)
        except CorruptPackageError:
            return True
    return False
