"""Kept sources: packages that were dear lie in their page with what they were computed from."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np

from whiteboard.evaluation.buffers import BufferPool
from whiteboard.evaluation.sources import Sources
from whiteboard.ops.spec import OpSpec
from whiteboard.records.packages import Page
from whiteboard.types import Array, Ids

LEAST_NS: Final = 1_000_000
"""Computing a package costs at least this much where its sources are kept."""
BYTE_NS: Final = 20
"""And this much for each byte of them: ten times what it takes to copy, hash and write it (`scripts/bench sources`)."""


def kept(
    page: Page, spec: OpSpec, sources: Sources, rows: Ids, pool: BufferPool, cotangent: Array | None = None
) -> Page:
    """Return a page with copies of its sources, and of the cotangent, where these are to be kept; else as it is.

    Parameters
    ----------
    page : Page
        Of the jobs at `rows`, with what computing them cost.
    cotangent : ndarray, (n, *y_shape), optional
    """
    if not (_is_dear(page, sources) if spec.keep_sources is None else spec.keep_sources):
        return page
    with pool.lend() as lend:
        xs = [np.array(x, order="C") for x in sources.gather(rows, lend)]
    if cotangent is not None:
        xs.append(np.array(cotangent[rows], order="C"))
    return replace(page, sources=tuple(xs))


def _is_dear(page: Page, sources: Sources) -> bool:
    """Whether computing a bin cost so much that keeping its sources adds next to nothing."""
    nbytes = sources.dtype.itemsize * sum(map(math.prod, sources.shapes))
    return page.cost_ns >= page.n * max(LEAST_NS, BYTE_NS * nbytes)
