"""Packages into a store that may hold some of them: new keys are added, present ones compared, none replaced."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.records.packages import Page
from whiteboard.storage.page import page_checks
from whiteboard.storage.page.digests import Laid, is_intact
from whiteboard.storage.page.format import Blob, Packed, decode_page
from whiteboard.storage.page.grouping import merged, take
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.page_row import PageRow, hashes_of
from whiteboard.storage.sql.rows import Batch, Broken, select_index
from whiteboard.storage.sql.rows import laid as laid_in
from whiteboard.storage.transfer.compare import LARGE, NAMED, PART, Conflict, compare, conflict_of, distance_of, is_at

BATCH_BYTES: Final = 4 * 2**20
"""Bytes of encoded pages that one transaction writes at most, but for a page that is larger alone."""

MOST_CONFLICTS: Final = 1000
"""So many conflicts are described; the others are counted."""


@dataclass(slots=True)
class Packages:
    """What became of the packages that were offered."""

    added: int = 0
    present: int = 0
    conflicts: int = 0
    collisions: int = 0
    """Packages whose index hash belongs to another key: left out, as the store has no place for both."""
    described: list[Conflict] = field(default_factory=list)


class PackageMerge:
    """Takes pages into one store, a transaction a batch; `packages` counts."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[PageRow] = []
        self._broken: set[int] = set()
        self._broken_hashes: set[int] = set()
        self._nbytes = 0
        self._held: set[int] = set()
        self._whole: set[int] = set()
        self.counts = Packages()

    def add(self, laid: Laid) -> None:
        """Take one page, through the gate; it may wait for `flush`.

        Raises
        ------
        CorruptPackageError
            The page fails the gate. Nothing of it is taken.
        """
        _, arrays = page_checks.entries(laid)
        if sum(entry.nbytes for entry in arrays.values()) > LARGE:
            self._add_large(laid)
            return
        blob = Blob(laid.header, laid.digest, laid.data[:])
        page = decode_page(blob, provenance=True)
        page_checks.check_page(page)
        self._add(page, blob)

    def _add(self, page: Page, laid: Blob | None) -> None:
        """Take what the store does not hold of a page: as it lies, where that is all of it."""
        hashes = hashes_of(page.keys)
        fresh = self._fresh(page, hashes)
        self.counts.added += len(fresh)
        if not len(fresh):
            return
        if len(fresh) == page.n and laid is not None:
            self._wait(PageRow(page.op, page.n, page.cost_ns, hashes, Packed(laid.header, laid.digest, (laid.data,))))
        else:
            for part in merged([take(page, fresh)]):
                self._wait(PageRow.of(part))
        self._held.update(hashes[fresh].tolist())
        if self._nbytes >= BATCH_BYTES:
            self.flush()

    def _add_large(self, laid: Laid) -> None:
        """Take a page that is never in memory as a whole."""
        self.flush()
        n = page_checks.checked(laid)
        _, arrays = page_checks.entries(laid)
        hashes = hashes_of(arrays["keys"].rows(0, n))
        with self._database.read() as connection:
            index = select_index(connection, hashes)
        each = sum(entry.nbytes for entry in arrays.values()) // n
        if not len(index) and len(np.unique(hashes)) == n:
            self._add_whole(laid, n)
        elif len(index) == n and self._is_kept(laid, index[:, 1]):
            self.counts.present += n
        elif each > LARGE:
            # What is there already is written again with what is not: it is not found there, as the index keeps what it
            # has. To cut a page of packages that are so large would take their size in memory.
            fresh = sum(self._is_fresh(laid, row, hashes[row]) for row in range(n))
            if fresh:
                self._add_whole(laid, fresh)
        else:
            step = max(1, PART // max(1, each))
            for start in range(0, n, step):
                self._add(page_checks.rows(laid, start, min(n, start + step)), None)

    def _add_whole(self, laid: Laid, added: int) -> None:
        """Take a page as it lies, from where it lies."""
        meta, arrays = page_checks.entries(laid)
        hashes = hashes_of(arrays["keys"].rows(0, meta["n"]))
        packed = Packed(laid.header, laid.digest, (laid.data,))
        self._wait(PageRow(meta["op"], meta["n"], meta["cost_ns"], hashes, packed))
        self.flush()
        self.counts.added += added

    def _is_kept(self, laid: Laid, page_ids: NDArray[np.int64]) -> bool:
        """Whether a page lies in the store as it is."""
        first = int(page_ids[0])
        with self._database.read() as connection, laid_in(connection, first) as kept:
            same = kept is not None and (kept.digest, kept.header) == (laid.digest, laid.header)
            return bool((page_ids == first).all()) and same and kept is not None and is_intact(kept)

    def _is_fresh(self, laid: Laid, row: int, hashed: np.int64) -> bool:
        """Whether the store does not hold one large package; what it holds is compared part by part, and counted."""
        bare = page_checks.rows(laid, row, row + 1, NAMED)
        with self._database.read() as connection:
            index = select_index(connection, np.array([hashed]))
            if len(index):
                _, page_id, slot = index[0].tolist()
                with laid_in(connection, page_id) as kept:
                    if kept is not None and is_at(kept, page_id, slot, bare, self._whole):
                        ulps, array = distance_of(laid, row, kept, slot)
                        self._count(bare, page_checks.rows(kept, slot, slot + 1, NAMED), ulps, array)
                        return False
        return bool(len(self._fresh(bare, np.array([hashed]))))

    def _count(self, page: Page, kept: Page, ulps: int | None, array: str) -> None:
        """Count one package that the store holds; `array` is where it differs, or empty."""
        if not array:
            self.counts.present += 1
            return
        self.counts.conflicts += 1
        if len(self.counts.described) < MOST_CONFLICTS:
            self.counts.described.append(conflict_of(page, 0, kept, 0, ulps, array))

    def flush(self) -> None:
        """Write what waits, in one transaction."""
        if self._waiting:
            broken = Broken(frozenset(self._broken), frozenset(self._broken_hashes))
            # Keys that another process has stored by now keep their place.
            self._database.write(Batch(self._waiting, broken, Counter()).write)
        self._waiting, self._nbytes = [], 0
        self._broken, self._broken_hashes, self._held = set(), set(), set()

    def _wait(self, row: PageRow) -> None:
        self._waiting.append(row)
        self._nbytes += row.nbytes

    def _fresh(self, page: Page, hashes: NDArray[np.int64]) -> NDArray[np.intp]:
        """The rows whose keys the store does not hold; the others are compared and counted."""
        _, first = np.unique(hashes, return_index=True)
        rows = np.sort(first)
        if self._held:
            rows = rows[[hashed not in self._held for hashed in hashes[rows].tolist()]]
        most = MOST_CONFLICTS - len(self.counts.described)
        met = compare(self._database, page, hashes, rows, describe=most, whole=self._whole)
        self._broken |= met.broken_pages
        self._broken_hashes |= met.broken_hashes
        self.counts.present += page.n - len(rows) + len(met.equal)
        self.counts.conflicts += len(met.different)
        self.counts.collisions += len(met.collided)
        self.counts.described += met.described
        return met.fresh
