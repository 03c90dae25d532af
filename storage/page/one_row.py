"""One package of a page, without the others: the digests of what is read are looked at, and no other blocks are read.

Most of a header is the same in all pages of an op, its parameters and a number of packages: what it says there of the
arrays is looked at once, and remembered. What differs are the digests of the blocks, and what the page cost to compute.
Of pages read lately these are remembered too, for a header and digest that are equal in all bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page
from whiteboard.storage.page.codec import BLOSC2, RAW, Data, decode_part
from whiteboard.storage.page.digests import Blocks, Laid, blocks_in, opened
from whiteboard.storage.page.landing import Arrays, Landed, land
from whiteboard.storage.page.page_checks import Place, check_arrays, described
from whiteboard.storage.page.room import Room

# Of a large page a row alone costs a block a column, and pays where there are so many others.
_FEW: Final = 8
_AFTER_BLOCKS: Final = re.compile(rb',("op":"[^"\\]*","n":\d{1,8},)"cost_ns":(\d{1,18}),')
# Of headers that are remembered: with what they say, all of them take a few megabytes at most.
_MOST_BYTES, _MOST_FORMS, _MOST_PAGES = 4096, 256, 1024
_MOST_TOLD: Final = 2**16
# Of a page's chunks so much is remembered with its header. They are so small where all rows are alike, as those of a
# gradient are by a factor that many jobs have: arrays of so many bytes are looked through for that.
_KEPT_BYTES, _ALIKE_BYTES = 4096, 2**20


def read(page: Laid, slot: int, *, seen: bool = False) -> Page | None:
    """One package of a page, as a hit needs it; all of them where the page has few, or was `seen` before.

    None where it is not there, or the page is better read as a whole by others.

    Raises
    ------
    CorruptPackageError
        Something of what is read is not what was written, or not what a page may hold.
    """
    data, said = _opened(page)
    form = said.form
    n = form.n
    if not 0 <= slot < n:
        return None
    if seen or (n < _FEW and type(page.data) is not bytes):
        return said.landed(page.data).page() if form.arrays and said.size else None
    start, end, step = form.together
    row = bytes(data[start + slot * step : end + slot * step])
    arrays = {}
    for name, dtype, shape, at, width, apart in form.columns:
        mine = row[at - start : at - start + width] if apart is None else said.row(data, apart, slot)
        arrays[name] = np.ndarray(shape, dtype, mine)
    return Page(form.op, arrays.pop("keys"), arrays, said.cost_ns // n, lineage=form.lineage, alive=form.row_bytes)


def _opened(page: Laid) -> tuple[Data, Said]:
    """The data of a page, and what its header says."""
    said = told(page.header, page.digest)
    if said is not None:
        data: Data = Blocks(page.data, said.size, said.digests)
    else:
        data = opened(page)
        said = Said(0, b"", *_form(page.header), {}, {})
    if type(said.cost_ns) is not int:
        message = "cost_ns is missing from the header"
        raise CorruptPackageError(message)
    if said.form.end > len(data):
        message = "an array lies outside of the data"
        raise CorruptPackageError(message)
    return data, said


class Said(NamedTuple):
    """What the header of a page says; of compressed arrays, by where they begin, what was read and was as written."""

    size: int
    digests: bytes
    form: Form
    cost_ns: Any
    chunks: dict[int, bytes]
    alike: dict[int, bytes]

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


_remembered: dict[bytes, tuple[bytes, Said]] = {}
"""Headers and what they say, by the digests of their pages: to find one by itself takes as long as a hash of it."""


def told(header: bytes, digest: bytes) -> Said | None:
    """What a header says; None of one that is another than stores write now, or very long.

    Raises
    ------
    CorruptPackageError
        Its digest does not fit, or it is none of a page.
    """
    kept = _remembered.get(digest)
    if kept is not None and kept[0] == header:
        return kept[1]
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
    said = Said(size, digests, form, int(cost), {}, {})
    if len(header) <= _MOST_BYTES:
        if len(_remembered) >= _MOST_PAGES:
            _remembered.clear()
        _remembered[digest] = header, said
    return said


class _Column(NamedTuple):
    """An array of a page: of its first row the shape, beginning and bytes; `apart` is None where rows lie together."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    at: int
    width: int
    apart: Place | None


class Form(NamedTuple):
    """What pages of equal headers have in common, but for their blocks and cost.

    `together` is where the first row begins and ends of all that lie together, and how far it is to the next; `arrays`
    says how a page is read as a whole where none do, else it is None.
    """

    op: str
    n: int
    lineage: str | None
    columns: tuple[_Column, ...]
    end: int
    together: tuple[int, int, int]
    row_bytes: int
    arrays: Arrays | None


def _form(header: bytes) -> tuple[Form, Any]:
    meta, places = described(header)
    op, n, lineage = meta.get("op"), meta.get("n"), meta.get("lineage")
    if type(op) is not str or type(n) is not int:
        message = "op or n is missing from the header"
        raise CorruptPackageError(message)
    check_arrays(n, {name: (place.dtype, place.shape) for name, place in places.items()})
    step = places["keys"].step or 0
    columns = []
    for name, place in places.items():
        if name == "keys" or name.startswith("a:"):
            apart = None if step and place.step == step else place
            shape, width = (1, *place.shape[1:]), place.nbytes // n
            columns.append(_Column(name.removeprefix("a:"), place.dtype, shape, place.offset, width, apart))
    beside = [column for column in columns if column.apart is None]
    start = min((column.at for column in beside), default=0)
    together = start, max((column.at + column.width for column in beside), default=0), step
    end = max(place.end for place in places.values())
    said = lineage if isinstance(lineage, str) else None
    row_bytes = sum(column.width for column in columns)
    whole = tuple((column.name, column.apart) for column in columns if column.apart is not None)
    arrays = None if beside else Arrays.of(op, n, said, whole, end)
    return Form(op, n, said, tuple(columns), end, together, row_bytes, arrays), meta.get("cost_ns")


_equal = lru_cache(_MOST_FORMS)(_form)
