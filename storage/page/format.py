"""One page and its row: a JSON header, one blob of all arrays, and a digest over both.

The same form holds package pages and node pages; `pack` and `unpack` know nothing of either.
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
import timeit
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError, DtypeError, ShapeError
from whiteboard.records.packages import Page
from whiteboard.storage.page.codec import DEFAULT, MAX_BYTES, PLAIN, Data, Encoding, decode, encode

PAGE_BYTES: Final = 512 * 1024
"""Pages are cut at about this size: large enough to pay for a call and a row, small enough to evict."""

HEADER_BYTES: Final = 16 * 2**20
"""Most bytes of a header."""

# A package counts as no less, which bounds a page's rows too.
_LEAST_ROW_BYTES = 512
# Of the bytes that a page was decoded from, this many times what it holds may stay in memory with it.
_DENSE = 1.1
# An array that is less than this part of its page is not worth the time to compress it.
_PARTS = 32
_DIGEST_BYTES = 16
# So many bytes of data are read at a time where they need not all be in memory.
_PIECE_BYTES = 2**20
_HASHES: Final[dict[str, Callable[[bytes], Any]]] = {
    "blake2b": partial(hashlib.blake2b, digest_size=_DIGEST_BYTES),
    "sha256": hashlib.sha256,
}
# Keys never repeat. Tokens do, where nodes are sources of several jobs of a bin.
_DIGESTS = ("keys",)
_PROVENANCE = ("src_ids", "versions", "tokens")


@dataclass(frozen=True, slots=True)
class Blob:
    """A page as it lies in its row."""

    header: bytes
    digest: bytes
    data: bytes


class Laid(Protocol):
    """A page wherever it lies: in memory, as a `Blob`, or in a file from which its data is read a part at a time."""

    @property
    def header(self) -> bytes: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def data(self) -> Data: ...


@dataclass(frozen=True, slots=True)
class Moved:
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


def pieces(data: bytes | memoryview | Data) -> Iterable[bytes | memoryview]:
    """Data from its beginning to its end: what is in memory at once, what is not a part at a time."""
    if isinstance(data, bytes | memoryview):
        return (data,)
    return (data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES))


def pack(
    meta: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    raw: Collection[str] = (),
    encoding: Encoding = DEFAULT,
) -> Packed:
    """Encode arrays, with what has to be said of them; what `raw` names, or by default is a small part, stays raw."""
    parts: list[bytes | memoryview] = []
    entries = []
    offset = 0
    least = sum(array.nbytes for array in arrays.values()) // _PARTS
    for name, array in arrays.items():
        small = name in raw or (encoding == DEFAULT and array.nbytes < least)
        codec, payload = encode(np.ascontiguousarray(array), PLAIN if small else encoding)
        entries.append([name, array.dtype.str, array.shape, codec, offset, len(payload)])
        parts.append(payload)
        offset += len(payload)
    header = json.dumps({**meta, "arrays": entries}, separators=(",", ":")).encode()
    return Packed(header, digest_of(header, *parts), tuple(parts))


def unpack(
    blob: Blob, *, skip: Collection[str] = (), only: Collection[str] | None = None
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a blob, once it has passed the gate; arrays named in `skip`, or not in `only`, are left out.

    Raises
    ------
    CorruptPackageError
        Digest, header, dtype, shape, size or chunk is wrong. Nothing is decoded before its turn in that order.
    """
    try:
        intact = is_intact(blob)
    except TypeError as error:
        message = "the row does not hold bytes"
        raise CorruptPackageError(message) from error
    if not intact:
        message = "the digest does not fit the bytes"
        raise CorruptPackageError(message)
    if len(blob.header) > HEADER_BYTES:
        message = f"a header of {len(blob.header)} bytes"
        raise CorruptPackageError(message)
    try:
        meta = json.loads(blob.header)
        arrays = _decode_all(meta.pop("arrays"), memoryview(blob.data), skip, only)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        message = f"the header cannot be read: {reprlib.repr(error)}"
        raise CorruptPackageError(message) from error
    return meta, arrays


def digest_of(header: bytes, *data: bytes | memoryview) -> bytes:
    """128 bits of BLAKE2b or SHA-256, whichever is quicker here, over the header's length, the header and the data."""
    return _digest(_quicker(), header, data)


def moved(page: Laid, header: bytes) -> Moved:
    """The same data under another header."""
    return Moved(header, _digest(_quicker(), header, pieces(page.data)), page.data)


def is_intact(page: Laid) -> bool:
    """Whether the digest fits: it may have been made where the other hash is the quicker one."""
    first = _quicker()
    names = sorted(_HASHES, key=lambda name: name != first)
    try:
        return any(_digest(name, page.header, pieces(page.data)) == page.digest for name in names)
    except TypeError:  # a row of other types than were written
        return False


def _digest(name: str, header: bytes, data: Iterable[bytes | memoryview]) -> bytes:
    digest = _HASHES[name](len(header).to_bytes(8, "little"))
    digest.update(header)
    for part in data:
        digest.update(part)
    return bytes(digest.digest()[:_DIGEST_BYTES])


@cache
def _quicker() -> str:
    # With instructions of the processor for SHA-256 it was 1.7 GB/s, and BLAKE2b 0.9; not every processor has them.
    sample = bytes(65536)
    return min(_HASHES, key=lambda name: min(timeit.repeat(lambda: _HASHES[name](sample), number=1, repeat=3)))


def check_page(page: Page) -> None:
    """Raise `ShapeError` or `DtypeError` where a page is not what a store takes."""
    if page.keys.dtype != np.uint8 or page.keys.shape != (page.n, 16):
        message = f"page of op {page.op!r}: expected keys of dtype uint8 and shape (n, 16), got {page.keys.shape}"
        raise ShapeError(message)
    for name, array in page.arrays.items():
        if array.dtype.kind not in "biufc":
            message = f"page of op {page.op!r}, array {name!r}: dtype {array.dtype} cannot be stored"
            raise DtypeError(message)
        if not array.ndim or len(array) != page.n:
            message = f"page of op {page.op!r}, array {name!r}: expected {page.n} rows, got shape {array.shape}"
            raise ShapeError(message)


def encode_page(page: Page, encoding: Encoding = DEFAULT) -> Packed:
    """The row of a page of packages. Its header names the encoding where that is not the default."""
    arrays = {"keys": page.keys, **{f"a:{name}": array for name, array in page.arrays.items()}}
    arrays |= {name: array for name in _PROVENANCE if (array := getattr(page, name)) is not None}
    lineage = {} if page.lineage is None else {"lineage": page.lineage}
    said = {} if encoding == DEFAULT else {"encoding": str(encoding)}
    meta = {"op": page.op, "n": page.n, "cost_ns": page.cost_ns, **lineage, **said}
    return pack(meta, arrays, raw=_DIGESTS, encoding=encoding)


def decode_page(blob: Blob, *, provenance: bool = False) -> Page:
    """The page of a row. Source ids and versions are decoded on demand only: no hit needs them."""
    meta, arrays = unpack(blob, skip=() if provenance else _PROVENANCE)
    keys = arrays.pop("keys", None)
    extra = {name: arrays.pop(name, None) for name in _PROVENANCE}
    op, n, cost_ns = meta.get("op"), meta.get("n"), meta.get("cost_ns")
    if not isinstance(op, str) or type(n) is not int or type(cost_ns) is not int:
        message = "op, n or cost_ns is missing from the header"
        raise CorruptPackageError(message)
    if keys is None or keys.dtype != np.uint8 or keys.shape != (n, 16):
        message = f"the keys of {n} packages are not there"
        raise CorruptPackageError(message)
    columns = [*arrays.values(), *(array for array in extra.values() if array is not None)]
    if not all(array.ndim and len(array) == n for array in columns):
        message = f"not every array has {n} rows"
        raise CorruptPackageError(message)
    named = {name.removeprefix("a:"): array for name, array in arrays.items()}
    lineage = meta.get("lineage")
    return Page(
        op,
        keys,
        named,
        cost_ns,
        extra["src_ids"],
        extra["versions"],
        lineage if isinstance(lineage, str) else None,
        extra["tokens"],
    )


def owned(page: Page) -> Page:
    """The page with arrays that are read-only and keep no larger buffer alive; copied only where they are not."""
    dense = alive_bytes(page) <= _DENSE * page.nbytes
    arrays = {name: _own(array, dense) for name, array in page.arrays.items()}
    ids, versions, tokens = (None if array is None else _own(array, dense) for array in _provenance(page))
    return Page(page.op, _own(page.keys, dense), arrays, page.cost_ns, ids, versions, page.lineage, tokens)


def alive_bytes(page: Page) -> int:
    """Bytes that stay in memory for as long as the page does: of a view, all that it is a view of."""
    arrays = (page.keys, *page.arrays.values(), *(array for array in _provenance(page) if array is not None))
    buffers = [_buffer(array) for array in arrays]
    return sum({id(buffer): memoryview(buffer).nbytes for buffer in buffers}.values())


def merged(pages: Iterable[Page], page_bytes: int = PAGE_BYTES) -> Iterator[Page]:
    """Pages of equal op and array signature joined, and cut where they are too large."""
    groups: dict[Any, list[Page]] = defaultdict(list)
    for page in pages:
        if page.n:
            groups[_signature(page)].append(page)
    for group in groups.values():
        yield from _regrouped(group, page_bytes)


def take(page: Page, rows: NDArray[np.intp] | slice) -> Page:
    """Some rows of a page, with their share of its cost."""
    keys = page.keys[rows]
    cost = page.cost_ns * len(keys) // max(page.n, 1)
    arrays = {name: array[rows] for name, array in page.arrays.items()}
    ids, versions, tokens = (None if array is None else array[rows] for array in _provenance(page))
    return Page(page.op, keys, arrays, cost, ids, versions, page.lineage, tokens)


def row_bytes(page: Page) -> int:
    """Bytes of one package of the page, rounded up."""
    return -(-page.nbytes // max(page.n, 1))


def fits(page: Page) -> bool:
    """Whether one row of the page can be stored at all."""
    return row_bytes(page) <= MAX_BYTES - HEADER_BYTES


def _signature(page: Page) -> tuple[Any, ...]:
    arrays = tuple((name, array.dtype.str, array.shape[1:]) for name, array in page.arrays.items())
    extra = tuple(None if array is None else array.shape[1:] for array in _provenance(page))
    return page.op, arrays, extra, page.lineage


def _provenance(page: Page) -> tuple[NDArray[Any] | None, ...]:
    return page.src_ids, page.versions, page.tokens


def cut(page: Page, page_bytes: int = PAGE_BYTES) -> Sequence[Page]:
    """A page that is large enough alone, in equal parts; none of one that is to be joined with others."""
    edges = cuts(page.n, most_rows(row_bytes(page), page_bytes))
    return (page,) if len(edges) == 2 else [take(page, slice(*each)) for each in pairwise(edges)]


def most_rows(each: int, page_bytes: int = PAGE_BYTES) -> int:
    """So many packages of `each` so many bytes make a page."""
    return max(1, page_bytes // max(each, _LEAST_ROW_BYTES))


def cuts(n: int, limit: int) -> list[int]:
    """Where n rows are cut into parts of about `limit`; nowhere if they are to be joined with others.

    A part is between half of the limit and one and a half of it, so that it is neither cut nor joined again.
    """
    if 2 * n <= limit:
        return []
    parts = max(1, math.ceil(n / limit - 0.5))
    return [n * number // parts for number in range(parts + 1)]


def _regrouped(group: Sequence[Page], page_bytes: int) -> Iterator[Page]:
    limit = most_rows(row_bytes(group[0]), page_bytes)
    waiting: list[Page] = []
    rows = 0
    for page in group:
        if parts := cut(page, page_bytes):
            yield from parts
            continue
        if rows + page.n > limit:
            yield joined(waiting)
            waiting, rows = [], 0
        waiting.append(page)
        rows += page.n
    if waiting:
        yield joined(waiting)


def joined(pages: Sequence[Page]) -> Page:
    """Pages of one signature as one, in their order."""
    first = pages[0]
    if len(pages) == 1:
        return first
    arrays = {name: np.concatenate([page.arrays[name] for page in pages]) for name in first.arrays}
    ids, versions, tokens = (
        None if parts[0] is None else np.concatenate([part for part in parts if part is not None])
        for parts in zip(*map(_provenance, pages), strict=True)
    )
    keys = np.concatenate([page.keys for page in pages])
    cost = sum(page.cost_ns for page in pages)
    return Page(first.op, keys, arrays, cost, ids, versions, first.lineage, tokens)


def _own(array: NDArray[Any], dense: bool) -> NDArray[Any]:
    buffer = _buffer(array)
    # Bytes never change, so that a page may share those it was decoded from, once they are not much more than it.
    kept = dense if isinstance(buffer, bytes) else memoryview(buffer).nbytes == array.nbytes
    if not (kept and array.flags.c_contiguous):
        array = array.copy()
    array.flags.writeable = False
    return array


def _buffer(array: NDArray[Any]) -> Any:
    """The object whose memory an array lies in: the bytes of a blob, or the array that allocated it."""
    root: Any = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    base = root.base.obj if isinstance(root.base, memoryview) else root.base
    return base if isinstance(base, bytes) else root


def _decode_all(
    entries: Any, data: memoryview, skip: Collection[str], only: Collection[str] | None
) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    total = 0
    for name, dtype, shape, codec, offset, length in entries:
        if type(name) is not str or name in arrays:
            message = f"array name {reprlib.repr(name)} is no name, or there twice"
            raise CorruptPackageError(message)
        if name in skip or (only is not None and name not in only):
            continue
        if not (type(offset) is int and type(length) is int and offset >= 0 and 0 <= length <= len(data) - offset):
            message = f"array {reprlib.repr(name)} lies outside of the data"
            raise CorruptPackageError(message)
        arrays[name] = decode(codec, data[offset : offset + length], dtype, shape)
        total += arrays[name].nbytes
        if total > MAX_BYTES:
            message = f"the arrays are more than {MAX_BYTES} bytes"
            raise CorruptPackageError(message)
    return arrays
