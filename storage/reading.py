"""What a lookup reads: pages by id, decoded in threads where there are many, and the `Found` they are gathered in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from whiteboard.errors import CorruptPackageError
from whiteboard.storage.base import MISS, Found, Page
from whiteboard.storage.engine import Database
from whiteboard.storage.overlap import cores, overlapped
from whiteboard.storage.pages import Blob, decode_page
from whiteboard.storage.rows import read_pages

_MANY: Final = 8
"""From so many pages on, they are read and decoded in threads."""


def decoded(database: Database, connection: Connection, ids: Sequence[int]) -> tuple[dict[int, Page], float]:
    """The pages of the given ids, without those that are damaged or not there, and the nanoseconds that each took."""
    started = time.perf_counter_ns()
    pages: dict[int, Page | None] = {}
    # The one connection of a store in memory is not for two threads.
    if database.location.path is not None and len(ids) >= _MANY and (threads := cores()) > 1:
        for part in overlapped(partial(_read_apart, database), [ids[first::threads] for first in range(threads)]):
            pages |= part
    # What was evicted since the index was read is still there in this transaction.
    pages |= map(_opened, read_pages(connection, [page_id for page_id in ids if page_id not in pages]))
    good = {page_id: page for page_id, page in pages.items() if page is not None}
    return good, (time.perf_counter_ns() - started) / max(len(ids), 1)


def _read_apart(database: Database, ids: Sequence[int]) -> dict[int, Page | None]:
    with database.read() as connection:
        return dict(map(_opened, read_pages(connection, ids)))


def _opened(row: tuple[int, Blob]) -> tuple[int, Page | None]:
    page_id, blob = row
    try:
        return page_id, decode_page(blob)
    except CorruptPackageError:
        return page_id, None


class Gathering:
    """A `Found` of n keys in the making."""

    def __init__(self, n: int) -> None:
        self._pages: list[Page] = []
        self._page = np.full(n, -1, np.int64)
        self._slot = np.zeros(n, np.int64)
        self._tier = np.full(n, MISS, np.uint8)

    def add(self, page: Page, rows: NDArray[np.intp], slots: NDArray[np.int64], tier: int) -> None:
        """Say that the keys at `rows` are in the slots of a page."""
        self._page[rows] = len(self._pages)
        self._slot[rows] = slots
        self._tier[rows] = tier
        self._pages.append(page)

    def done(self) -> Found:
        """Return what was found."""
        return Found(self._pages, self._page, self._slot, self._tier)
