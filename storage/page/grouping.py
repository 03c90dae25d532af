"""Rows of pages: some of one, several pages as one, one as several; a row goes with all that lies beside it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.memory.room import Region
from whiteboard.records.packages import Page
from whiteboard.storage.page.codec import MOST_BYTES

PAGE_BYTES: Final = 512 * 1024
"""Pages are cut at about this size: large enough to pay for a call and a row, small enough to evict."""

# A package counts as no less, which bounds a page's rows too.
_LEAST_ROW_BYTES = 512
# Of the bytes that a page was decoded from, this many times what it holds may stay in memory with it.
_DENSE = 1.1


def owned(page: Page) -> Page:
    """The page with arrays that are read-only and keep no larger buffer alive; copied only where they are not."""
    if page.alive is not None:
        return page
    dense = alive_bytes(page) <= _DENSE * page.nbytes
    return _changed(page, partial(_own, dense=dense), page.cost_ns, own=True)


def alive_bytes(page: Page) -> int:
    """Bytes that stay in memory for as long as the page does: of a view, all that it is a view of."""
    return _alive(_columns(page)) if page.alive is None else page.alive


def _alive(arrays: Iterable[NDArray[Any]]) -> int:
    sizes: dict[int, int] = {}
    for array in arrays:
        buffer, _ = _buffer(array)
        sizes[id(buffer)] = _nbytes(buffer)
    return sum(sizes.values())


def merged(pages: Iterable[Page], page_bytes: int = PAGE_BYTES) -> Iterator[Page]:
    """Pages of equal op and array signature joined, and cut where they are too large."""
    groups: dict[Any, list[Page]] = defaultdict(list)
    for page in pages:
        if page.n:
            groups[_signature(page)].append(page)
    for group in groups.values():
        yield from _regrouped(group, page_bytes)


def take(page: Page, rows: NDArray[np.intp] | slice) -> Page:
    """Some rows of a page, with their share of its cost."""
    keys = page.keys[rows]
    return _changed(page, lambda array: array[rows], page.cost_ns * len(keys) // max(page.n, 1))


def row_bytes(page: Page) -> int:
    """Bytes of one package of the page, rounded up."""
    return -(-page.nbytes // max(page.n, 1))


def fits(page: Page) -> bool:
    """Whether one row of the page can be stored at all."""
    nbytes = page.nbytes if page.alive is None else page.alive
    return nbytes <= MOST_BYTES or row_bytes(page) <= MOST_BYTES


def cut(page: Page, limit: int) -> Sequence[Page]:
    """A page that is large enough alone, in parts of about so many rows; none of one that is joined with others."""
    edges = cuts(page.n, limit)
    return (page,) if len(edges) == 2 else [take(page, slice(*each)) for each in pairwise(edges)]


def most_rows(each: int, page_bytes: int = PAGE_BYTES) -> int:
    """So many packages of `each` so many bytes make a page."""
    return max(1, page_bytes // max(each, _LEAST_ROW_BYTES))


def cuts(n: int, limit: int) -> list[int]:
    """Where n rows are cut into parts of about `limit`; nowhere if they are to be joined with others.

    A part is between half of the limit and one and a half of it, so that it is neither cut nor joined again.
    """
    if 2 * n <= limit:
        return []
    parts = max(1, math.ceil(n / limit - 0.5))
    return [n * number // parts for number in range(parts + 1)]


def joined(pages: Sequence[Page]) -> Page:
    """Pages of one signature as one, in their order."""
    first = pages[0]
    if len(pages) == 1:
        return first
    parts = [iter(_columns(page)) for page in pages]
    # Columns come in one order, so that the next of each page are parts of one.
    return _changed(
        first, lambda _: np.concatenate([next(each) for each in parts]), sum(page.cost_ns for page in pages)
    )


def _columns(page: Page) -> Iterator[NDArray[Any]]:
    """Every array of a page, in the order in which `_changed` asks for them."""
    yield page.keys
    yield from page.arrays.values()
    yield from (column for column in _provenance(page) if column is not None)
    yield from page.sources or ()


def _changed(page: Page, change: Callable[[NDArray[Any]], NDArray[Any]], cost_ns: int, *, own: bool = False) -> Page:
    """The page with every array changed, and another cost; with `own` it says how much memory it keeps alive."""
    keys = change(page.keys)
    arrays = {name: change(array) for name, array in page.arrays.items()}
    provenance = [None if column is None else change(column) for column in _provenance(page)]
    sources = None if page.sources is None else tuple(map(change, page.sources))
    alive = None
    if own:
        alive = _alive((keys, *arrays.values(), *(x for x in provenance if x is not None), *(sources or ())))
    ids, versions, tokens = provenance
    return Page(page.op, keys, arrays, cost_ns, ids, versions, page.lineage, tokens, sources, alive)


def _signature(page: Page) -> tuple[Any, ...]:
    arrays = tuple([(name, array.dtype, array.shape[1:]) for name, array in page.arrays.items()])
    extra = tuple([None if column is None else column.shape[1:] for column in _provenance(page)])
    sources = None if page.sources is None else tuple([(each.dtype, each.shape[1:]) for each in page.sources])
    return page.op, arrays, extra, sources, page.lineage


def _provenance(page: Page) -> tuple[NDArray[Any] | None, ...]:
    return page.src_ids, page.versions, page.tokens


def _regrouped(group: Sequence[Page], page_bytes: int) -> Iterator[Page]:
    limit = most_rows(row_bytes(group[0]), page_bytes)
    waiting: list[Page] = []
    rows = 0
    for page in group:
        if parts := cut(page, limit):
            yield from parts
            continue
        if rows + page.n > limit:
            yield joined(waiting)
            waiting, rows = [], 0
        waiting.append(page)
        rows += page.n
    if waiting:
        yield joined(waiting)


def _own(array: NDArray[Any], dense: bool) -> NDArray[Any]:
    buffer, is_read = _buffer(array)
    # What was read never changes, so that a page may share what it was decoded from, if that is not much more than it.
    kept = (dense and is_read) or _nbytes(buffer) == array.nbytes
    # Rows of it may lie beside those of others that were read with it.
    if not (kept and (array.flags.c_contiguous or (is_read and array[:1].flags.c_contiguous))):
        array = array.copy()
    array.flags.writeable = False
    return array


def _buffer(array: NDArray[Any]) -> tuple[Any, bool]:
    """The object whose memory an array lies in, and whether a blob was read into it; else an array has allocated it."""
    root: Any = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    base = root.base.obj if isinstance(root.base, memoryview) else root.base
    is_read = isinstance(base, bytes | Region)
    return (base if isinstance(base, bytes) else root), is_read


def _nbytes(buffer: NDArray[Any] | bytes) -> int:
    return buffer.nbytes if isinstance(buffer, np.ndarray) else len(buffer)
