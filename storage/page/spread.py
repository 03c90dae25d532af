"""Data of one page that lies in several places of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from whiteboard.storage.page.room import LEAST_BYTES, Room, room

Part: TypeAlias = tuple[int, int, Room | None]
"""Where a part begins and ends in the data, and where it goes; None is anywhere."""


class Spread:
    """The data of one page, in memory: raw arrays where they are wanted, and what lies between them.

    Parameters
    ----------
    parts : sequence of Part
        One behind the other.
    decoded : mapping of str to Room
        Where those arrays go that are not raw, by name.
    """

    __slots__ = ("_parts", "_read", "decoded")

    def __init__(self, parts: Sequence[Part], decoded: Mapping[str, Room]) -> None:
        self._parts, self.decoded = parts, decoded
        self._read: list[bytes | memoryview] = []

    def __len__(self) -> int:
        return self._parts[-1][1]

    def __getitem__(self, part: slice) -> bytes | memoryview:
        """Some bytes; those of one part are a view."""
        start, end, _ = part.indices(len(self))
        found = self.views(start, end)
        return found[0] if len(found) == 1 else b"".join(found)

    def views(self, start: int, end: int) -> list[memoryview]:
        """Return bytes `start` to `end`: a view of each part that they lie in."""
        return [
            memoryview(read)[max(start - low, 0) : end - low]
            for (low, high, _), read in zip(self._parts, self._read, strict=True)
            if start < high and end > low
        ]

    def fill(self, read_into: Callable[[memoryview, int], None]) -> None:
        """Read all of it; `read_into` fills memory with bytes of the data that begin somewhere."""
        for start, end, place in self._parts:
            if place is None and end - start >= LEAST_BYTES:
                place = room(end - start)
            into = memoryview(bytearray(end - start)) if place is None else place.into
            read_into(into, start)
            self._read.append(into.tobytes() if place is None else place.lent())
