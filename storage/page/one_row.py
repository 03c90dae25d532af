"""One package of a page, without the others: the digests of what is read are looked at, and no other blocks are read.

Most of a header is the same in all pages of an op, its parameters and a number of packages: what it says there of the
arrays is looked at once, and remembered. What differs are the digests of the blocks, and what the page cost to compute.
Of pages read lately these are remembered too, for a header and digest that are equal in all bytes.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from blake3 import blake3

from whiteboard.errors import CorruptPackageError
from whiteboard.memory.room import LEAST_BYTES, Room
from whiteboard.records.packages import Page
from whiteboard.storage.page.codec import BLOSC2, RAW, Data, decode_part
from whiteboard.storage.page.digests import (
    DIGEST_BYTES,
    NEXT,
    ONE,
    THREE,
    Blocks,
    Laid,
    are_of,
    blocks_in,
    opened,
    unfit,
)
from whiteboard.storage.page.landing import Arrays, Landed, land
from whiteboard.storage.page.page_checks import Place, check_arrays, described

# A row alone is read where there are so many others; where it costs blocks of each column, so many: one of ten of 48 KB
# takes 95 µs, and all of them 165, and then none is read again.
_FEW: Final = 8
_FEW_APART: Final = 16
_AFTER_BLOCKS: Final = re.compile(rb',("op":"[^"\\]*","n":\d{1,8},)"cost_ns":(\d{1,18}),')
# Of headers that are remembered: with what they say, all of them take a few megabytes at most.
_MOST_BYTES, _MOST_FORMS, _MOST_PAGES = 4096, 256, 1024
_MOST_TOLD: Final = 2**16
# Of a page's chunks so much is remembered with its header. They are so small where all rows are alike, as those of a
# gradient are by a factor that many jobs have: arrays of so many bytes are looked through for that.
_KEPT_BYTES, _ALIKE_BYTES = 4096, 2**20


def read(page: Laid, slot: int, *, seen: bool = False, alone: bool = False) -> Page | None:
    """One package of a page, as a hit needs it; all of them where the page has few, or was `seen` before.

    Few are fewer where it is wanted `alone`, as nobody keeps the others. None where it is not there, or the page is
    better read as a whole by others.

    Raises
    ------
    CorruptPackageError
        Something of what is read is not what was written, or not what a page may hold.
    """
    said, in_parts = told(page.header, page.digest), type(page.data) is not bytes
    is_large = in_parts or (said is not None and said.form.row_bytes >= LEAST_BYTES)
    if said is not None and (seen or (is_large and said.form.is_short(alone=alone))):
        return said.landed(page.data).page() if said.form.arrays is not None and 0 <= slot < said.form.n else None
    data, said = _opened(page, said)
    form = said.form
    if seen or not 0 <= slot < form.n or (in_parts and form.is_short(alone=alone)):
        return None
    start, end, step = form.together
    row = bytes(data[start + slot * step : end + slot * step])
    arrays = {}
    for name, dtype, shape, at, width, apart in form.columns:
        mine = row[at : at + width] if apart is None else said.row(data, apart, slot)
        arrays[name] = np.ndarray(shape, dtype, mine)
    return Page(form.op, arrays.pop("keys"), arrays, said.cost, lineage=form.lineage, alive=form.row_bytes)


def quick(header: bytes, digest: bytes, data: Data, slot: int) -> Page | None:
    """As `read`, in one go, where a row lies in one block, but for what is remembered of it; None of any other.

    Raises
    ------
    CorruptPackageError
    """
    said = _remembered.get(digest)
    if said is None or said.header != header:
        said = told(header, digest)
        if said is None:
            return None
    quick, size, alike = said.form.quick, said.size, said.alike
    if quick is None:
        return None
    op, n, lineage, start, end, step, columns, row_bytes, apart = quick
    start += slot * step
    end += slot * step
    number = start // size
    base = number * size
    if len(alike) != apart or end > base + size or not 0 <= slot < n:
        return None
    length = len(data)
    if length != said.length:
        if said.form.end > length or not are_of(said.digests, length, size):
            return None
        said.length = length
    block = data[base : base + size]
    one = number % 3
    at = number // 3 * THREE + one * NEXT
    try:
        wanted = a2b_base64(said.digests[at : at + ONE], strict_mode=True)
    except ValueError as error:
        raise unfit() from error
    if blake3(block).digest(DIGEST_BYTES) != wanted[one : one + DIGEST_BYTES]:
        raise unfit()
    row, array = block[start - base : end - base], np.ndarray
    arrays = {}
    for name, shape, dtype, at, chunk in columns:
        arrays[name] = array(shape, dtype, row, at) if chunk is None else array(shape, dtype, alike[chunk])
    return Page(op, arrays.pop("keys"), arrays, said.cost, None, None, lineage, None, None, row_bytes, quick)


def _opened(page: Laid, said: Said | None) -> tuple[Data, Said]:
    """The data of a page, and what its header says, as it was told or is told of a page of before."""
    if said is not None:
        data: Data = Blocks(page.data, said.size, said.digests)
    else:
        data = opened(page)
        form, cost_ns = _form(page.header)
        if type(cost_ns) is not int:
            message = "cost_ns is missing from the header"
            raise CorruptPackageError(message)
        said = Said(page.header, 0, b"", form, cost_ns)
    if said.form.end > len(data):
        message = "an array lies outside of the data"
        raise CorruptPackageError(message)
    return data, said


class Said:
    """What the header of a page says; of compressed arrays, by where they begin, what was read and was as written.

    Attributes
    ----------
    cost : int
        Of one package, in nanoseconds.
    length : int
        Of data that has as many blocks as there are digests, and room for all arrays; -1 until some was seen.
    """

    __slots__ = ("alike", "chunks", "cost", "cost_ns", "digests", "form", "header", "length", "size")

    def __init__(self, header: bytes, size: int, digests: bytes, form: Form, cost_ns: int) -> None:
        self.header, self.size, self.digests, self.form, self.cost_ns = header, size, digests, form, cost_ns
        self.cost = cost_ns // max(form.n, 1)
        self.length = -1
        self.chunks: dict[int, bytes] = {}
        self.alike: dict[int, bytes] = {}

    def landed(self, data: Data, rooms: Sequence[Room | None] = ()) -> Landed:
        """The page, read as a whole, if its form is one for that; as `land`."""
        assert self.form.arrays is not None
        return land(self.form.arrays, self.cost_ns, self.size, self.digests, data, rooms)

    def row(self, data: Data, place: Place, slot: int) -> bytes:
        """One row of an array whose rows lie apart from those of others."""
        width = place.nbytes // place.shape[0]
        at = slot * width
        if place.codec != BLOSC2:
            if place.codec == RAW and place.length == place.nbytes:
                return bytes(data[place.offset + at : place.offset + at + width])
            return place.of(data).rows(slot, slot + 1).tobytes()
        if (row := self.alike.get(place.offset)) is not None:
            return row
        chunk: Data = self.chunks.get(place.offset) or self._chunk(data, place, width)
        return bytes(decode_part(BLOSC2, chunk, place.nbytes, at, at + width))

    def _chunk(self, data: Data, place: Place, width: int) -> Data:
        """A chunk; of a small one it is remembered, for other rows, or that these are all alike."""
        chunk = place.payload(data)
        room = _KEPT_BYTES - sum(map(len, (*self.chunks.values(), *self.alike.values())))
        if len(chunk) > room or place.nbytes > _ALIKE_BYTES:
            return chunk
        chunk = bytes(chunk[:])
        whole = bytes(decode_part(BLOSC2, chunk, place.nbytes, 0, place.nbytes))
        if whole == whole[:width] * place.shape[0] and width <= room:
            self.alike[place.offset] = whole[:width]
        else:
            self.chunks[place.offset] = chunk
        return chunk


_remembered: dict[bytes, Said] = {}
"""What headers say, by the digests of their pages: to find one by itself takes as long as a hash of it."""


def told(header: bytes, digest: bytes) -> Said | None:
    """What a header says; None of one that is another than stores write now, or very long.

    Raises
    ------
    CorruptPackageError
        Its digest does not fit, or it is none of a page.
    """
    kept = _remembered.get(digest)
    if kept is not None and kept.header == header:
        return kept
    blocks = blocks_in(header, digest) if len(header) <= _MOST_TOLD else None
    if blocks is None:
        return None
    size, digests, end = blocks
    found = _AFTER_BLOCKS.match(header, end)
    if found is None:
        return None
    about, cost = found.groups()
    # Members of an object, without two of them, are those of another.
    form, cost_ns = _equal(b"{" + about + header[found.end() :])
    if cost_ns is not None:
        return None
    said = Said(header, size, digests, form, int(cost))
    if len(header) <= _MOST_BYTES:
        if len(_remembered) >= _MOST_PAGES:
            _remembered.clear()
        _remembered[digest] = said
    return said


class _Column(NamedTuple):
    """An array of a page: a row's shape and bytes, and where in what lies together, or apart from that, it begins."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    at: int
    width: int
    apart: Place | None


class Form(NamedTuple):
    """What pages of equal headers have in common, but for their blocks and cost.

    `together` is where the first row begins and ends of all that lie together, and how far it is to the next; `quick`
    is all that `quick` asks for, None where some lie apart that are not compressed; `arrays` says how a page is read as
    a whole where none lie together, else it is None.
    """

    op: str
    n: int
    lineage: str | None
    columns: tuple[_Column, ...]
    end: int
    together: tuple[int, int, int]
    row_bytes: int
    quick: tuple[Any, ...] | None
    arrays: Arrays | None

    def is_short(self, *, alone: bool) -> bool:
        """Whether all of a large page is read for one row."""
        return self.n < (_FEW if alone or self.arrays is None else _FEW_APART)


def _form(header: bytes) -> tuple[Form, Any]:
    meta, places = described(header)
    op, n, lineage = meta.get("op"), meta.get("n"), meta.get("lineage")
    if type(op) is not str or type(n) is not int:
        message = "op or n is missing from the header"
        raise CorruptPackageError(message)
    check_arrays(n, {name: (place.dtype, place.shape) for name, place in places.items()})
    step = places["keys"].step or 0
    named = {name.removeprefix("a:"): place for name, place in places.items() if name == "keys" or name[:2] == "a:"}
    beside = {name: place for name, place in named.items() if step and place.step == step}
    start = min((place.offset for place in beside.values()), default=0)
    stop = max((place.offset + place.nbytes // n for place in beside.values()), default=0)
    columns = []
    for name, place in named.items():
        shape, width = (1, *place.shape[1:]), place.nbytes // n
        apart = None if name in beside else place
        columns.append(_Column(name, place.dtype, shape, place.offset - start, width, apart))
    row_bytes = sum(column.width for column in columns)
    others = [(column.name, column.apart) for column in columns if column.apart is not None]
    is_quick = (
        n >= _FEW
        and all(place.codec == BLOSC2 for _, place in others)
        and all(column.at % column.dtype.alignment == 0 for column in columns if column.apart is None)
        and stop - start == sum(column.width for column in columns if column.apart is None) > 0
    )
    end = max(place.end for place in places.values())
    said = lineage if isinstance(lineage, str) else None
    arrays = None if beside else Arrays.of(op, n, said, tuple(others), end)
    rows = tuple(
        (column.name, column.shape, column.dtype, column.at, None if column.apart is None else column.apart.offset)
        for column in columns
    )
    quick = (op, n, said, start, stop, step, rows, row_bytes, len(others)) if is_quick else None
    form = Form(op, n, said, tuple(columns), end, (start, stop, step), row_bytes, quick, arrays)
    return form, meta.get("cost_ns")


_equal = lru_cache(_MOST_FORMS)(_form)
