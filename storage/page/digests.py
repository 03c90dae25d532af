"""The digest of a page: BLAKE3 over its header, which holds those of its data's blocks: a part is checked alone.

Pages of before have one over header and data, in BLAKE2b or SHA-256, whichever was quicker where they were written.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol

from blake3 import blake3

from whiteboard.errors import CorruptPackageError
from whiteboard.storage.page.codec import Data

DIGEST_BYTES: Final = 16

# One row of a page costs a block a column: of 16 KB it takes 7 µs, where 64 KB take 22. Larger ones need fewer digests,
# and are hashed faster: 384 KB in 40 µs, where blocks of 16 KB take 58. So a block is no less than a row of a column.
_LEAST_BLOCK, _MOST_BLOCK, _MOST_BLOCKS = 16 * 2**10, 2**20, 64
# So many bytes of data are read at a time where they need not all be in memory.
_PIECE_BYTES = 2**20
_OPENING = re.compile(rb'\{"blocks":\[(\d{1,8}),"([^"]*)"\]')
THREE: Final = 64
"""Three digests in base64 are so many letters, and what the next begin with is a letter of its own."""
ONE, NEXT = 24, 20
"""Each of them lies in so many letters, which begin so far apart: as many of its bytes later as there are before it."""
_HASHES: Final[dict[str, Callable[[bytes], Any]]] = {
    "blake3": blake3,
    "blake2b": partial(hashlib.blake2b, digest_size=DIGEST_BYTES),
    "sha256": hashlib.sha256,
}


class Laid(Protocol):
    """A page wherever it lies: in memory, as a `Blob`, or in a file from which its data is read a part at a time."""

    @property
    def header(self) -> bytes: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def data(self) -> Data: ...


def pieces(data: bytes | memoryview | Data) -> Iterable[bytes | memoryview]:
    """Data from its beginning to its end: what is in memory at once, what is not a part at a time."""
    if isinstance(data, bytes | memoryview):
        return (data,)
    return (data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES))


def blocks_of(parts: Iterable[bytes | memoryview], row_bytes: int = 0) -> dict[str, list[Any]]:
    """What a header says first: bytes of a block of the data, which is in parts, and the digests of all in base64.

    Parameters
    ----------
    row_bytes : int
        Bytes of a row of the largest column: nobody reads less.
    """
    views = [memoryview(part) for part in parts]
    size = _block_bytes(sum(len(view) for view in views), row_bytes)
    found: list[bytes] = []
    begun, room = blake3(), size
    for view in views:
        at = 0
        while at < len(view):
            piece = view[at : at + room]
            at += len(piece)
            if len(piece) == size:
                found.append(_short(blake3(piece)))
                continue
            begun.update(piece)
            room -= len(piece)
            if not room:
                found.append(_short(begun))
                begun, room = blake3(), size
    if room < size:
        found.append(_short(begun))
    return {"blocks": [size, base64.b64encode(b"".join(found)).decode()]}


def _block_bytes(nbytes: int, row_bytes: int) -> int:
    size = _LEAST_BLOCK
    while size < _MOST_BLOCK and (size * _MOST_BLOCKS < nbytes or 2 * size <= row_bytes):
        size *= 2
    return size


def digest_of(header: bytes, *data: bytes | memoryview) -> bytes:
    """128 bits of BLAKE3 over the header's length and the header, and over the data where the header has no blocks."""
    return _digest("blake3", header, () if _OPENING.match(header) else data)


def is_intact(page: Laid) -> bool:
    """Whether the digests fit, of the header and of all data."""
    try:
        blocks = opened(page)
        if isinstance(blocks, Blocks):
            blocks.check(0, len(blocks))
    except (CorruptPackageError, TypeError):
        return False
    return True


def opened(page: Laid) -> Data:
    """The data of a page whose header is that which was written; of its blocks each is looked at when it is read.

    Raises
    ------
    CorruptPackageError
        The digest does not fit, or the row holds no bytes.
    """
    try:
        found = blocks_in(page.header, page.digest)
        if found is not None:
            size, digests, _ = found
            return Blocks(page.data, size, digests)
        if any(_digest(name, page.header, pieces(page.data)) == page.digest for name in _HASHES):
            return page.data
    except TypeError as error:  # a row of other types than were written
        raise unfit() from error
    raise unfit()


def blocks_in(header: bytes, digest: bytes) -> tuple[int, bytes, int] | None:
    """Bytes of a block, the digests of all in base64, and where a header that says so goes on; None of another one.

    Raises
    ------
    CorruptPackageError
        The digest of the page does not fit.
    """
    found = _OPENING.match(header)
    if found is None:
        return None
    if blake3(len(header).to_bytes(8, "little") + header).digest(DIGEST_BYTES) != digest:
        raise unfit()
    return int(found[1]), found[2], found.end()


def most_bytes(header: object) -> int:
    """Most bytes of data that have a digest in a page's header; no bound where its digest is one over all of them."""
    found = _OPENING.match(header) if isinstance(header, bytes) else None
    return sys.maxsize if found is None else int(found[1]) * (len(found[2]) * 3 // 4 // DIGEST_BYTES)


class Blocks:
    """Data whose blocks are compared with their digests, which are in base64, when they are first read.

    Raises
    ------
    CorruptPackageError
        A block is not what was written, or there are more or fewer digests than blocks.
    """

    __slots__ = ("_data", "_digests", "_last", "_length", "_near", "_seen", "_size")

    def __init__(self, data: Data, size: int, digests: bytes) -> None:
        self._length = len(data)
        if not are_of(digests, self._length, size):
            raise unfit()
        self._data, self._size, self._digests = data, size, digests
        self._seen: set[int] = set()
        self._last: tuple[int, bytes | memoryview] = -1, b""
        self._near: tuple[int, bytes] = -1, b""

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> bytes | memoryview:
        start, end, _ = part.indices(self._length)
        if start >= end:
            return b""
        size = self._size
        first = start // size
        base = first * size
        if end > base + size:
            found: bytes | memoryview = self._data[base : -(-end // size) * size]
            whole = memoryview(found)
            for at in range(base, end, size):
                self._compare(at // size, whole[at - base : at - base + size])
        elif self._last[0] == first:  # that one alone is kept: rows of small columns lie in one
            found = self._last[1]
        else:
            found = self._data[base : base + size]
            self._compare(first, found)
            self._last = first, found
        return found[start - base : end - base]

    def view(self, start: int, end: int) -> memoryview:
        """Some bytes of data that is in memory."""
        self.check(start, end)
        return memoryview(self._data)[start:end]  # type: ignore[arg-type]

    def check(self, start: int, end: int) -> None:
        """Look at the blocks that some bytes lie in; nothing is kept."""
        data = memoryview(self._data) if isinstance(self._data, bytes) else self._data
        for number in range(start // self._size, -(-end // self._size)):
            if number not in self._seen:
                self._compare(number, data[number * self._size : (number + 1) * self._size])

    def _compare(self, number: int, block: bytes | memoryview) -> None:
        three, one = divmod(number, 3)
        near = self._near
        if near[0] != three:
            try:
                letters = self._digests[three * THREE : (three + 1) * THREE]
                near = self._near = three, binascii.a2b_base64(letters, strict_mode=True)
            except ValueError as error:
                raise unfit() from error
        if blake3(block).digest(DIGEST_BYTES) != near[1][one * DIGEST_BYTES : (one + 1) * DIGEST_BYTES]:
            raise unfit()
        self._seen.add(number)


def are_of(digests: bytes, length: int, size: int) -> bool:
    """Whether there are as many digests, in base64, as data of some bytes has blocks of a size."""
    # of n digests as many letters as of no other number
    return size > 0 and len(digests) == (DIGEST_BYTES * -(-length // size) + 2) // 3 * 4


def unfit() -> CorruptPackageError:
    """What is raised where bytes are not those that a digest is of."""
    return CorruptPackageError("the digest does not fit the bytes")


def _short(state: Any) -> bytes:
    return bytes(state.digest()[:DIGEST_BYTES])


def _digest(name: str, header: bytes, data: Iterable[bytes | memoryview]) -> bytes:
    digest = _HASHES[name](len(header).to_bytes(8, "little"))
    digest.update(header)
    for part in data:
        digest.update(part)
    return _short(digest)
