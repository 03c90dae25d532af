"""Where pages go that are read at once: arrays of one name lie one behind the other in memory.

Who wants a column of all of them has it then, and copies nothing (`whiteboard.records.adjacent.together`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, NamedTuple

from whiteboard.errors import CorruptPackageError
from whiteboard.storage.page.codec import BLOSC2, RAW, described
from whiteboard.storage.page.digests import blocks_in, most_bytes
from whiteboard.storage.page.format import HEADER_BYTES
from whiteboard.storage.page.room import Room, rooms
from whiteboard.storage.page.spread import Part, Spread

LEAST_BYTES: Final = 2**20
"""Arrays of one name that have less in all are not worth a region of memory."""

MOST_BYTES: Final = 128 * 2**20
"""More than so many in all are not stacked: a page that is held in memory keeps what was let go of in its region, until
there is another to be held."""

_NAMED: Final = "a:"
_ARRAYS: Final = b',"arrays":['
_MOST_SAID: Final = 2**16


class _Array(NamedTuple):
    """Where an array lies in the data; of one that answers hits what it shares with those beside it, and its bytes."""

    start: int
    end: int
    name: str
    codec: str
    kind: tuple[Any, ...] | None
    nbytes: int


def spread(pages: Sequence[tuple[object, object]]) -> Iterator[Spread | None]:
    """Yield where the data of pages goes, each given by its header and digest, in this order.

    None of one whose header is not what was written, or whose arrays are too little, or alone.
    """
    laid = [_laid(header, digest) for header, digest in pages]
    sizes: dict[Any, list[int]] = defaultdict(list)
    for arrays in laid:
        for array in arrays:
            if array.kind is not None:
                sizes[array.kind].append(array.nbytes)
    large = {kind: each for kind, each in sizes.items() if len(each) > 1 and sum(each) >= LEAST_BYTES}
    found = rooms([*large.values()]) if 0 < sum(map(sum, large.values())) <= MOST_BYTES else None
    made = {} if found is None else dict(zip(large, found, strict=True))
    for arrays in laid:
        yield _spread(arrays, made)


def _spread(arrays: Sequence[_Array], made: Mapping[Any, Iterator[Room]]) -> Spread | None:
    parts: list[Part] = []
    decoded: dict[str, Room] = {}
    raw = False
    for start, end, name, codec, kind, _ in arrays:
        room = next(made[kind]) if kind in made else None
        if room is not None and codec == RAW:
            parts.append((start, end, room))
            raw = True
            continue
        if room is not None:
            decoded[name] = room
        if parts and parts[-1][2] is None:
            start, *_ = parts.pop()
        parts.append((start, end, None))
    return Spread(parts, decoded) if raw or decoded else None


def _laid(header: object, digest: object) -> Sequence[_Array]:
    """What a page's data is made of, one behind the other; nothing where the header is not to be believed."""
    if type(header) is not bytes or type(digest) is not bytes or len(header) > HEADER_BYTES:
        return ()
    try:
        if blocks_in(header, digest) is None:
            return ()
        said = header[header.rindex(_ARRAYS) + 1 :]
        arrays = _arrays(said) if len(said) <= _MOST_SAID else ()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, CorruptPackageError):
        return ()
    return arrays if arrays and arrays[-1].end <= most_bytes(header) else ()


@lru_cache(64)
def _arrays(said: bytes) -> Sequence[_Array]:
    """The arrays that a header ends in, as many do; nothing where they do not lie one behind the other."""
    arrays = sorted([_array(*entry) for entry in json.loads(b"{" + said)["arrays"]], key=attrgetter("start"))
    ends = [0, *(array.end for array in arrays)]
    fits = all(array.start == before < array.end for array, before in zip(arrays, ends[:-1], strict=True))
    return arrays if fits else ()


def _array(name: str, dtype: object, shape: Any, codec: str, start: int, length: int) -> _Array:
    kind, nbytes = None, 0
    if name.startswith(_NAMED) and codec in (RAW, BLOSC2):
        _, nbytes = described(dtype, shape)
        kind = None if codec == RAW and length != nbytes else (name, dtype, *shape[1:])
    return _Array(start, start + length, name, codec, kind, nbytes)
