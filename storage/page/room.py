"""Memory that large data is read into: in large pages, where the system has them, as new memory costs by the page."""

from __future__ import annotations

import mmap
from typing import Final

import numpy as np

LEAST_BYTES: Final = 2 * 2**20
"""What has so many bytes is read into a room: the first touch of 24 MB in pages of 4 KB takes 9 ms, in large ones 1."""

_LARGE: Final = 2 * 2**20
_ADVICE: Final = getattr(mmap, "MADV_HUGEPAGE", None)


class Room(mmap.mmap):
    """Memory that is lent for reading only once it is full, so that views of it may be kept."""

    def lent(self) -> memoryview:
        """Return all of it; no array of these bytes can be made writable."""
        # NumPy looks through a memoryview at whose it is: that is an array then, which cannot be either.
        return np.frombuffer(memoryview(self).toreadonly(), np.uint8).data


def room(nbytes: int) -> Room | None:
    """Return room for so many bytes, at least `LEAST_BYTES`; None where the system has no large pages to ask for."""
    if _ADVICE is None:
        return None
    # What has whole pages begins at one; then the rest of the last one is given back.
    made = Room(-1, -(-nbytes // _LARGE) * _LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    made.resize(nbytes)
    made.madvise(_ADVICE)
    return made
