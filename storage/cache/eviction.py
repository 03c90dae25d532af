"""Which pages go when a store must be smaller: those used longest ago, in steps that others can write between."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from whiteboard.records.reports import Evicted
from whiteboard.storage.page import row_checks
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.rows import delete_pages

STEP_PAGES: Final = 16
"""Pages deleted in one transaction: some 5,000 index rows, which hold the write lock for tens of milliseconds."""

_INDEX_ROW_BYTES = 24


def evict(
    database: Database,
    max_bytes: int | None,
    *,
    older_than: float | None = None,
    dry_run: bool = False,
    reason: str = "max_bytes",
) -> Evicted:
    """Delete the pages used longest ago until the file holds at most `max_bytes`; node versions are never touched.

    Parameters
    ----------
    database : Database
    max_bytes : int, optional
        Where to stop; without it only `older_than` decides.
    older_than : float, optional
        Seconds: pages that were used since are kept, whatever `max_bytes` says.
    dry_run : bool
        Only count.
    reason : str
        Under which the store counts what has gone.
    """
    pages = packages = nbytes = 0
    horizon = last_use(older_than)
    if not dry_run:
        _set_right(database)
    while max_bytes is None or database.live_bytes() > max_bytes:
        excess = None if max_bytes is None else database.live_bytes() - max_bytes
        victims, planned = _oldest(database, excess, horizon)
        if dry_run or not victims:
            return planned if dry_run else Evicted(pages, packages, nbytes)
        before = database.live_bytes()
        for start in range(0, len(victims), STEP_PAGES):
            packages += database.write(partial(delete_pages, ids=victims[start : start + STEP_PAGES], reason=reason))
        pages += len(victims)
        nbytes += max(0, before - database.live_bytes())
    return Evicted(pages, packages, nbytes)


def _set_right(database: Database) -> None:
    """Date uses of the future, from before a clock was set back, to now: they would never grow old."""
    now = (int(time.time()),)
    with database.read() as connection:
        if connection.exec_driver_sql("SELECT 1 FROM page_access WHERE last_use > ? LIMIT 1", now).first() is None:
            return
    sql = "UPDATE page_access SET last_use = ? WHERE last_use > ?"
    database.write(lambda connection: connection.exec_driver_sql(sql, now * 2))


def last_use(older_than: float | None) -> int:
    """The latest second of a use that lies so many seconds back; however many, it is a number that SQLite holds."""
    return 2**62 if older_than is None else int(max(-1.0, time.time() - older_than))


def _oldest(database: Database, excess: int | None, horizon: int) -> tuple[list[int], Evicted]:
    """The pages used longest ago, and before the horizon, that take up about `excess` bytes (None: all of them)."""
    # NULL: a page without a count was never used.
    used = "CASE WHEN last_use IS NULL THEN 0 WHEN last_use > ? THEN ? ELSE last_use END"
    sql = (
        "SELECT page.id, page.n, page.nbytes FROM page LEFT JOIN page_access ON page_access.page_id = page.id "
        f"WHERE {used} <= ? ORDER BY {used}, page.id"
    )
    now = int(time.time())
    victims: list[int] = []
    packages = nbytes = 0
    with database.read() as connection:
        for page_id, n, size in connection.exec_driver_sql(sql, (now, now, horizon, now, now)):
            if excess is not None and nbytes >= excess:
                break
            victims.append(page_id)
            packages += row_checks.count(n)
            nbytes += row_checks.count(size) + row_checks.count(n) * _INDEX_ROW_BYTES
    return victims, Evicted(len(victims), packages, nbytes)
