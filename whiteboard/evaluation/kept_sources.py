"""Kept sources: packages that were dear lie in their page with what they were computed from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from whiteboard.evaluation import bins
from whiteboard.evaluation.buffers import BufferPool
from whiteboard.evaluation.sources import Sources
from whiteboard.ops.spec import OpSpec
from whiteboard.records.packages import Page
from whiteboard.types import Array, Ids

LEAST_NS: Final = 1_000_000
"""Computing a package costs at least this much where its sources are kept."""
BYTE_NS: Final = 50
"""And this much for each byte of them: to copy, hash and write it takes 5 to 9 (`scripts/bench sources`)."""


def kept(
    page: Page, spec: OpSpec, sources: Sources, rows: Ids, pool: BufferPool, cotangent: Array | None = None
) -> Iterator[Page]:
    """Yield a page with copies of its sources, and of the cotangent, where these are to be kept; else as it is.

    Where they are many bytes more than it, in parts.

    Parameters
    ----------
    page : Page
        Of the jobs at `rows`, with what computing them cost.
    cotangent : ndarray, (n, *y_shape), optional
    """
    nbytes = sources.dtype.itemsize * sum(map(math.prod, sources.shapes))
    dear = page.cost_ns >= page.n * max(LEAST_NS, BYTE_NS * nbytes)
    if not (dear if spec.keep_sources is None else spec.keep_sources):
        yield page
        return
    for part in bins.cut(np.arange(page.n), page.nbytes // page.n + nbytes, 2 * bins.MAX_BYTES):
        with pool.lend() as lend:
            xs = [np.array(x, order="C") for x in sources.gather(rows[part], lend)]
        if cotangent is not None:
            xs.append(np.array(cotangent[rows[part]], order="C"))
        yield replace(page if len(part) == page.n else _part(page, part), sources=tuple(xs), alive=None)


def _part(page: Page, rows: Ids) -> Page:
    """Some rows of a page, with their share of its cost."""
    return replace(
        page,
        keys=page.keys[rows],
        arrays={name: array[rows] for name, array in page.arrays.items()},
        cost_ns=page.cost_ns * len(rows) // page.n,
        src_ids=None if page.src_ids is None else page.src_ids[rows],
        versions=None if page.versions is None else page.versions[rows],
        tokens=None if page.tokens is None else page.tokens[rows],
    )
