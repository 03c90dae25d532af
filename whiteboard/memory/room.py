"""Memory that large data is read, or computed, into: parts of large pages where the system has them.

New memory costs by the page. A part of which nobody has a view any more goes back to the system, whatever lies beside
it in its page, when the next is asked for or a page is held in memory, or with all others of its region; a few are
kept, as who reads one result after another wants them, and so is the last region of a batch, for the next batch.
"""

from __future__ import annotations

import mmap
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, Final

import numpy as np

from whiteboard.concurrency import locks

LEAST_BYTES: Final = 32 * 2**10
"""What has so many bytes is read into a room: to touch 384 KB for the first time takes 160 µs in pages of 4 KB, and 30
in large ones."""

_LARGE: Final = 2 * 2**20
_ALIGNED: Final = 16
# Address space, of which memory is taken as it is filled; what is not much smaller has one for itself.
_REGION_BYTES: Final = 32 * 2**20
# So many parts are kept, of so many bytes at most.
_SPARE, _SPARE_BYTES = 4, 2 * 2**20
_SHELVES_BYTES: Final = 32 * 2**20
"""The last shelves are kept if they are no larger: zeroed by the kernel again they take 20 to 40 µs a MB, and 2 ms if a
virtual machine has given their memory back to its host."""
_ADVICE: Final = getattr(mmap, "MADV_HUGEPAGE", None)


class Region(mmap.mmap):
    """Address space whose parts are lent one behind the other.

    Attributes
    ----------
    end : int
        Where the next part begins.
    is_kept : bool
        Whether what came back stays for those who take all of it.
    """

    end = 0
    is_kept = False

    def __init__(self, *_: object, **__: object) -> None:
        self._lent: set[_Part] = set()
        self._back: deque[tuple[int, int]] = deque()

    def lend(self, root: object, start: int, end: int) -> None:
        """Hear of what is lent, and of the whole pages that belong to it alone, if any."""
        part = _Part(root, _dead.append)
        part.region, part.at, part.size = weakref.ref(self), start, max(0, end - start)
        self._lent.add(part)

    def take_back(self, part: _Part) -> None:
        """Take a part back of which nobody has a view."""
        # In this order: once nothing is lent, all has come back.
        self._back.append((part.at, part.size))
        self._lent.discard(part)
        if not self.is_kept:
            self.give_back()

    def give_back(self) -> None:
        """Give what came back to the system, but for a little."""
        self.is_kept = False
        with suppress(IndexError):
            while True:
                at, size = self._back.popleft()
                if self.end and size <= _SPARE_BYTES and len(_spare) < _SPARE:  # of shelves it may be any size
                    _spare.append((self, at, size))
                elif size:
                    self.drop(at, size)

    def take_all(self) -> bool:
        """Take all of it, if it was kept and all has come back."""
        if not self.is_kept or self._lent:
            return False
        self._back.clear()
        return True

    def drop(self, at: int, size: int) -> None:
        """Give the memory of a part back to the system."""
        self.madvise(mmap.MADV_DONTNEED, at, size)


class _Part(weakref.ref[object]):
    """A part that is lent; when nobody has a view of it any more it is among the dead.

    It is a callback in C that puts it there: an interrupt that came into one in Python would be lost.
    """

    __slots__ = ("at", "region", "size")
    __hash__ = object.__hash__

    region: weakref.ref[Region]
    at: int
    size: int

    def __eq__(self, other: object) -> bool:
        return self is other


class Room:
    """Memory that is lent for reading only once it is full, so that views of it may be kept.

    Attributes
    ----------
    into : memoryview
        What is to be filled.
    is_new : bool
        Whether all of it is zero.
    """

    __slots__ = ("_root", "into", "is_new")

    def __init__(self, root: np.ndarray[Any, np.dtype[np.uint8]], into: memoryview, *, is_new: bool = True) -> None:
        self._root, self.into, self.is_new = root, into, is_new

    def part(self, at: int, nbytes: int) -> Room:
        """Return some of it as a room, which keeps all of it."""
        return Room(self._root[at : at + nbytes], self.into[at : at + nbytes], is_new=self.is_new)

    def lent(self) -> memoryview:
        """Return all of it; no array of these bytes can be made writable."""
        # NumPy looks through a memoryview at whose it is: that is an array then, which cannot be either.
        return self._root.data


def room(nbytes: int) -> Room | None:
    """Return room for so many bytes; None where the system has no large pages to ask for, or no memory."""
    found = _found(nbytes)
    if found is None:
        return None
    region, at, is_new = found
    view = memoryview(region)[at : at + nbytes]
    root = np.frombuffer(view.toreadonly(), np.uint8)
    region.lend(root, at, at + _whole_pages(nbytes))
    return Room(root, view, is_new=is_new)


def block(nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    """Return so many bytes for one who alone is to see them; None as of a room."""
    found = _found(nbytes)
    if found is None:
        return None
    region, at, _ = found
    root = np.frombuffer(region, np.uint8, nbytes, at)
    region.lend(root, at, at + _whole_pages(nbytes))
    return root


def _found(nbytes: int) -> tuple[Region, int, bool] | None:
    """Where so many bytes are, and whether all of them are zero."""
    if _ADVICE is None:
        return None
    size = _whole_pages(nbytes)
    try:
        if _dead:
            _bury()
        kept = _kept(size) if _spare else None
        region, at = kept or _next(size)
    except OSError:
        return None
    return region, at, kept is None


def rooms(groups: Sequence[Sequence[int]]) -> list[Iterator[Room]] | None:
    """Return rooms for so many bytes each, made as they are asked for; those of a group lie one behind the other.

    None as of one.
    """
    made = shelves([*map(sum, groups)])
    return None if made is None else [map(shelf.room, sizes) for shelf, sizes in zip(made, groups, strict=True)]


def beside(sizes: Sequence[int]) -> list[Room | None]:
    """Return rooms for so many bytes each, one beside the other in the same memory; none for what is small there."""
    total = sum(sizes)
    apart = [0 if is_small(size, total, len(sizes)) else aligned(size) for size in sizes]
    made = room(sum(apart)) if total >= LEAST_BYTES else None
    if made is None:
        return [None] * len(sizes)
    places = zip(accumulate(apart, initial=0), sizes, apart, strict=False)
    return [made.part(at, size) if taken else None for at, size, taken in places]


def aligned(nbytes: int) -> int:
    """Return how many bytes further the next array may begin."""
    return -(-nbytes // _ALIGNED) * _ALIGNED


def is_small(nbytes: int, total: int, count: int) -> bool:
    """Whether an array is so small among as many in `total` bytes of memory that it is not to keep them alive."""
    return 2 * count * nbytes < total


class Shelf:
    """Address space of which rooms are taken one behind the other."""

    __slots__ = ("__weakref__", "_at", "_is_new", "_readable", "_region", "_view")

    def __init__(self, region: Region, at: int, *, is_new: bool) -> None:
        self._region, self._at, self._is_new = region, at, is_new
        self._view = memoryview(region)
        self._readable = self._view.toreadonly()
        region.lend(self, 0, 0)

    def room(self, nbytes: int) -> Room:
        """Return the next so many bytes; all of them are no more than the shelf was made for."""
        at, end = self._at, self._at + nbytes
        root = np.frombuffer(self._readable, np.uint8, nbytes, at) if nbytes else np.empty(0, np.uint8)
        # a page that two of them share is given back with all of the region
        self._region.lend(root, _whole_pages(at), end // mmap.PAGESIZE * mmap.PAGESIZE)
        self._at = end
        return Room(root, self._view[at:end], is_new=self._is_new)


def shelves(sizes: Sequence[int]) -> list[Shelf] | None:
    """Return shelves for so many bytes each; None as of a room. Memory is taken as they are filled."""
    global _last
    if _ADVICE is None:
        return None
    starts = [0, *accumulate(map(_whole_pages, sizes))]
    size = starts.pop()
    try:
        _bury()
        with _lock:
            kept, _last = _last, None
            region = kept if kept is not None and size <= len(kept) <= size + size // 8 and kept.take_all() else None
            is_new = region is None
            if region is None:
                if kept is not None:
                    kept.give_back()
                region = _region(size)
                region.is_kept = size <= _SHELVES_BYTES
            made = [Shelf(region, start, is_new=is_new) for start in starts]
            _last = region if region.is_kept else None
            return made
    except (OSError, OverflowError):
        return None


def tidy() -> None:
    """Give memory back of which nobody has a view any more, where there is some."""
    global _last
    if _dead:
        _bury()
    if _last is not None:
        with _lock:
            kept, _last = _last, None
        if kept is not None:
            kept.give_back()


def _whole_pages(nbytes: int) -> int:
    return -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE


def _bury() -> None:
    """Take back what nobody has a view of any more."""
    with suppress(IndexError):
        while True:
            part = _dead.popleft()
            if (region := part.region()) is not None:
                region.take_back(part)


def _kept(size: int) -> tuple[Region, int] | None:
    """Return a part that was kept, if the last ones have this size; others go back."""
    with suppress(IndexError):
        while True:
            region, at, had = _spare.pop()
            if had == size:
                return region, at
            region.drop(at, had)
    return None


def _next(size: int) -> tuple[Region, int]:
    """Return a part that is new."""
    global _open
    if size > _REGION_BYTES // 4:
        return _region(size), 0
    with _lock:
        if _open is None or _open.end + size > len(_open):
            if _open is not None:
                _open.madvise(mmap.MADV_NOHUGEPAGE)  # else the kernel may fill the holes again that parts leave
            _open = _region(_REGION_BYTES)
        region, at = _open, _open.end
        region.end = at + size
    return region, at


def _region(nbytes: int) -> Region:
    assert _ADVICE is not None
    # What has whole pages begins at one; then the rest of the last one is given back.
    made = Region(-1, -(-nbytes // _LARGE) * _LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    made.resize(nbytes)
    made.madvise(_ADVICE)
    return made


_lock = locks.rlock()
_open: Region | None = None
_last: Region | None = None
_spare: deque[tuple[Region, int, int]] = deque()
_dead: deque[_Part] = deque()
