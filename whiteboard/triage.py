"""Triage: which jobs are hits, and which misses have to be computed, each key once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from whiteboard.types import MEMORY, MISS, Found, Ids, Page


class Finder(Protocol):
    """The part of a store that triage needs."""

    def find(self, keys: Sequence[bytes], /) -> Found: ...


@dataclass(slots=True, eq=False)
class Triage:
    """Where the package of each of n jobs lies, or will lie once the misses are computed.

    `todo` holds the positions to compute, one for each missing key; `twin` maps each position to the one whose
    package it shares (itself but for repeated keys). `place` fills the rest in.
    """

    pages: list[Page]
    page: NDArray[np.int64]
    slot: NDArray[np.int64]
    hit: NDArray[np.uint8]
    todo: Ids
    twin: Ids

    def place(self, positions: Ids, page: Page) -> None:
        """Say that `page` holds the packages of `positions`, in that order."""
        self.page[positions] = len(self.pages)
        self.slot[positions] = np.arange(len(positions))
        self.pages.append(page)

    def settle(self) -> None:
        """Give repeated misses the place of the one that was computed; they count as hits in memory."""
        repeated = np.flatnonzero(self.twin != np.arange(len(self.twin)))
        self.page[repeated] = self.page[self.twin[repeated]]
        self.slot[repeated] = self.slot[self.twin[repeated]]
        self.hit[repeated] = MEMORY


def triage(store: Finder, keys: Sequence[bytes]) -> Triage:
    """Look n keys up and list what is left to compute."""
    found = store.find(keys)
    missing = np.flatnonzero(found.page < 0)
    twin = np.arange(len(keys), dtype=np.int64)
    first: dict[bytes, int] = {}
    todo = []
    for position in missing.tolist():
        seen = first.setdefault(keys[position], position)
        twin[position] = seen
        if seen == position:
            todo.append(position)
    return Triage(
        list(found.pages), found.page.copy(), found.slot.copy(), found.tier.copy(), np.array(todo, np.int64), twin
    )


def compute_all(n: int) -> Triage:
    """Return the triage of n jobs that cannot be cached: all are to be computed."""
    none = np.full(n, -1, np.int64)
    here = np.arange(n, dtype=np.int64)
    return Triage([], none, none.copy(), np.full(n, MISS, np.uint8), here, here.copy())
