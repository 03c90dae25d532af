"""A page that is read as a whole: its blocks are looked at as they come, and its arrays go to where they are to lie."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from whiteboard.concurrency.parallel import overlapped
from whiteboard.memory.room import LEAST_BYTES, Room, beside, is_small, room
from whiteboard.records.packages import Page
from whiteboard.storage.page.codec import BLOSC2, RAW, Data, decode
from whiteboard.storage.page.digests import DIGEST_BYTES, unfit
from whiteboard.storage.page.format import THREADED_BYTES
from whiteboard.storage.page.page_checks import Place

_PIECE_BYTES: Final = 128 * 1024
"""So many bytes are read at a time: they are in the processor's cache while they are looked at and moved on."""

Span: TypeAlias = tuple[int, int]
"""Where an array begins and ends in the data."""


class _Step(NamedTuple):
    """Bytes that are read at once.

    Attributes
    ----------
    blocks : sequence of (int, int, int)
        Where a block, or what is here of one, begins and ends in them; and its number, -1 where it goes on behind them.
    moves : sequence of (int, int, int, int, int)
        An array, where it begins and ends in them, and where in the array that is.
    """

    low: int
    high: int
    blocks: Sequence[tuple[int, int, int]]
    moves: Sequence[tuple[int, int, int, int, int]]


class Arrays(NamedTuple):
    """What pages of equal headers hold, of which no array has rows that lie beside those of another one.

    Attributes
    ----------
    places : sequence of (str, Place)
        The keys, and what answers hits, by name.
    spans : sequence of Span
        Where they lie.
    kinds : sequence of (object, int)
        What arrays have in common that may lie behind one another in memory, and the bytes of each.
    end : int
        Where the last array of the page ends.
    nbytes : int
        Of all, in memory.
    has_chunks : bool
        Whether something has to be decoded.
    packed : tuple of Span
        Where all of them lie, if they can stay as they do: raw, one behind the other, and none of what answers is small
        beside the others, which who keeps it would keep too; else nothing.
    """

    op: str
    n: int
    lineage: str | None
    places: Sequence[tuple[str, Place]]
    spans: Sequence[Span]
    kinds: Sequence[tuple[object, int]]
    end: int
    nbytes: int
    has_chunks: bool
    packed: tuple[Span, ...]

    @classmethod
    def of(cls, op: str, n: int, lineage: str | None, places: Sequence[tuple[str, Place]], end: int) -> Arrays | None:
        """What a header says of them; None where they do not lie so, or are not what is ever written."""
        if any(place.length != place.nbytes if place.codec == RAW else place.codec != BLOSC2 for _, place in places):
            return None
        spans = tuple((place.offset, place.end) for _, place in places)
        kinds = tuple(((name, place.dtype.str, *place.shape[1:]), place.nbytes) for name, place in places)
        nbytes, chunks = sum(place.nbytes for _, place in places), any(place.codec != RAW for _, place in places)
        first, last = min(start for start, _ in spans), max(end for _, end in spans)
        behind = [first, *(end for _, end in spans)]
        fits = all(
            place.offset == at and (at - first) % place.dtype.alignment == 0
            for (_, place), at in zip(places, behind, strict=False)
        )
        alike = not any(is_small(place.nbytes, nbytes, len(places)) for name, place in places if name != "keys")
        packed = ((first, last),) if fits and alike and not chunks else ()
        return cls(op, n, lineage, places, spans, kinds, end, nbytes, chunks, packed)


class Landed(NamedTuple):
    """The arrays of a page in memory, as they were written; chunks are not decoded yet.

    Attributes
    ----------
    payloads : sequence of memoryview
        One an array; those of raw ones are read-only.
    rooms : sequence of (Room or None)
        Where chunks are decoded, one an array where there are any.
    """

    arrays: Arrays
    cost_ns: int
    payloads: Sequence[memoryview]
    rooms: Sequence[Room | None]

    def page(self) -> Page:
        """The page.

        Raises
        ------
        CorruptPackageError
            A chunk is none that is ever written.
        """
        of = self.arrays
        if not of.has_chunks:  # of memory that is read-only, and aligned
            raw = zip(of.places, self.payloads)  # noqa: B905 - of as many
            named: Any = {name: np.ndarray(place.shape, place.dtype, payload) for (name, place), payload in raw}
        else:
            decoded = map if of.nbytes < THREADED_BYTES else overlapped
            found = decoded(_decoded, zip(of.places, self.payloads, self.rooms, strict=True))
            named = {name: array for (name, _), array in zip(of.places, found, strict=True)}
        return Page(of.op, named.pop("keys"), named, self.cost_ns, lineage=of.lineage, alive=of.nbytes)


def land(
    arrays: Arrays, cost_ns: int, size: int, digests: bytes, data: Data, rooms: Sequence[Room | None] = ()
) -> Landed:
    """Read the arrays of a page, and look at the blocks that they lie in.

    Parameters
    ----------
    size, digests : int, bytes
        Bytes of a block, and the digests of all in base64.
    rooms : sequence of (Room or None), optional
        Where they are to lie, one an array.

    Raises
    ------
    CorruptPackageError
        A block is not what was written, or there are more or fewer digests than blocks.
    """
    length = len(data)
    try:
        wanted = binascii.a2b_base64(digests, strict_mode=True)
    except ValueError as error:
        raise unfit() from error
    if size < 1 or len(wanted) != DIGEST_BYTES * -(-length // size) or arrays.end > length:
        raise unfit()
    if not any(rooms):
        whole = room(arrays.nbytes) if arrays.packed and arrays.nbytes >= LEAST_BYTES else None
        if whole is not None:
            _read(data, _steps(arrays.packed, size, length), wanted, [whole.into])
            (first, _), lent = arrays.packed[0], whole.lent()
            return Landed(arrays, cost_ns, [lent[start - first : end - first] for start, end in arrays.spans], ())
        rooms = beside([place.nbytes for _, place in arrays.places])
    into = [
        memoryview(bytearray(place.length)) if given is None or place.codec != RAW else given.into
        for (_, place), given in zip(arrays.places, rooms, strict=True)
    ]
    _read(data, _steps(arrays.spans, size, length), wanted, into)
    read = [
        filled if place.codec != RAW else memoryview(bytes(filled)) if given is None else given.lent()
        for filled, (_, place), given in zip(into, arrays.places, rooms, strict=True)
    ]
    return Landed(arrays, cost_ns, read, rooms)


def _read(data: Data, steps: Sequence[_Step], wanted: bytes, into: Sequence[memoryview]) -> None:
    """Read data, compare its blocks with their digests, and move it to where it goes."""
    state: Any = None
    for low, high, blocks, moves in steps:
        piece = memoryview(data[low:high])
        if len(piece) != high - low:
            raise unfit()
        for start, end, number in blocks:
            state = blake3(piece[start:end]) if state is None else state.update(piece[start:end])
            if number >= 0:
                at = DIGEST_BYTES * number
                if state.digest(DIGEST_BYTES) != wanted[at : at + DIGEST_BYTES]:
                    raise unfit()
                state = None
        for column, start, end, first, last in moves:
            into[column][first:last] = piece[start:end]


def _decoded(array: tuple[tuple[str, Place], memoryview, Room | None]) -> NDArray[Any]:
    (_, place), payload, into = array
    return decode(place.codec, payload, place.dtype, place.nbytes, place.shape, into)


@lru_cache(64)
def _steps(spans: Sequence[Span], size: int, length: int) -> Sequence[_Step]:
    """How data of so many bytes, in blocks of `size`, is read for some spans of it."""
    unit = -(-_PIECE_BYTES // size) * size if size < _PIECE_BYTES else _PIECE_BYTES
    steps = []
    wanted = min(length, -(-max((end for _, end in spans), default=0) // size) * size)
    for low in range(0, wanted, unit):
        high = min(low + unit, wanted)
        blocks = []
        for number in range(low // size, -(-high // size)):
            start, end = max(low, number * size), min(high, (number + 1) * size)
            is_last = end == min(length, (number + 1) * size)
            blocks.append((start - low, end - low, number if is_last else -1))
        moves = [
            (column, max(start, low) - low, min(end, high) - low, max(start, low) - start, min(end, high) - start)
            for column, (start, end) in enumerate(spans)
            if start < high and end > low
        ]
        steps.append(_Step(low, high, blocks, moves))
    return steps
