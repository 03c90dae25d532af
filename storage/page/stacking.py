"""Where pages go that are read at once: arrays of one name lie one behind the other in memory.

Who wants a column of all of them has it then, and copies nothing (`whiteboard.records.adjacent.together`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from whiteboard.memory.room import Room, rooms
from whiteboard.storage.page.landing import Arrays

LEAST_BYTES: Final = 2**20
"""Arrays of one name that have less in all are not worth a region of memory."""

MOST_BYTES: Final = 128 * 2**20
"""More than so many in all are not stacked: a page that is held in memory keeps what was let go of in its region, until
there is another to be held."""


def stacked(pages: Sequence[Arrays]) -> Iterator[Sequence[Room | None]]:
    """Yield where the arrays of pages go, in this order; no room is for those that are too little, or alone."""
    sizes: dict[Any, list[int]] = defaultdict(list)
    for page in pages:
        for kind, nbytes in page.kinds:
            sizes[kind].append(nbytes)
    large = {kind: each for kind, each in sizes.items() if len(each) > 1 and sum(each) >= LEAST_BYTES}
    found = rooms([*large.values()]) if 0 < sum(map(sum, large.values())) <= MOST_BYTES else None
    made = {} if found is None else dict(zip(large, found, strict=True))
    for page in pages:
        yield [next(made[kind]) if kind in made else None for kind, _ in page.kinds]
