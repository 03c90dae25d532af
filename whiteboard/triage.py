"""Triage: which jobs are hits, and which misses have to be computed, each key once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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

    `todo` holds the positions to compute, one for each missing key; `repeated` holds the other positions of those
    keys, and `twin` for each of them the one that is computed. `place` fills the rest in.
    """

    pages: list[Page]
    page: NDArray[np.int64]
    slot: NDArray[np.int64]
    hit: NDArray[np.uint8]
    todo: Ids
    repeated: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    twin: Ids = field(default_factory=lambda: np.empty(0, np.int64))

    def place(self, positions: Ids, page: Page) -> None:
        """Say that `page` holds the packages of `positions`, in that order."""
        self.page[positions] = len(self.pages)
        self.slot[positions] = np.arange(len(positions))
        self.pages.append(page)

    def settle(self) -> None:
        """Give repeated misses the place of the one that was computed; they count as hits in memory."""
        self.page[self.repeated] = self.page[self.twin]
        self.slot[self.repeated] = self.slot[self.twin]
        self.hit[self.repeated] = MEMORY


def triage(store: Finder, keys: Sequence[bytes]) -> Triage:
    """Look n keys up and list what is left to compute."""
    found = store.find(keys)
    todo = np.flatnonzero(found.page < 0)
    plan = Triage(list(found.pages), found.page.copy(), found.slot.copy(), found.tier.copy(), todo)
    wanted = keys if len(todo) == len(keys) else [keys[position] for position in todo.tolist()]
    if len(set(wanted)) == len(wanted):
        return plan
    first: dict[bytes, int] = {}
    twin = np.array([first.setdefault(key, at) for at, key in zip(todo.tolist(), wanted, strict=True)], np.int64)
    once = twin == todo
    plan.todo, plan.repeated, plan.twin = todo[once], todo[~once], twin[~once]
    return plan


def compute_all(n: int) -> Triage:
    """Return the triage of n jobs that cannot be cached: all are to be computed."""
    none = np.full(n, -1, np.int64)
    return Triage([], none, none.copy(), np.full(n, MISS, np.uint8), np.arange(n, dtype=np.int64))
