"""Packages as they cross the seam: pages of them, where they were found, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

MISS, MEMORY, DISK = 0, 1, 2
"""The codes of a `hit` column, and of `Found.tier`."""

Hit: TypeAlias = Literal["miss", "memory", "disk"]
"""Where an answer came from, as `OpResult.hit` and `CallResult.hit` say it."""

HIT_NAMES: Final[tuple[Hit, ...]] = get_args(Hit)
"""The name of each code."""


@dataclass(slots=True, eq=False)  # frozen, it would take 2 µs more to make: a hit of a cold store takes some 50
class Page:
    """The packages of one bin, stacked: row i of every column is package i.

    Parameters
    ----------
    op : str
        Name of the op that computed the packages.
    keys : ndarray of uint8, shape (n, 16)
        The packages' keys.
    arrays : mapping of str to ndarray, each of shape (n, …)
        ``"y"`` and one ``"g<i>"`` a source, its gradient or its Jacobian, or ``"y"`` alone; dtype kind in ``biufc``.
        C-contiguous, but that what was read may have rows of other arrays between its own.
    cost_ns : int
        Measured cost in nanoseconds of computing all n packages.
    src_ids, versions : ndarray of int64, shape (n, k), or None
        Node ids and versions of the sources, where they were nodes: provenance for audits, never identity.
    lineage : str or None
        JSON of what the keys were made of beside the sources: the op's version, code, parameters, arithmetic.
    tokens : ndarray of uint8, shape (n, k, 16), or None
        Each source's token, and the cotangent's where it is in the key: with `lineage`, all that the keys are made of.
        Pages of earlier versions have their first 32 bits, uint32 of shape (n, k).
    sources : tuple of ndarray, each of shape (n, …), or None
        What the tokens are of, in their order, where it is kept: provenance, and no part of what a hit answers.
    alive : int or None
        Bytes of memory that the page keeps alive, where its arrays are read-only and nobody else's
        (`whiteboard.storage.page.grouping.owned`).
    kind : object or None
        The same one only in pages of one op whose arrays have the same names, dtypes and, of a row, shapes.
    """

    op: str
    keys: NDArray[np.uint8]
    arrays: Mapping[str, NDArray[Any]]
    cost_ns: int = 0
    src_ids: NDArray[np.int64] | None = None
    versions: NDArray[np.int64] | None = None
    lineage: str | None = None
    tokens: NDArray[np.uint8] | NDArray[np.uint32] | None = None
    sources: tuple[NDArray[Any], ...] | None = None
    alive: int | None = None
    kind: object = None

    @property
    def n(self) -> int:
        """Number of packages in the page."""
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        """Bytes of all columns, as they lie in memory."""
        total = self.keys.nbytes
        for array in self.arrays.values():
            total += array.nbytes
        for column in (self.src_ids, self.versions, self.tokens, *(self.sources or ())):
            if column is not None:
                total += column.nbytes
        return total


@dataclass(slots=True, eq=False)
class Found:
    """Where each of n keys was found: columns, so that a caller gathers page by page.

    ``page[i]`` indexes `pages`, or is -1 for a miss; ``slot[i]`` is the row in that page; ``tier[i]`` is
    `MISS`, `MEMORY` or `DISK`.
    """

    pages: list[Page]
    page: NDArray[np.int64]
    slot: NDArray[np.int64]
    tier: NDArray[np.uint8]

    @classmethod
    def one(cls, page: Page, row: int, tier: int) -> Found:
        """That one key was found, in a row of a page."""
        return cls([page], _FIRST, np.array([row]) if row else _FIRST, _TIERS[tier])


def _constant(value: int, dtype: type[np.int64 | np.uint8]) -> NDArray[Any]:
    array = np.array([value], dtype)
    array.flags.writeable = False
    return array


_FIRST: Final = _constant(0, np.int64)
_TIERS: Final = [_constant(tier, np.uint8) for tier in (MISS, MEMORY, DISK)]

NOT_FOUND: Final = Found([], _constant(-1, np.int64), _FIRST, _TIERS[MISS])
"""That one key was found nowhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Renamed:
    """Other keys for some packages of a page.

    Parameters
    ----------
    rows : ndarray of int, shape (m,)
        Which of them, ascending.
    keys : ndarray of uint8, shape (m, 16)
    tokens : ndarray of uint8, shape (m, k, 16)
    lineage : str
        What the page of these packages says from then on.
    kept : mapping of str to int
        Why the others keep their keys, and how many.
    """

    rows: NDArray[np.intp]
    keys: NDArray[np.uint8]
    tokens: NDArray[np.uint8]
    lineage: str
    kept: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class PageSummary:
    """The packages of one page, without their arrays.

    Parameters
    ----------
    page_id, op : int, str
    keys : ndarray of uint8, shape (n, 16)
    arrays : mapping of str to (dtype, shape)
        Of one package: ``"y"``, ``"g0"``, …
    lineage : mapping
        What the page says of its keys; empty for pages of an older version.
    src_ids, versions : ndarray, shape (n, k), or None
    tokens : ndarray, (n, k, 16) or (n, k), or None
        See `Page`.
    """

    page_id: int
    op: str
    keys: NDArray[np.uint8]
    arrays: Mapping[str, tuple[str, tuple[int, ...]]]
    lineage: Mapping[str, Any]
    src_ids: NDArray[np.int64] | None
    versions: NDArray[np.int64] | None
    tokens: NDArray[np.uint8] | NDArray[np.uint32] | None


class RowSize(NamedTuple):
    """What one package has of an array: bytes of a number, and how many numbers."""

    itemsize: int
    numbers: int

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return self.itemsize * self.numbers


@dataclass(frozen=True, slots=True)
class PageHeader:
    """What the row of a page says of it; nothing has been checked."""

    page_id: int
    op: str
    packages: int
    lineage: str | None
    tokens: bool
    """Whether it has whole tokens, or the sources that they are of."""
    sizes: Mapping[str, RowSize]
    """Of y, gradients and sources, by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Some packages of one page: how many, and `page` with them alone, None where it cannot be read."""

    page_id: int
    op: str
    n: int
    page: Page | None


def results_told(hit: NDArray[np.uint8], y: NDArray[Any], failed: int = 0) -> str:
    """Say what n results are: how many, of what shape and dtype, and where they came from."""
    counts = np.bincount(hit, minlength=len(HIT_NAMES)).tolist()
    counts[MISS] -= failed
    told = [*zip(counts, HIT_NAMES, strict=True), (failed, "failed")]
    came = ", ".join(f"{count:,} {name}" for count, name in told if count)
    return f"{len(hit):,} results, y {y.dtype} of shape {y.shape[1:]}: {came or 'none'}"
