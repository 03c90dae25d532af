"""Every package of an op, page after page: what a table, or whoever else reads all of it, is made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page, Sampled
from whiteboard.storage.page import row_checks
from whiteboard.storage.page.format import Blob, decode_page
from whiteboard.storage.page.grouping import take
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.page_row import hashes_of
from whiteboard.storage.sql.rows import reached, select_pages

_LIST = "SELECT id, n, digest FROM page WHERE op = ? AND id > ? ORDER BY id"


def pages(database: Database, op: str, *, sources: bool = True, grads: bool = True) -> Iterator[Sampled]:
    """The packages of an op that are found by their keys, the oldest first; one page is in memory at a time.

    Others may go on using the store: what they move from one page to another meanwhile comes once.
    """
    listing = _Listing(database, op, sources=sources, grads=grads)
    last, again = 0, True
    while again:
        again = False
        for page_id, n, digest in listing.after(last):
            last = page_id
            blob = listing.blob(page_id)
            if blob is None or blob.digest != digest:  # what was in it may lie in a newer page
                again = listing.doubtful = True
            if blob is not None and (found := listing.read(page_id, n, blob)).n:
                yield found


@dataclass(slots=True)
class _Listing:
    """Pages of an op on their way; once they are `doubtful`, what was `given` (by hash) is not given again."""

    database: Database
    op: str
    sources: bool
    grads: bool
    doubtful: bool = False
    given: list[NDArray[np.int64]] = field(default_factory=list)

    def after(self, page_id: int) -> list[tuple[int, int, Any]]:
        """The id, the number of packages and the digest of each page above an id."""
        with self.database.read() as connection:
            found = connection.exec_driver_sql(_LIST, (self.op, page_id))
            return [(row.id, row_checks.count(row.n), row.digest) for row in found]

    def blob(self, page_id: int) -> Blob | None:
        """A page as it lies in its row; None where it is gone."""
        with self.database.read() as connection:
            return select_pages(connection, [page_id]).get(page_id)

    def read(self, page_id: int, n: int, blob: Blob) -> Sampled:
        """The packages of a page that were not given before."""
        try:
            page = decode_page(blob, provenance=True, sources=self.sources, grads=self.grads)
        except CorruptPackageError:
            return Sampled(page_id, self.op, n, None)
        if page.op != self.op:  # the row says another op than the page
            return Sampled(page_id, self.op, n, None)
        rows = self._fresh(page_id, page)
        return Sampled(page_id, self.op, len(rows), take(page, rows))

    def _fresh(self, page_id: int, page: Page) -> NDArray[np.int64]:
        with self.database.read() as connection:
            rows = reached(connection, page_id, page.keys)
        hashes = hashes_of(page.keys[rows])
        if self.doubtful:
            new = np.isin(hashes, np.concatenate([hashes[:0], *self.given]), invert=True)
            rows, hashes = rows[new], hashes[new]
        self.given.append(hashes)
        return rows
