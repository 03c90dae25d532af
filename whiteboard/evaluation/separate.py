"""Separate: from pages back to one column per field, in the order of the jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from whiteboard.records.adjacent import together
from whiteboard.records.packages import Page
from whiteboard.types import Array, Shape

Places: TypeAlias = NDArray[np.int64] | slice


def columns(
    fields: Mapping[str, Shape],
    pages: Sequence[Page],
    page: NDArray[np.int64],
    slot: NDArray[np.int64],
    dtype: np.dtype,
) -> list[Array]:
    """Return the fields of n packages, each (n, *shape), read-only.

    A job whose page is -1 has none, and NaN in all fields.
    They are in memory of their own, but for pages that are just what was asked for: of what lies there in one piece
    they are views, which keep no more alive than themselves and cannot be made writable.
    """
    whole = not len(page) or int(page.min()) >= 0
    behind = _one_behind_the_other(pages, page, slot) if whole else []
    if len(behind) == 1:
        return [_read_only(np.ascontiguousarray(behind[0].arrays[name]).view()) for name in fields]
    filled, runs = [], None
    for name, shape in fields.items():
        if behind and (joined := together([page.arrays[name] for page in behind])) is not None:
            filled.append(joined)
            continue
        if runs is None:
            runs = _runs(pages, page, slot)
        out = np.empty((len(page), *shape), dtype) if whole else np.full((len(page), *shape), np.nan, dtype)
        for number, here, there in runs:
            out[here] = pages[number].arrays[name][there]
        filled.append(_read_only(out))
    return filled


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _runs(pages: Sequence[Page], page: NDArray[np.int64], slot: NDArray[np.int64]) -> list[tuple[int, Places, Places]]:
    """Return (page number, positions, rows of the page) for each page in use; slices where they are consecutive."""
    if not len(page):
        return []
    if len(pages) == 1 and int(page.min()) == 0:
        return [(0, slice(0, len(page)), _places(slot))]
    order = np.argsort(page, kind="stable")
    starts = np.flatnonzero(np.diff(page[order], prepend=-2))
    runs = []
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(page)], strict=True):
        here = order[start:end]
        if page[here[0]] < 0:
            continue
        runs.append((int(page[here[0]]), _places(here), _places(slot[here])))
    return runs


def _one_behind_the_other(pages: Sequence[Page], page: NDArray[np.int64], slot: NDArray[np.int64]) -> Sequence[Page]:
    """Return the pages that make up the jobs, if these are all of their packages and in their order; else none."""
    starts = np.flatnonzero(np.diff(page, prepend=-1))
    numbers = page[starts].tolist()
    counts = np.diff(starts, append=len(page))
    found = [pages[number] for number in numbers]
    if counts.tolist() != [each.n for each in found] or len(set(numbers)) < len(numbers):
        return ()
    return found if np.array_equal(slot, np.arange(len(page)) - np.repeat(starts, counts)) else ()


def _places(positions: NDArray[np.int64]) -> Places:
    """Return positions as a slice where they are consecutive."""
    first, n = int(positions[0]), len(positions)
    if int(positions[-1]) - first == n - 1 and (n < 3 or bool(np.all(positions[1:] - positions[:-1] == 1))):
        return slice(first, first + n)
    return positions
