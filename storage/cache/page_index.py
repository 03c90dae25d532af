"""Pages held in memory, and where each of their keys lies: what the memory tier and the write-behind buffer share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.records.packages import Page
from whiteboard.storage.page.grouping import alive_bytes

# A place is one int, page number and row together: a dict of tuples would be slower and larger.
_ROW_BITS: Final = 28
_ROW_MASK: Final = (1 << _ROW_BITS) - 1

KEY_BYTES: Final = 192
"""Bytes that one key costs beside its page: the bytes object, the int, and its part of the dict."""

PAGE_OVERHEAD: Final = 1408
"""Bytes that one page costs beside its arrays: the objects that hold them."""


def key_list(keys: NDArray[np.uint8]) -> list[bytes]:
    """The rows of an (n, 16) array as bytes."""
    if len(keys) == 1:
        return [keys.tobytes()]
    rows: list[bytes] = np.ascontiguousarray(keys).view("V16").reshape(-1).tolist()
    return rows


def footprint(page: Page) -> int:
    """Bytes of memory that holding a page takes, its keys' index included."""
    alive = alive_bytes(page) if page.alive is None else page.alive
    return alive + PAGE_OVERHEAD + len(page.keys) * KEY_BYTES


class PageIndex:
    """Pages in order of use with a dict from key to place. Not locked: its owner is.

    Attributes
    ----------
    torn : bool
        Whether an interrupt came while it changed: then its owner lets it go, and makes another.
    """

    def __init__(self) -> None:
        self.pages: OrderedDict[int, Page] = OrderedDict()
        self.nbytes = 0
        self.torn = False
        self._places: dict[bytes, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def places(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """The place of each key, -1 where it is not held."""
        return np.fromiter(map(self._places.get, keys, repeat(-1)), np.int64, len(keys))

    def find(self, key: bytes) -> tuple[Page, int] | None:
        """The page and row of one key, None where it is not held."""
        place = self._places.get(key)
        return None if place is None else (self.pages[place >> _ROW_BITS], place & _ROW_MASK)

    def use(self, key: bytes) -> tuple[Page, int] | None:
        """As `find`; the page is then the one that was used last."""
        place = self._places.get(key)
        if place is None:
            return None
        number = place >> _ROW_BITS
        self.pages.move_to_end(number)
        return self.pages[number], place & _ROW_MASK

    @staticmethod
    def split(places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Page numbers and rows of places."""
        return places >> _ROW_BITS, places & _ROW_MASK

    def add(self, page: Page) -> int | None:
        """Hold a page; keys that are held already stay where they are. None if that leaves nothing to hold."""
        keys = key_list(page.keys)
        number = self._next
        base = number << _ROW_BITS
        self.torn = True
        if len(keys) == 1 and keys[0] not in self._places:
            self._places[keys[0]] = base
        elif self._places.keys().isdisjoint(keys):
            self._places.update(zip(keys, range(base, base + len(keys)), strict=True))
        else:
            fresh = [(key, base + row) for row, key in enumerate(keys) if key not in self._places]
            if not fresh:
                self.torn = False
                return None
            self._places.update(fresh)
        self._next += 1
        self.pages[number] = page
        self.nbytes += footprint(page)
        self.torn = False
        return number

    def remove(self, number: int) -> Page:
        """Let a page go."""
        self.torn = True
        page = self.pages.pop(number)
        low, high = number << _ROW_BITS, (number + 1) << _ROW_BITS
        for key in key_list(page.keys):
            if low <= self._places.get(key, -1) < high:
                del self._places[key]
        self.nbytes -= footprint(page)
        self.torn = False
        return page
