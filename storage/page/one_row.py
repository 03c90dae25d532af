"""One package of a page, without the others: the digests of what is read are looked at, and no other blocks are read.

Most of a header is the same in all pages of an op, its parameters and a number of packages: what it says there of the
arrays is looked at once, and remembered. What differs are the digests of the blocks, and what the page cost to compute.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page
from whiteboard.storage.page.codec import RAW, Data, decode
from whiteboard.storage.page.digests import Blocks, Laid, opened
from whiteboard.storage.page.format import THREADED_BYTES, Blob, decode_page
from whiteboard.storage.page.page_checks import Place, check_arrays, described

# Of a large page a row alone costs a block a column, and pays where there are so many others.
_FEW: Final = 8
# Of a page that is read as a whole, this many times its arrays may stay in memory with them, and count as nothing.
_DENSE: Final = 1.01
_OPENING: Final = re.compile(rb'\{"blocks":\[(\d{1,8}),"([^"]*)"\],("op":"[^"\\]*","n":\d{1,8},)"cost_ns":(\d{1,18}),')
# Of headers that are remembered: with what they say, all of them take a few megabytes at most.
_MOST_BYTES, _MOST_FORMS = 4096, 256


def read(page: Laid, slot: int, *, alone: bool = False) -> Page | None:
    """One package of a page, as a hit needs it; None where the page is better read as a whole.

    Parameters
    ----------
    alone : bool
        Only where the page has no other.

    Raises
    ------
    CorruptPackageError
        Something of what is read is not what was written, or not what a page may hold.
    """
    data, form, cost_ns = _opened(page)
    n = form.n
    if form.end > len(data):
        message = "an array lies outside of the data"
        raise CorruptPackageError(message)
    if n < _FEW and type(page.data) is not bytes:
        return _alone(page, data, form, cost_ns) if n == 1 and slot == 0 else None
    if alone or not 0 <= slot < n:
        return None
    start, end, step = form.together
    row = bytes(data[start + slot * step : end + slot * step])
    arrays = {
        name: np.ndarray(shape, dtype, row[at - start : at - start + width]) if apart is None else apart.row(data, slot)
        for name, dtype, shape, at, width, apart in form.columns
    }
    return Page(form.op, arrays.pop("keys"), arrays, cost_ns // n, lineage=form.lineage, alive=form.row_bytes)


def _alone(page: Laid, data: Data, form: _Form, cost_ns: int) -> Page:
    """The one package of a page, which is read as a whole."""
    whole = page.data[:]
    if not isinstance(data, Blocks) or form.together[2] or form.row_bytes >= THREADED_BYTES:
        return decode_page(Blob(page.header, page.digest, whole))
    data.hold(whole)
    arrays = {column.name: column.apart.whole(data) for column in form.columns if column.apart is not None}
    # Where provenance and sources are next to nothing, no more is kept alive than the arrays.
    alive = form.row_bytes if form.is_raw and len(whole) <= _DENSE * form.row_bytes else None
    return Page(form.op, arrays.pop("keys"), arrays, cost_ns, lineage=form.lineage, alive=alive)


def _opened(page: Laid) -> tuple[Data, _Form, int]:
    """The data of a page whose header is that which was written, what that says, and the cost of all packages."""
    header = page.header
    found = _OPENING.match(header) if len(header) <= _MOST_BYTES else None
    if found is not None:
        size, digests, form, cost = found.groups()
        data = Blocks.of(page, int(size), digests)
        # Members of an object, without two of them, are those of another.
        remembered, cost_ns = _remembered(b"{" + form + header[found.end() :])
        if cost_ns is None:
            return data, remembered, int(cost)
    whole = opened(page)
    form, cost_ns = _form(header)
    if type(cost_ns) is not int:
        message = "cost_ns is missing from the header"
        raise CorruptPackageError(message)
    return whole, form, cost_ns


class _Apart(NamedTuple):
    """An array whose rows lie apart from those of others."""

    place: Place

    def row(self, data: Data, slot: int) -> NDArray[Any]:
        """One row, read-only, shape (1, …)."""
        place = self.place
        if place.codec != RAW or place.length != place.nbytes:
            return place.of(data).rows(slot, slot + 1)
        width = place.nbytes // place.shape[0]
        at = place.offset + slot * width
        return np.ndarray((1, *place.shape[1:]), place.dtype, bytes(data[at : at + width]))

    def whole(self, data: Blocks) -> NDArray[Any]:
        """All rows of data that is in memory, read-only."""
        place = self.place
        return decode(place.codec, data.view(place.offset, place.end), place.dtype, place.nbytes, place.shape)


class _Column(NamedTuple):
    """An array of a page: of its first row the shape, beginning and bytes; `apart` is None where rows lie together."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    at: int
    width: int
    apart: _Apart | None


class _Form(NamedTuple):
    """What pages of equal headers have in common, but for their blocks and cost.

    `together` is where the first row begins and ends of all that lie together, and how far it is to the next.
    """

    op: str
    n: int
    lineage: str | None
    columns: tuple[_Column, ...]
    end: int
    together: tuple[int, int, int]
    row_bytes: int
    is_raw: bool


def _form(header: bytes) -> tuple[_Form, Any]:
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
            apart = None if step and place.step == step else _Apart(place)
            shape, width = (1, *place.shape[1:]), place.nbytes // n
            columns.append(_Column(name.removeprefix("a:"), place.dtype, shape, place.offset, width, apart))
    beside = [column for column in columns if column.apart is None]
    start = min((column.at for column in beside), default=0)
    together = start, max((column.at + column.width for column in beside), default=0), step
    end = max(place.end for place in places.values())
    said = lineage if isinstance(lineage, str) else None
    row_bytes = sum(column.width for column in columns)
    is_raw = all(column.apart is None or column.apart.place.codec == RAW for column in columns)
    return _Form(op, n, said, tuple(columns), end, together, row_bytes, is_raw), meta.get("cost_ns")


_remembered = lru_cache(_MOST_FORMS)(_form)
