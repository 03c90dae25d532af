"""One page and its row: a JSON header, one blob of all arrays, and a digest over both.

The same form holds package pages and node pages; `pack` and `unpack` know nothing of either. Arrays lie one after
another, but that the small rows of packages that stay raw lie beside one another: who asks for one finds it in a block.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whiteboard.concurrency.parallel import overlapped
from whiteboard.errors import CorruptPackageError, DtypeError, ShapeError
from whiteboard.memory.room import is_small
from whiteboard.records.packages import Page
from whiteboard.storage.page.codec import (
    DEFAULT,
    MAX_BYTES,
    PLAIN,
    RAW,
    ROWS,
    Data,
    Encoding,
    check_total,
    decode,
    described,
    encode,
)
from whiteboard.storage.page.digests import Blocks, Laid, blocks_of, digest_of, opened, pieces

HEADER_BYTES: Final = 16 * 2**20
"""Most bytes of a header."""

_LARGE: Final = 2**20
"""Of less it does not matter what else of it is kept alive."""

THREADED_BYTES: Final = 4 * 2**20
"""Columns of so many bytes in all take longer to look at than threads to start."""

# An array that is less than this part of its page is not worth the time to compress it.
_PARTS = 32
# A row is read alone, at the cost of a block of each array: of arrays whose rows lie beside one another, of one block.
# Rows of more bytes lie in blocks of their own, and to read all of them would cost a copy.
_ROW_BYTES, _ROWS = 4096, 8
# Keys never repeat. Tokens do, where nodes are sources of several jobs of a bin.
_DIGESTS = ("keys",)
_PROVENANCE = ("src_ids", "versions", "tokens")
_BYTES: Final = np.dtype(np.uint8)
_SOURCE = re.compile(r"x(0|[1-9]\d{0,5})")


@dataclass(frozen=True, slots=True)
class Blob:
    """A page as it lies in its row."""

    header: bytes
    digest: bytes
    data: bytes | memoryview


class Moved(NamedTuple):
    """A page that lies elsewhere under another header."""

    header: bytes
    digest: bytes
    data: Data


@dataclass(frozen=True, slots=True)
class Packed:
    """A page on its way to its row, its data still in parts: most of them views of the arrays."""

    header: bytes
    digest: bytes
    parts: tuple[bytes | memoryview | Data, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return sum(len(part) for part in self.parts)

    def joined(self) -> Blob:
        """The page as it will lie in its row."""
        return Blob(self.header, self.digest, b"".join([part[:] for part in self.parts]))


def pack(
    meta: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    raw: Collection[str] = (),
    together: Collection[str] = (),
    encoding: Encoding = DEFAULT,
) -> Packed:
    """Encode arrays, with what has to be said of them.

    Parameters
    ----------
    raw : collection of str
        These stay raw, as by default does what is a small part.
    together : collection of str
        Of these, rows of what stays raw lie beside one another where they are small and many.
    """
    total = sum(array.nbytes for array in arrays.values())
    least = total // _PARTS
    encoding = PLAIN if total > MAX_BYTES else encoding
    encoded: dict[str, tuple[str, bytes | memoryview]] = {}
    for name, array in arrays.items():
        small = name in raw or (encoding == DEFAULT and array.nbytes < least)
        encoded[name] = encode(np.ascontiguousarray(array), PLAIN if small else encoding)
    beside = {name: arrays[name] for name in together if encoded[name][0] == RAW and arrays[name].nbytes}
    parts, places = _together(beside)
    offset = sum(len(part) for part in parts)
    entries = []
    for name, array in arrays.items():
        if name in places:
            place = places[name]
        else:
            codec, payload = encoded[name]
            place = codec, offset, len(payload)
            parts.append(payload)
            offset += len(payload)
        entries.append([name, array.dtype.str, array.shape, *place])
    row_bytes = max(((array[:1] if array.ndim else array).nbytes for array in arrays.values()), default=0)
    header = json.dumps({**blocks_of(parts, row_bytes), **meta, "arrays": entries}, separators=(",", ":")).encode()
    return Packed(header, digest_of(header, *parts), tuple(parts))


def _together(
    arrays: Mapping[str, NDArray[Any]],
) -> tuple[list[bytes | memoryview], dict[str, tuple[str, int, int]]]:
    """Arrays row by row, all of a row beside one another, and where each lies; nothing where that does not pay."""
    n = len(next(iter(arrays.values()), ()))
    step = sum(array.nbytes for array in arrays.values()) // max(n, 1)
    if len(arrays) < 2 or n < _ROWS or step > _ROW_BYTES:
        return [], {}
    rows = np.empty((n, step), np.uint8)
    places: dict[str, tuple[str, int, int]] = {}
    at = 0
    for name, array in arrays.items():
        end = at + array.nbytes // n
        rows[:, at:end] = np.ascontiguousarray(array).reshape(n, -1).view(np.uint8)
        places[name] = ROWS, at, (n - 1) * step + end - at
        at = end
    return [rows.reshape(-1).data], places


def _none(_: str) -> bool:
    return False


def unpack(
    blob: Laid, *, only: Collection[str] | None = None, skip: Callable[[str], bool] = _none
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a blob, once it has passed the gate; arrays not in `only`, or to `skip`, are left out.

    Raises
    ------
    CorruptPackageError
        Digest, header, dtype, shape, size or chunk is wrong. Nothing is decoded before its turn in that order.
    """
    data = opened(blob)
    if len(blob.header) > HEADER_BYTES:
        message = f"a header of {len(blob.header)} bytes"
        raise CorruptPackageError(message)
    try:
        meta = json.loads(blob.header)
        meta.pop("blocks", None)
        arrays = _decode_all(meta.pop("arrays"), data, only, skip)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        message = f"the header cannot be read: {reprlib.repr(error)}"
        raise CorruptPackageError(message) from error
    return meta, arrays


def moved(page: Laid, header: bytes) -> Moved:
    """The same data under another header, which keeps what the old one says of its blocks."""
    return Moved(header, digest_of(header, *pieces(page.data)), page.data)


def check_page(page: Page) -> None:
    """Raise `ShapeError` or `DtypeError` where a page is not what a store takes."""
    n = len(page.keys)
    if page.keys.dtype != _BYTES or page.keys.shape != (n, 16):
        message = f"page of op {page.op!r}: expected keys of dtype uint8 and shape (n, 16), got {page.keys.shape}"
        raise ShapeError(message)
    named = page.arrays if page.sources is None else {**page.arrays, **named_sources(page)}
    for name, array in named.items():
        if array.dtype.kind not in "biufc":
            message = f"page of op {page.op!r}, array {name!r}: dtype {array.dtype} cannot be stored"
            raise DtypeError(message)
        if not array.ndim or len(array) != n:
            message = f"page of op {page.op!r}, array {name!r}: expected {n} rows, got shape {array.shape}"
            raise ShapeError(message)


def encode_page(page: Page, encoding: Encoding = DEFAULT) -> Packed:
    """The row of a page of packages. Its header names the encoding where that is not the default."""
    arrays = {"keys": page.keys, **{f"a:{name}": array for name, array in page.arrays.items()}}
    arrays |= {name: array for name in _PROVENANCE if (array := getattr(page, name)) is not None}
    arrays |= named_sources(page)
    lineage = {} if page.lineage is None else {"lineage": page.lineage}
    said = {} if encoding == DEFAULT else {"encoding": str(encoding)}
    meta = {"op": page.op, "n": page.n, "cost_ns": page.cost_ns, **lineage, **said}
    together = ("keys", *(f"a:{name}" for name in page.arrays))
    return pack(meta, arrays, raw=_DIGESTS, together=together, encoding=encoding)


def decode_page(blob: Laid, *, provenance: bool = False, sources: bool | None = None, grads: bool = True) -> Page:
    """The page of a row. What no hit needs is decoded on demand only, as are gradients where they are not wanted.

    Parameters
    ----------
    provenance : bool
        Ids and versions of the sources, and their tokens.
    sources : bool, optional
        The sources themselves, where they are kept; by default with `provenance`.
    """
    left = _Left(provenance, provenance if sources is None else sources, grads)
    meta, arrays = unpack(blob, skip=left.out)
    keys = arrays.pop("keys", None)
    extra = {name: arrays.pop(name, None) for name in _PROVENANCE}
    kept = taken_sources(arrays)
    op, n, cost_ns = meta.get("op"), meta.get("n"), meta.get("cost_ns")
    if not isinstance(op, str) or type(n) is not int or type(cost_ns) is not int:
        message = "op, n or cost_ns is missing from the header"
        raise CorruptPackageError(message)
    if keys is None or keys.dtype != np.uint8 or keys.shape != (n, 16):
        message = f"the keys of {n} packages are not there"
        raise CorruptPackageError(message)
    columns = [*arrays.values(), *(kept or ()), *(array for array in extra.values() if array is not None)]
    if not all(array.ndim and len(array) == n for array in columns):
        message = f"not every array has {n} rows"
        raise CorruptPackageError(message)
    named = {name.removeprefix("a:"): array for name, array in arrays.items()}
    lineage = meta.get("lineage") if isinstance(meta.get("lineage"), str) else None
    return Page(op, keys, named, cost_ns, extra["src_ids"], extra["versions"], lineage, extra["tokens"], kept)


class _Left(NamedTuple):
    """Which columns are decoded."""

    provenance: bool
    sources: bool
    grads: bool

    def out(self, name: str) -> bool:
        """Whether a column is not."""
        if name in _PROVENANCE:
            return not self.provenance
        return (not self.grads and name.startswith("a:g")) or (not self.sources and is_source(name))


def is_source(name: str) -> bool:
    """Whether a column is what a page keeps of a source."""
    return bool(_SOURCE.fullmatch(name))


def keeps_sources(header: bytes) -> bool:
    """Whether a page keeps its sources, as its header says; an error of any kind where that cannot be read."""
    return any(entry[0] == "x0" for entry in json.loads(header)["arrays"])


def named_sources(page: Page) -> dict[str, NDArray[Any]]:
    """The sources that a page keeps, by the name of their column."""
    return {f"x{slot}": source for slot, source in enumerate(page.sources or ())}


def taken_sources(columns: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], ...] | None:
    """Take the sources out of a page's columns; None where it keeps none.

    Raises
    ------
    CorruptPackageError
        One between them is missing.
    """
    count = sum(map(is_source, columns))
    try:
        return tuple(columns.pop(f"x{slot}") for slot in range(count)) or None
    except KeyError as error:
        message = f"of {count} sources {error} is missing"
        raise CorruptPackageError(message) from error


def _decode_all(
    entries: Any, data: Data, only: Collection[str] | None, skip: Callable[[str], bool]
) -> dict[str, NDArray[Any]]:
    wanted: dict[str, _Column] = {}
    for name, dtype, shape, codec, offset, length in entries:
        if type(name) is not str or name in wanted:
            message = f"array name {reprlib.repr(name)} is no name, or there twice"
            raise CorruptPackageError(message)
        if (only is not None and name not in only) or skip(name):
            continue
        if not (type(offset) is int and type(length) is int and offset >= 0 and 0 <= length <= len(data) - offset):
            message = f"array {reprlib.repr(name)} lies outside of the data"
            raise CorruptPackageError(message)
        kind, nbytes = described(dtype, shape)
        wanted[name] = _Column(kind, nbytes, shape, codec, offset, offset + length)
    check_total(((each.codec, each.nbytes) for each in wanted.values()), len(data))
    whole: Any = data if isinstance(data, Blocks) else memoryview(data)  # type: ignore[arg-type]
    decoded = map if sum(each.nbytes for each in wanted.values()) < THREADED_BYTES else overlapped
    return dict(zip(wanted, decoded(partial(_decoded, whole, len(wanted)), wanted.values()), strict=True))


class _Column(NamedTuple):
    """An array, and where it lies in the data."""

    dtype: np.dtype[Any]
    nbytes: int
    shape: Any
    codec: object
    start: int
    end: int


def _decoded(data: Blocks | memoryview, count: int, column: _Column) -> NDArray[Any]:
    at, end = column.start, column.end
    payload = data.view(at, end) if isinstance(data, Blocks) else data[at:end]
    if column.codec == RAW and len(data) >= _LARGE and is_small(column.nbytes, len(data), count):
        payload = memoryview(bytes(payload))
    return decode(column.codec, payload, column.dtype, column.nbytes, column.shape)
