"""Impulses: a multiset of vectors addressed to nodes, summed in an order made from content alone.

Arrival never matters: rows are sorted by (node, job key, slot, bytes) before they are added up, so any thread,
split or order of pushes gives the same bits. What is measured along the way (stress, residuals) is summed by
`math.fsum`, whose result is exactly rounded and so knows no order either.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whiteboard.types import Array, Ids


@dataclass(frozen=True, slots=True, eq=False)
class Impulses:
    """m impulses onto rows of one arena.

    Parameters
    ----------
    arena : int
        Number of the arena that holds the attribute.
    rows : ndarray of int64, shape (m,)
        Its rows that the impulses are addressed to.
    keys : ndarray of uint8, shape (m, 16)
        The key of the job that each comes from.
    slots : ndarray of int64, shape (m,)
        The source slot.
    weights : ndarray of float64, shape (m,)
        The weight w that each carries.
    vectors : ndarray, shape (m, *arena shape)
    """

    arena: int
    rows: Ids
    keys: NDArray[np.uint8]
    slots: Ids
    weights: NDArray[np.float64]
    vectors: Array

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What a rule gets for m nodes: summed impulses (m, …), summed weights (m,), number of impulses (m,)."""

    vector: Array
    weight: NDArray[np.float64]
    count: Ids


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """Squared edge stresses and squared residuals of some jobs; `stress` is None where a target was 0."""

    stress: NDArray[np.float64] | None
    residual: NDArray[np.float64]


class Inbox:
    """The impulses and measures since the last commit. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._impulses: list[Impulses] = []
        self._measures: list[Measure] = []

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._impulses))

    def push(self, impulses: Sequence[Impulses], measures: Sequence[Measure] = ()) -> None:
        """Add impulses and measures, all at once."""
        with self._lock:
            self._impulses.extend(batch for batch in impulses if len(batch))
            self._measures.extend(measures)

    def clear(self) -> None:
        """Forget everything: a commit has consumed it."""
        with self._lock:
            self._impulses.clear()
            self._measures.clear()

    def sums(self) -> dict[int, tuple[Ids, Sums]]:
        """Return, for each arena with impulses, its rows in ascending order and their sums."""
        with self._lock:
            batches = list(self._impulses)
        arenas = sorted({batch.arena for batch in batches})
        return {arena: ordered_sum([batch for batch in batches if batch.arena == arena]) for arena in arenas}

    def stress(self) -> float | None:
        """Return Σσ² of the jobs that had targets, or None where there were none or σ is undefined."""
        with self._lock:
            columns = [measure.stress for measure in self._measures]
        known = [column for column in columns if column is not None]
        return fsum(known) if known and len(known) == len(columns) else None

    def residual_norm(self) -> float | None:
        """Return √Σr² over all residuals, or None where there were none."""
        with self._lock:
            columns = [measure.residual for measure in self._measures]
        return math.sqrt(fsum(columns)) if columns else None


def fsum(columns: Sequence[NDArray[np.float64]]) -> float:
    """Return the exactly rounded sum of all elements; infinity or NaN where it is not finite."""
    flat = np.concatenate([np.ravel(column) for column in columns])
    try:
        return math.fsum(flat)
    except (OverflowError, ValueError):  # the intermediate sum overflows, or infinities of both signs
        return math.nan if np.isnan(flat).any() else math.inf


def ordered_sum(batches: Sequence[Impulses]) -> tuple[Ids, Sums]:
    """Sum impulses onto one arena, row by row, in content order; return the rows and their sums."""
    rows = np.concatenate([batch.rows for batch in batches])
    keys = np.ascontiguousarray(np.concatenate([batch.keys for batch in batches])).view(">u8")
    slots = np.concatenate([batch.slots for batch in batches])
    weights = np.concatenate([batch.weights for batch in batches])
    vectors = np.concatenate([batch.vectors for batch in batches])
    order = np.lexsort((slots, keys[:, 1], keys[:, 0], rows))
    columns = (rows[order], keys[order, 0], keys[order, 1], slots[order])
    same = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    if same.any():
        order = _break_ties(order, same, weights, vectors)
    starts = np.flatnonzero(np.diff(columns[0], prepend=columns[0][0] - 1))
    with np.errstate(over="ignore", invalid="ignore"):  # the commit names the nodes of a sum that overflows
        vector = np.add.reduceat(vectors[order], starts, axis=0)
        weight = np.add.reduceat(weights[order], starts)
    count = np.diff(starts, append=len(rows))
    return columns[0][starts], Sums(vector, weight, count)


def _break_ties(order: Ids, same: NDArray[np.bool_], weights: NDArray[np.float64], vectors: Array) -> Ids:
    """Order the impulses of one (node, key, slot) by their bytes: vector first, then weight."""
    order = order.copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
    for start, end in edges.reshape(-1, 2):
        tied = order[start : end + 1].tolist()
        tied.sort(key=lambda i: (vectors[i].tobytes(), weights[i].tobytes()))
        order[start : end + 1] = tied
    return order
