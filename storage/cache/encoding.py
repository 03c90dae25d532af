"""What waits, made into what is written: rows of pages, and counts of use; all of it outside the write lock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from whiteboard.concurrency.parallel import overlapped
from whiteboard.records.packages import Page
from whiteboard.storage.page.format import THREADED_BYTES
from whiteboard.storage.page.grouping import merged, take
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.page_row import PageRow, firsts, hashes_of
from whiteboard.storage.sql.rows import Broken, select_index

# Another process may have stored what waited here: hardly ever a few packages alone.
_SAMPLE = 512

# Pages are encoded in threads once one of them came out as so small a part of what it holds, or is large.
_SHRUNK = 0.9


def encoded(
    database: Database, bits: int, pages: Sequence[Page], broken: Broken, claimed: NDArray[np.int64]
) -> Generator[PageRow, None, None]:
    """Drop what is stored already, join the rest into pages and encode them.

    Parameters
    ----------
    bits : int
        Bits of a key that the index holds.
    broken : Broken
        What was found damaged, and counts as not stored.
    claimed : ndarray of int64
        Hashes that nobody else computes: they are not looked for.
    """
    if not pages:
        return
    row_of = partial(PageRow.of, bits=bits)
    hashes = hashes_of(np.concatenate([page.keys for page in pages]), bits)
    first = firsts(hashes)
    unique = hashes[first]
    fresh = np.zeros(len(hashes), np.bool_)
    asked = unique if not len(claimed) else unique[np.isin(unique, claimed, invert=True)]
    fresh[first[np.isin(unique, _stored(database, asked, broken), invert=True)]] = True
    rest: Iterable[Page] = pages
    if not fresh.all():
        edges = np.cumsum([0, *(page.n for page in pages)])
        kept = zip(pages, np.split(fresh, edges[1:-1]), strict=True)
        rest = (page if new.all() else take(page, np.flatnonzero(new)) for page, new in kept)
    left = merged(rest, database.page_bytes)
    for page in left:
        if page.nbytes >= THREADED_BYTES:
            yield from overlapped(row_of, chain((page,), left), len(hashes))
            return
        yield (row := row_of(page))
        if row.nbytes < _SHRUNK * page.nbytes:  # threads take longer over what stays raw than it takes
            yield from overlapped(row_of, left, len(hashes))


def uses_of(database: Database, bits: int, used: Counter[int], touched: Counter[bytes]) -> Counter[int]:
    """How often each page was used: as `used` says, and where the packages lie whose keys were `touched`."""
    uses = Counter(used)
    if touched:
        keys = np.frombuffer(b"".join(touched), np.uint8).reshape(-1, 16)
        counts = dict(zip(hashes_of(keys, bits).tolist(), touched.values(), strict=True))
        index = database.glance(partial(select_index, hashes=np.array(list(counts), np.int64)))
        for hashed, page_id, _ in index.tolist():
            uses[page_id] += counts[hashed]
    return uses


def _stored(database: Database, hashes: NDArray[np.int64], broken: Broken) -> NDArray[np.int64]:
    """Which hashes have a package by now; of many, none if none of a sample has."""
    if not len(hashes):
        return hashes
    some = hashes[:: max(1, len(hashes) // _SAMPLE)]
    for each in (some, hashes) if len(some) < len(hashes) else (hashes,):
        index = database.glance(partial(select_index, hashes=each))
        if not len(index):
            break
    good = [h for h, page_id, _ in index.tolist() if page_id not in broken.pages and h not in broken.hashes]
    return np.array(good, np.int64)
