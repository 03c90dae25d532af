"""Packages that wait to be written: in the order they came, and found by key as soon as somebody asks for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from whiteboard.storage.base import MEMORY, Page
from whiteboard.storage.index import PageIndex, footprint
from whiteboard.storage.reading import Gathering


@dataclass(frozen=True, slots=True)
class WriteBehind:
    """When pending packages are written: at so many of them, or bytes, or so many seconds after the first.

    And as soon as computing them again would cost more than `cost_ns`: whatever kills the process, no more is lost.
    """

    rows: int = 32_768
    nbytes: int = 32 * 2**20
    seconds: float = 5.0
    cost_ns: int = 250_000_000


class Pending:
    """What a store has taken and not yet written. Not locked: its owner is.

    Attributes
    ----------
    pages : list of Page
    rows : int
        Packages in them; one that was put twice counts twice.
    nbytes : int
        Bytes of memory that all of it takes.
    cost_ns : int
        What computing all of it took.
    """

    def __init__(self) -> None:
        self.clear()

    def __len__(self) -> int:
        """Number of packages, each counted once."""
        return len(self._indexed())

    def find(self, keys: Sequence[bytes], found: Gathering) -> NDArray[np.intp]:
        """Say which keys are here; returns the rows of the others."""
        if not self.pages:
            return np.arange(len(keys))
        index = self._indexed()
        places = index.places(keys)
        held = np.flatnonzero(places >= 0)
        numbers, slots = index.split(places[held])
        for number in np.unique(numbers).tolist():
            mine = numbers == number
            found.add(index.pages[number], held[mine], slots[mine], MEMORY)
        return np.flatnonzero(places < 0)

    def add(self, page: Page) -> None:
        """Take a page; of a package that is here already, the first one counts."""
        self.pages.append(page)
        self.rows += page.n
        self.nbytes += footprint(page)
        self.cost_ns += page.cost_ns

    def full(self, bounds: WriteBehind) -> bool:
        """Whether it is time to write."""
        return self.rows >= bounds.rows or self.nbytes >= bounds.nbytes or self.cost_ns >= bounds.cost_ns

    def remove(self, count: int) -> None:
        """Let the first pages go."""
        rest = self.pages[count:]
        self.clear()
        for page in rest:
            self.add(page)

    def clear(self) -> None:
        """Let everything go."""
        self.pages: list[Page] = []
        self.rows = self.nbytes = self.cost_ns = 0
        self._index, self._seen = PageIndex(), 0

    def _indexed(self) -> PageIndex:
        """The index, with the pages in it that came since it was last used: most are written before anyone asks."""
        for page in islice(self.pages, self._seen, None):
            self._index.add(page)
        self._seen = len(self.pages)
        return self._index
