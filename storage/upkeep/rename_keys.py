"""Packages under other keys: each page is written again, in one transaction with the end of the old one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page, PageHeader, Renamed, RowSize
from whiteboard.records.reports import Progress
from whiteboard.records.systems import NodeValues
from whiteboard.storage.commits import provenance
from whiteboard.storage.opening import open_database
from whiteboard.storage.page import codec, row_checks
from whiteboard.storage.page.format import Blob, decode_page
from whiteboard.storage.page.grouping import take
from whiteboard.storage.sql import tables as t
from whiteboard.storage.sql.backend import Connection, Database
from whiteboard.storage.sql.location import StoreUrl, locate_lasting
from whiteboard.storage.sql.page_row import PageRow, hashes_of
from whiteboard.storage.sql.rows import Batch, Broken, delete_index, reached
from whiteboard.storage.transfer import contents
from whiteboard.storage.transfer.compare import Conflict, compare
from whiteboard.storage.transfer.merge_packages import BATCH_BYTES, MOST_CONFLICTS

Concerns = Callable[[PageHeader], bool]
"""Whether packages of such a page are to get other keys; asked before the page is read."""

Rename = Callable[[Page, Sequence[NodeValues]], Renamed]
"""``rename(page, values)``: their keys, told from the page, and, where it lacks tokens, from values of its sources."""


@dataclass(slots=True)
class Report:
    """What became of the packages that were looked at, or would become of them.

    `rows` and `nbytes` are those written: index rows and pages, and the bytes of those pages.
    """

    pages: int = 0
    packages: int = 0
    renamed: int = 0
    present: int = 0
    """Equal bytes lie under the new key already: the old package is dropped."""
    conflicts: int = 0
    """Other bytes lie under the new key: both packages stay where they are."""
    collisions: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    damaged_pages: int = 0
    rows: int = 0
    nbytes: int = 0
    described: list[Conflict] = field(default_factory=list)


def headers(url: StoreUrl, op: str | None = None) -> list[PageHeader]:
    """What the pages of an op (or all) say, by ascending id.

    Raises
    ------
    StoreError, SchemaError
        There is no store, or it cannot be read.
    """
    with _opened(url, readonly=True) as database:
        return list(_headers(database, op))


def rename(
    url: StoreUrl, concerns: Concerns, rename: Rename, *, dry_run: bool = False, progress: Progress | None = None
) -> Report:
    """Give packages other keys, in bounded transactions; nothing is lost, and nothing that is there is replaced.

    Others may go on using the store: they see a page with its old keys or with its new ones. Killed, it is called
    again, and goes on with the pages that it still concerns. `progress` counts pages.

    Raises
    ------
    StoreError, SchemaError, ReadOnlyError
    """
    with _opened(url, readonly=dry_run) as database:
        concerned = [header for header in _headers(database) if concerns(header)]
        # Only pages without tokens need the values of their sources, which take memory.
        bare = [header for header in concerned if not header.tokens]
        parts = [provenance.Part(header.page_id, header.op, np.arange(header.packages)) for header in bare]
        values = provenance.node_values(database, provenance.wanted(database, parts))
        renaming = _Renaming(database, rename, values, dry_run)
        for done, header in enumerate(concerned, 1):
            renaming.page(header.page_id)
            if progress:
                progress(done, len(concerned))
        renaming.flush()
    return renaming.report


@contextmanager
def _opened(url: StoreUrl, *, readonly: bool) -> Iterator[Database]:
    database = open_database(locate_lasting(url), readonly=readonly, makes=False)
    try:
        yield database
    finally:
        database.close()


def _headers(database: Database, op: str | None = None) -> Iterator[PageHeader]:
    where, given = ("", ()) if op is None else ("WHERE op = ?", (op,))
    with database.read() as connection:
        found = connection.exec_driver_sql(f"SELECT id, op, n, header FROM page {where} ORDER BY id", given)
        for page_id, name, n, header in row_checks.rows(t.page, found):
            yield PageHeader(page_id, name, n, *_said(header))


def _said(header: bytes) -> tuple[str | None, bool, dict[str, RowSize]]:
    """The lineage in a page's header, whether there are whole tokens, or what they are of, and the size of its rows.

    Nothing of what cannot be read.
    """
    try:
        fields = json.loads(header)
        lineage, arrays = fields.get("lineage"), fields["arrays"]
        tokens = any(entry[:2] == ["tokens", "|u1"] or entry[0] == "x0" for entry in arrays)
        sizes = {name.removeprefix("a:"): _size(dtype, shape) for name, dtype, shape, *_ in arrays}
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, CorruptPackageError):
        return None, False, {}
    return (lineage if isinstance(lineage, str) else None), tokens, sizes


def _size(dtype: object, shape: object) -> RowSize:
    kind, nbytes = codec.described(dtype, shape)
    n = shape[0] if isinstance(shape, list) and shape else 1
    return RowSize(kind.itemsize, nbytes // max(n, 1) // kind.itemsize)


@dataclass(frozen=True, slots=True)
class _Change:
    """A page that goes, with its digest and the hashes of its keys, and those that come for it."""

    page_id: int
    digest: bytes
    hashes: NDArray[np.int64]
    rows: list[PageRow]


class _Renaming:
    """Renames page by page, a transaction a batch; `report` counts."""

    def __init__(self, database: Database, rename: Rename, values: Sequence[NodeValues], dry_run: bool) -> None:
        self._database, self._rename, self._values, self._dry_run = database, rename, values, dry_run
        self._waiting: list[_Change] = []
        self._held: set[int] = set()
        self._nbytes = 0
        self._broken_pages: set[int] = set()
        self._broken_hashes: set[int] = set()
        self.report = Report()

    def page(self, page_id: int) -> None:
        """Rename what can be renamed of one page; it may wait for `flush`."""
        with self._database.read() as connection:
            blob = contents.page(connection, page_id)
            try:
                page = None if blob is None else decode_page(blob, provenance=True)
            except CorruptPackageError:
                self.report.damaged_pages += 1
                return
            if blob is None or page is None:
                return  # evicted since the pages were listed
            rows = reached(connection, page_id, page.keys)
        self.report.pages += 1
        if len(rows):
            self._page(page_id, blob, page, rows)

    def _page(self, page_id: int, blob: Blob, page: Page, rows: NDArray[np.intp]) -> None:
        hashes, page = hashes_of(page.keys), take(page, rows)
        new = self._rename(page, self._values)
        self.report.packages += page.n
        self.report.kept.update(new.kept)
        named = replace(take(page, new.rows), keys=new.keys, lineage=new.lineage, tokens=new.tokens)
        fresh, gone = self._compared(named)
        if not len(gone):
            return
        rest = np.delete(np.arange(page.n), new.rows[gone])
        parts = [PageRow.of(take(named, fresh))] if len(fresh) else []
        parts += [PageRow.of(take(page, rest))] if len(rest) else []
        self.report.rows += sum(1 + part.n for part in parts)
        self.report.nbytes += sum(part.nbytes for part in parts)
        if self._dry_run:
            return
        self._waiting.append(_Change(page_id, blob.digest, hashes, parts))
        self._held.update(hashes_of(named.keys).tolist())
        self._nbytes += sum(part.nbytes for part in parts)
        if self._nbytes >= BATCH_BYTES:
            self.flush()

    def _compared(self, page: Page) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows of renamed packages that the store lacks, and those whose old packages can go; counts all of them."""
        hashes = hashes_of(page.keys)
        if not self._held.isdisjoint(hashes.tolist()):
            self.flush()
        _, first = np.unique(hashes, return_index=True)
        describe = MOST_CONFLICTS - len(self.report.described)
        met = compare(self._database, page, hashes, np.sort(first), describe=describe)
        self._broken_pages |= met.broken_pages
        self._broken_hashes |= met.broken_hashes
        self.report.renamed += len(met.fresh)
        self.report.present += len(met.equal)
        self.report.conflicts += len(met.different)
        self.report.collisions += len(met.collided) + page.n - len(first)
        self.report.described += met.described
        return met.fresh, np.concatenate([met.fresh, met.equal])

    def flush(self) -> None:
        """Write what waits, in one transaction; a page that is not there any more as it was read is left alone."""
        if self._waiting:
            self._database.write(self._write)
        self._waiting, self._nbytes = [], 0
        self._held, self._broken_pages, self._broken_hashes = set(), set(), set()

    def _write(self, connection: Connection) -> None:
        rows: list[PageRow] = []
        uses: list[tuple[int, int] | None] = []
        for change in self._waiting:
            use = _use(connection, change.page_id)
            if _taken_out(connection, change):
                rows += change.rows
                uses += [use] * len(change.rows)
        broken = Broken(frozenset(self._broken_pages), frozenset(self._broken_hashes))
        ids = Batch(rows, broken, Counter()).insert(connection)
        known = [(*use, page_id) for page_id, use in zip(ids, uses, strict=True) if use is not None]
        if known:
            connection.exec_driver_sql("UPDATE page_access SET last_use = ?, hits = ? WHERE page_id = ?", known)


def _use(connection: Connection, page_id: int) -> tuple[int, int] | None:
    """When and how often a page was used: eviction goes by it, and a new key is no use."""
    sql = "SELECT last_use, hits FROM page_access WHERE page_id = ?"
    row = connection.exec_driver_sql(sql, (page_id,)).one_or_none()
    return None if row is None else (row.last_use, row.hits)


def _taken_out(connection: Connection, change: _Change) -> bool:
    sql = "DELETE FROM page WHERE id = ? AND digest = ?"
    if not connection.exec_driver_sql(sql, (change.page_id, change.digest)).rowcount:
        return False
    connection.exec_driver_sql("DELETE FROM page_access WHERE page_id = ?", (change.page_id,))
    delete_index(connection, ((hashed, change.page_id) for hashed in change.hashes.tolist()))
    return True
