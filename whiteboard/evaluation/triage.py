"""Triage: which jobs are hits, and which misses have to be computed, each key once.

A page that comes from disk is compared with what the op gives for these sources: a hit is an answer of the right names,
dtype and shapes, whatever the file says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.concurrency.lazy import lazy
from whiteboard.evaluation import contents
from whiteboard.ops.spec import Gradient
from whiteboard.records.packages import DISK, MEMORY, MISS, Found, Page
from whiteboard.storage.base import PackageStore
from whiteboard.types import Ids, Shape

_DISK: Final = bytes([DISK])


@dataclass(frozen=True)
class Form:
    """What an op gives for some sources: its name, the dtype, the shapes of one job's y and sources, and its gradient.

    `y` is None where only a run of the op tells.
    """

    op: str
    dtype: np.dtype
    y: Shape | None
    sources: Sequence[Shape]
    gradient: Gradient = "vjp"

    def fits(self, page: Page) -> bool:
        """Whether a page holds such packages; of one that is told to be as the last one that did it is known."""
        kind = page.kind
        if kind is not None and kind is self._fitting[-1]:
            return True
        arrays = page.arrays
        if page.op != self.op or "y" not in arrays:
            return False
        wanted = self._known if self.y is not None else self._wanted(arrays["y"].shape[1:])
        if arrays.keys() != wanted.keys():
            return False
        for name, form in wanted.items():  # noqa: SIM110: a generator takes as long as all of it
            array = arrays[name]
            if form != (array.dtype, array.shape[1:]):
                return False
        self._fitting[-1] = kind
        return True

    @lazy
    def _fitting(self) -> list[object]:
        return [None]

    @lazy
    def _known(self) -> dict[str, tuple[np.dtype, Shape]]:
        assert self.y is not None
        return self._wanted(self.y)

    def _wanted(self, y: Shape) -> dict[str, tuple[np.dtype, Shape]]:
        beside = contents.beside(self.gradient, y, self.sources)
        return {"y": (self.dtype, y)} | {f"g{slot}": (self.dtype, shape) for slot, shape in enumerate(beside)}


@dataclass(slots=True, eq=False)
class Triage:
    """Where the package of each of n jobs lies, or will lie once the misses are computed.

    `todo` holds the positions to compute, one for each missing key; `repeated` holds the other positions of those
    keys, and `twin` for each of them the one that is computed. `place` and `answer` fill the rest in. `computed` are
    the numbers of the pages that were not there before.
    """

    pages: list[Page]
    page: NDArray[np.int64]
    slot: NDArray[np.int64]
    hit: NDArray[np.uint8]
    todo: Ids
    repeated: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    twin: Ids = field(default_factory=lambda: np.empty(0, np.int64))

    computed: set[int] = field(default_factory=set)
    failed: dict[int, Exception] = field(default_factory=dict)
    waited: int = 0
    """Jobs that another process has answered meanwhile."""

    def place(self, positions: Ids, page: Page) -> None:
        """Say that `page` holds the packages of `positions`, in that order, which were computed."""
        self.computed.add(len(self.pages))
        self.page[positions] = len(self.pages)
        self.slot[positions] = np.arange(len(positions))
        self.pages.append(page)

    def answer(self, positions: Ids, found: Found) -> None:
        """Say where the packages of `positions` were found meanwhile; of a position that has none, nothing."""
        here = np.flatnonzero(found.page >= 0)
        self.page[positions[here]] = found.page[here] + len(self.pages)
        self.slot[positions[here]] = found.slot[here]
        self.hit[positions[here]] = found.tier[here]
        self.pages.extend(found.pages)

    def saved_ns(self) -> float:
        """Return the nanoseconds that hits have saved, by what it took to compute them where that is known."""
        if len(self.computed) == len(self.pages):
            return 0.0
        hits = np.bincount(self.page[self.hit != MISS], minlength=len(self.pages))
        numbers = [number for number in np.flatnonzero(hits).tolist() if number not in self.computed]
        return float(sum(hits[number] * self.pages[number].cost_ns / self.pages[number].n for number in numbers))

    def settle(self) -> None:
        """Give repeated misses the place of the one that was computed; they count as hits in memory."""
        self.page[self.repeated] = self.page[self.twin]
        self.slot[self.repeated] = self.slot[self.twin]
        self.hit[self.repeated] = MEMORY
        if self.failed:
            twins = zip(self.repeated.tolist(), self.twin.tolist(), strict=True)
            self.failed |= {position: self.failed[twin] for position, twin in twins if twin in self.failed}
            self.hit[list(self.failed)] = MISS


def find(store: PackageStore, keys: Sequence[bytes], form: Callable[[], Form], found: Found | None = None) -> Found:
    """Look n keys up, if they were not `found` yet; `form` says what a page has to hold, where one is from disk."""
    found = store.find(keys) if found is None else found
    if _DISK in found.tier.tobytes():  # a tenth of the time that NumPy takes for one
        found = _fitting(store, found, form())
    return found


def triage(store: PackageStore, keys: Sequence[bytes], form: Callable[[], Form], found: Found | None = None) -> Triage:
    """Look n keys up as `find` does, and list what is left to compute."""
    found = find(store, keys, form, found)
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


def _fitting(store: PackageStore, found: Found, form: Form) -> Found:
    """Make misses of what was found in pages that no such op has made."""
    fits = np.array([form.fits(page) for page in found.pages])
    if fits.all():
        return found
    for odd in np.flatnonzero(~fits).tolist():
        store.reject(found.pages[odd])
    number = np.append(np.where(fits, np.cumsum(fits) - 1, -1), -1)[found.page]
    pages = [page for page, good in zip(found.pages, fits.tolist(), strict=True) if good]
    return Found(pages, number, found.slot, np.where(number < 0, np.uint8(MISS), found.tier))


def compute_all(n: int) -> Triage:
    """Return the triage of n jobs that cannot be cached: all are to be computed."""
    none = np.full(n, -1, np.int64)
    return Triage([], none, none.copy(), np.full(n, MISS, np.uint8), np.arange(n, dtype=np.int64))
