"""Packages beside what a store holds under their keys: the same bytes, others and how far apart, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError
from whiteboard.records.distance import largest
from whiteboard.records.packages import Page
from whiteboard.storage.page import page_checks
from whiteboard.storage.page.digests import Laid
from whiteboard.storage.page.format import Blob, decode_page
from whiteboard.storage.page.grouping import joined
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.page_row import hashes_of
from whiteboard.storage.sql.rows import laid as laid_in
from whiteboard.storage.sql.rows import select_index

# Larger pages are not decoded as a whole, but in parts of about so many bytes.
LARGE: Final = 16 * 2**20
PART: Final = 4 * 2**20

NAMED: Final = ("keys", "src_ids", "versions")
"""What tells packages by name, where nothing else of them is wanted."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """One key with different bytes in two stores.

    Attributes
    ----------
    op, key : str
    sources, versions : tuple of int, or None
        Node ids and versions from which the package that was refused was computed, where they were nodes.
    kept_sources, kept_versions : tuple of int, or None
        Those of the package that stays.
    ulps : int or None
        The largest distance of two elements, in units in the last place; None where shapes or dtypes differ, or a
        NaN meets a number.
    array : str
        Where that is: ``"y"`` or ``"g<i>"``.
    """

    op: str
    key: str
    sources: tuple[int, ...] | None
    versions: tuple[int, ...] | None
    kept_sources: tuple[int, ...] | None
    kept_versions: tuple[int, ...] | None
    ulps: int | None
    array: str


def _none() -> NDArray[np.intp]:
    return np.empty(0, np.intp)


@dataclass(slots=True)
class Met:
    """Packages beside what a store holds under their keys: rows of the page.

    Attributes
    ----------
    fresh, equal, different, collided : ndarray
        It holds nothing that can be read; the same bytes; other bytes; another key of the same hash.
    described : list of Conflict
        The first of those that are different.
    broken_pages, broken_hashes : set of int
        What was found damaged under keys that are fresh.
    """

    fresh: NDArray[np.intp]
    equal: NDArray[np.intp] = field(default_factory=_none)
    different: NDArray[np.intp] = field(default_factory=_none)
    collided: NDArray[np.intp] = field(default_factory=_none)
    described: list[Conflict] = field(default_factory=list)
    broken_pages: set[int] = field(default_factory=set)
    broken_hashes: set[int] = field(default_factory=set)


def compare(
    database: Database,
    page: Page,
    hashes: NDArray[np.int64],
    rows: NDArray[np.intp],
    *,
    describe: int,
    whole: set[int] | None = None,
) -> Met:
    """Compare some rows of a page with what the store holds under their keys; `hashes` are those of all rows.

    `whole` has the large pages of the store that were found whole, so that each is looked at once.
    """
    whole = set() if whole is None else whole
    with database.read() as connection:
        index = select_index(connection, np.unique(hashes[rows]))
    if not len(index):
        return Met(rows)
    at = np.searchsorted(index[:, 0], hashes[rows]).clip(max=len(index) - 1)
    there = index[at, 0] == hashes[rows]
    met = Met(rows[~there])
    for page_id in np.unique(index[at[there], 1]).tolist():
        mine = there & (index[at, 1] == page_id)
        slots = index[at[mine], 2]
        with database.read() as connection, laid_in(connection, page_id) as lying:
            kept = None if lying is None else kept_rows(lying, page, slots, page_id, whole)
        if kept is None:
            met.broken_pages.add(page_id)
            met.fresh = np.concatenate([met.fresh, rows[mine]])
        else:
            _compare(page, rows[mine], *kept, met, describe)
    met.fresh = np.sort(met.fresh)
    return met


def _compare(page: Page, rows: NDArray[np.intp], kept: Page, slots: NDArray[np.int64], met: Met, describe: int) -> None:
    """Compare packages with those in the slots of one page of the store."""
    inside = (slots >= 0) & (slots < kept.n)
    right = inside.copy()
    right[inside] = (kept.keys[slots[inside]] == page.keys[rows[inside]]).all(axis=1)
    collided = inside & ~right
    collided[collided] = hashes_of(kept.keys[slots[collided]]) == hashes_of(page.keys[rows[collided]])
    wrong = ~right & ~collided
    met.broken_hashes.update(hashes_of(page.keys[rows[wrong]]).tolist())
    met.fresh = np.concatenate([met.fresh, rows[wrong]])
    met.collided = np.concatenate([met.collided, rows[collided]])
    rows, slots = rows[right], slots[right]
    same = _same_rows(page, rows, kept, slots)
    met.equal = np.concatenate([met.equal, rows[same]])
    met.different = np.concatenate([met.different, rows[~same]])
    for row, slot in zip(rows[~same].tolist(), slots[~same].tolist(), strict=True):
        if len(met.described) < describe:
            met.described.append(_conflict(page, row, kept, slot))


def kept_rows(
    laid: Laid, page: Page, slots: NDArray[np.int64], page_id: int, whole: set[int]
) -> tuple[Page, NDArray[np.int64]] | None:
    """A page of the store, of a large one the rows in some slots, and the slots in it; None where it is damaged."""
    try:
        meta, arrays = page_checks.entries(laid)
        if sum(entry.nbytes for entry in arrays.values()) <= LARGE:
            blob = Blob(laid.header, laid.digest, laid.data[:])
            return decode_page(blob, provenance=True, sources=False), slots
        _check_once(laid, page_id, whole)
        inside = np.unique(slots[(slots >= 0) & (slots < meta["n"])])
        types = {f"a:{name}": (array.dtype, array.shape[1:]) for name, array in page.arrays.items()}
        only = {*NAMED, *types} if _types(arrays) == types else NAMED  # what is not alike is not compared any further
        runs = np.split(inside, np.flatnonzero(np.diff(inside) != 1) + 1)
        parts = [page_checks.rows(laid, int(run[0]), int(run[-1]) + 1, only) for run in runs if len(run)]
        if not parts:
            return None
        return joined(parts), np.where(np.isin(slots, inside), np.searchsorted(inside, slots), -1)
    except CorruptPackageError:
        return None


def is_at(kept: Laid, page_id: int, slot: int, bare: Page, whole: set[int]) -> bool:
    """Whether a large page of the store, which is not damaged, has a package in a slot."""
    try:
        _check_once(kept, page_id, whole)
        meta, _ = page_checks.entries(kept)
        inside = 0 <= slot < meta["n"]
        return inside and np.array_equal(page_checks.rows(kept, slot, slot + 1, ("keys",)).keys, bare.keys)
    except CorruptPackageError:
        return False


def _check_once(laid: Laid, page_id: int, whole: set[int]) -> None:
    """Raise where a large page of the store is damaged, and was not found whole before."""
    if page_id not in whole:
        page_checks.checked(laid)
        whole.add(page_id)


def distance_of(laid: Laid, row: int, kept: Laid, slot: int) -> tuple[int | None, str]:
    """How far two packages are apart, and in which array they are farthest, empty where they are the same bytes."""
    (_, ours), (_, theirs) = page_checks.entries(kept), page_checks.entries(laid)
    if _types(ours) != _types(theirs):
        return None, "y"
    worst, where = 0, ""
    for name in sorted(_types(ours), key=lambda name: (name != "a:y", name)):
        each = ours[name].row_bytes
        for at in range(0, each, PART):
            end = min(each, at + PART)
            a, b = (
                ours[name].part(slot * each + at, slot * each + end),
                theirs[name].part(row * each + at, row * each + end),
            )
            if a.tobytes() != b.tobytes():
                distance = largest(a, b)
                if distance is None:
                    return None, name.removeprefix("a:")
                if distance > worst or not where:
                    worst, where = distance, name.removeprefix("a:")
    return worst, where


def _types(arrays: Mapping[str, page_checks.Entry]) -> dict[str, Any]:
    """Dtype and shape of one package's arrays."""
    return {name: (entry.dtype, entry.shape[1:]) for name, entry in arrays.items() if name.startswith("a:")}


def _same_rows(page: Page, rows: NDArray[np.intp], kept: Page, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which packages have the same arrays, byte for byte."""
    same = np.ones(len(rows), np.bool_)
    if page.op != kept.op or page.arrays.keys() != kept.arrays.keys():
        return ~same
    for name, array in page.arrays.items():
        other = kept.arrays[name]
        if (array.dtype.str, array.shape[1:]) != (other.dtype.str, other.shape[1:]):
            return np.zeros(len(rows), np.bool_)
        if array.nbytes:
            same &= (_bytes(array[rows]) == _bytes(other[slots])).all(axis=1)
    return same


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of each row, (n, …)."""
    if not len(array):
        return np.empty((0, 0), np.uint8)
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)


def _conflict(page: Page, row: int, kept: Page, slot: int) -> Conflict:
    worst: int | None = 0
    where = "y"
    for name in sorted(page.arrays.keys() | kept.arrays.keys(), key=lambda name: (name != "y", name)):
        ours, theirs = kept.arrays.get(name), page.arrays.get(name)
        distance = None if ours is None or theirs is None else largest(ours[slot], theirs[row])
        if distance is None:
            worst, where = None, name
            break
        if worst is not None and distance > worst:
            worst, where = distance, name
    return conflict_of(page, row, kept, slot, worst, where)


def conflict_of(page: Page, row: int, kept: Page, slot: int, ulps: int | None, array: str) -> Conflict:
    return Conflict(
        page.op,
        page.keys[row].tobytes().hex(),
        _ids(page.src_ids, row),
        _ids(page.versions, row),
        _ids(kept.src_ids, slot),
        _ids(kept.versions, slot),
        ulps,
        array,
    )


def _ids(column: NDArray[np.int64] | None, row: int) -> tuple[int, ...] | None:
    return None if column is None else tuple(column[row].tolist())
