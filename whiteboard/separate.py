"""Separate: from pages back to one column per field, in the order of the jobs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from whiteboard.types import Array, Page, Shape


def column(
    name: str, pages: Sequence[Page], page: NDArray[np.int64], slot: NDArray[np.int64], shape: Shape, dtype: np.dtype
) -> Array:
    """Return one field of n packages as (n, *shape), read-only and in memory of its own."""
    out = np.empty((len(page), *shape), dtype)
    if len(pages) == 1:
        np.take(pages[0].arrays[name], slot, axis=0, out=out, mode="clip")
    else:
        for number, rows in _runs(page):
            out[rows] = pages[number].arrays[name][slot[rows]]
    out.flags.writeable = False
    return out


def _runs(page: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64] | slice]]:
    """Return (page number, positions) for each page in use; a slice where the positions are one run."""
    if not len(page):
        return []
    order = np.argsort(page, kind="stable")
    starts = np.flatnonzero(np.diff(page[order], prepend=-1))
    runs: list[tuple[int, NDArray[np.int64] | slice]] = []
    for start, end in zip(starts, [*starts[1:], len(page)], strict=True):
        rows = order[start:end]
        whole = rows[-1] - rows[0] + 1 == len(rows)
        runs.append((int(page[rows[0]]), slice(rows[0], rows[-1] + 1) if whole else rows))
    return runs
