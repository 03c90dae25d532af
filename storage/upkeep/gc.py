"""Garbage collection: what was used longest ago goes, and what nothing leads to, and the space is given back."""

from __future__ import annotations

from functools import partial

import numpy as np

from whiteboard.records.reports import Evicted, GcReport
from whiteboard.storage.cache.claims import sweep
from whiteboard.storage.cache.eviction import STEP_PAGES, evict
from whiteboard.storage.page import row_checks
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.rows import delete_pages, lately, select_index

_STEP_HASHES = 32_768
_WITHOUT_ROWS = "SELECT id, n, nbytes FROM page WHERE id NOT IN (SELECT page_id FROM package)"


def gc(
    database: Database, *, max_bytes: int | None = None, older_than: float | None = None, dry_run: bool = False
) -> GcReport:
    """Evict packages, drop pages that no key leads to, and give the space back; node versions are never touched.

    Parameters
    ----------
    database : Database
    max_bytes : int, optional
        Evict the pages used longest ago until the file holds no more than this.
    older_than : float, optional
        Seconds: evict pages that were not used since; with `max_bytes`, evict only such pages.
    dry_run : bool
        Only count.
    """
    before = database.live_bytes()
    if not dry_run:
        sweep(database)
    unreferenced = _drop_unreferenced(database, dry_run=dry_run)
    evicted = Evicted()
    if max_bytes is not None or older_than is not None:
        evicted = evict(database, max_bytes, older_than=older_than, dry_run=dry_run, reason="gc")
    if dry_run:
        return GcReport(evicted, unreferenced, before, max(0, before - evicted.nbytes - unreferenced.nbytes), dry_run)
    database.give_back()
    return GcReport(evicted, unreferenced, before, database.live_bytes(), dry_run)


def _drop_unreferenced(database: Database, *, dry_run: bool) -> Evicted:
    """Drop pages whose every package was stored by another process first, or repaired away."""
    with database.read() as connection:
        rows = list(connection.exec_driver_sql(_WITHOUT_ROWS))
        # Of a package that two pages have, the one with a row in the index counts, or else the first.
        new = lately(connection)[:, 0]
        parts = (new[start : start + _STEP_HASHES] for start in range(0, len(new), _STEP_HASHES))
        answering = {page_id for part in parts for page_id in np.unique(select_index(connection, part)[:, 1]).tolist()}
    rows = [row for row in rows if row.id not in answering]
    if not dry_run:
        for start in range(0, len(rows), STEP_PAGES):
            ids = [row.id for row in rows[start : start + STEP_PAGES]]
            database.write(partial(delete_pages, ids=ids, reason="unreferenced"))
        # Counts that another process wrote after their page had gone.
        strays = "FROM page_access WHERE page_id NOT IN (SELECT id FROM page)"
        with database.read() as connection:
            found = connection.exec_driver_sql(f"SELECT 1 {strays} LIMIT 1").first()
        if found:
            database.write(lambda connection: connection.exec_driver_sql(f"DELETE {strays}"))
    return Evicted(len(rows), 0, sum(row_checks.count(row.nbytes) for row in rows))
