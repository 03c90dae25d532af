"""Packages that wait to be written: in the order they came, and found by key as soon as somebody asks for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whiteboard.records.packages import MEMORY, Page
from whiteboard.storage.cache.lookup import Gathering
from whiteboard.storage.cache.page_index import PageIndex, footprint
from whiteboard.storage.sql.page_row import distinct


@dataclass(frozen=True, slots=True)
class WriteBehind:
    """When pending packages are written: at so many of them, or bytes, or so many seconds after the first.

    And as soon as computing them again would cost more than `cost_ns`, or `worth` times what writing them does, which
    is `flush_ns`, `bin_ns` a bin and `package_ns` a package: whatever kills the process, no more is lost.
    """

    rows: int = 32_768
    nbytes: int = 32 * 2**20
    seconds: float = 5.0
    cost_ns: int = 250_000_000
    worth: int = 10
    flush_ns: int = 1_500_000
    bin_ns: int = 30_000
    package_ns: int = 10_000


class Pending:
    """What a store has taken and not yet written. Not locked: its owner is.

    All of it follows from the list of pages: sums and index are brought up to it when they are asked for, so that an
    interrupt leaves a page that is there or one that is not, and nothing between.

    Attributes
    ----------
    pages : list of Page
        What was taken, in its order.
    """

    def __init__(self) -> None:
        self.clear()

    def __len__(self) -> int:
        """Number of packages, each counted once."""
        return len(self._indexed())

    @property
    def rows(self) -> int:
        """Packages in the pages; one that was put twice counts twice."""
        return self._summed().rows

    @property
    def nbytes(self) -> int:
        """Bytes of memory that all of it takes."""
        return self._summed().nbytes

    def find_one(self, key: bytes) -> tuple[Page, int] | None:
        """The page and row of a key, None where it is not here."""
        return self._indexed().find(key)

    def find(self, keys: Sequence[bytes], found: Gathering) -> NDArray[np.intp]:
        """Say which keys are here; returns the rows of the others."""
        if not self.pages:
            return np.arange(len(keys))
        index = self._indexed()
        places = index.places(keys)
        held = np.flatnonzero(places >= 0)
        numbers, slots = index.split(places[held])
        for number in distinct(numbers).tolist():
            mine = numbers == number
            found.add(index.pages[number], held[mine], slots[mine], MEMORY)
        return np.flatnonzero(places < 0)

    def add(self, page: Page) -> None:
        """Take a page; of a package that is here already, the first one counts."""
        self.pages.append(page)

    def full(self, bounds: WriteBehind) -> bool:
        """Whether it is time to write."""
        now = self._summed()
        worth = bounds.worth * (bounds.flush_ns + bounds.bin_ns * now.pages + bounds.package_ns * now.rows)
        return now.rows >= bounds.rows or now.nbytes >= bounds.nbytes or now.cost_ns >= min(bounds.cost_ns, worth)

    def remove(self, count: int) -> None:
        """Let the first pages go."""
        self._hold(self.pages[count:])

    def clear(self) -> None:
        """Let everything go."""
        self._hold([])

    def _hold(self, pages: list[Page]) -> None:
        # Sums and index say how many pages of which list they are of, so the list may be put in place alone.
        self.pages = pages
        self._sums, self._index = _Sums(pages), _Seen(pages)

    def _summed(self) -> _Sums:
        """The sums, with the pages in them that came since they were last asked for."""
        pages, sums = self.pages, self._sums
        if sums.of is not pages:
            sums = _Sums(pages)
        if sums.pages == len(pages):
            return sums
        for page in pages[sums.pages :]:
            sums = _Sums(
                pages, sums.pages + 1, sums.rows + page.n, sums.nbytes + footprint(page), sums.cost_ns + page.cost_ns
            )
        self._sums = sums
        return sums

    def _indexed(self) -> PageIndex:
        """The index, with the pages in it that came since it was last used: most are written before anyone asks."""
        if self._index.of is not self.pages or self._index.index.torn:
            self._index = _Seen(self.pages)
        seen = self._index
        for page in self.pages[seen.pages :]:
            seen.index.add(page)  # once more, after an interrupt: keys that it has stay where they are
            seen.pages += 1
        return seen.index


class _Sums(NamedTuple):
    """What the first pages of a list come to."""

    of: list[Page]
    pages: int = 0
    rows: int = 0
    nbytes: int = 0
    cost_ns: int = 0


@dataclass(slots=True, eq=False)
class _Seen:
    """The index of the first pages of a list."""

    of: list[Page]
    pages: int = 0
    index: PageIndex = field(default_factory=PageIndex)
