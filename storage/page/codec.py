"""One array and its bytes: raw, or a Blosc2 chunk where that pays, and the gate before anything is decoded."""

from __future__ import annotations

import math
import re
import reprlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError, ParamError
from whiteboard.memory.room import LEAST_BYTES, Room, room
from whiteboard.storage.page.blosc import CODECS, blosc

RAW: Final = "raw"
BLOSC2: Final = "blosc2"
ROWS: Final = "rows"
"""Raw, and each row beside those of other arrays: bytes of the others lie between two rows."""

MAX_BYTES: Final = 10**9
"""The most bytes that the chunks of a page may decode to: what holds more lies there raw."""

MOST_BYTES: Final = 2**36
"""The most bytes of a page: a header has room for the digests of ten times as many."""

# Below this many bytes the chunk header and the call cost more than compression can give.
_SMALLEST = 256
# Random floats shrink to 0.92, by their exponents: that saves less than decoding them costs.
_PAYS = 0.85
# A row of many is read alone, at the cost of a block of Blosc2's. So cut, a smooth column of 174 KB takes 162 µs to
# compress where whole it takes 153, and is 3 % larger, and a row of it is decoded in 20 µs, not 55.
_ROWS, _BLOCK_BYTES = 8, 64 * 1024
# From so many bytes on NumPy asks for large pages itself.
_NUMPYS = 4 * 2**20
# What is larger is tried on some of its parts first: most arrays that do not pay are random from end to end.
_PROBE_PARTS, _PROBE_BYTES = 4, 1024

_CHUNK_HEADER = struct.Struct("<BBBBiii")
_CHUNK_OVERHEAD = 32
_NEWEST_FORMAT = 6
_EXTENDED_HEADER = 0x05
_UNSPLIT = 0x10
_SPECIAL_NONE, _SPECIAL_ZERO = 0x00, 0x10
_SHUFFLE = bytes((1, 0, 0, 0, 0, 0))
# What a chunk's header says of its codec: the format in its flags, and the number of the compressor.
_FORMATS: Final = {"blosclz": (0x00, CODECS["blosclz"]), "lz4": (0x20, CODECS["lz4"]), "zstd": (0x80, CODECS["zstd"])}
# What is decoded only to see that it can be goes so many bytes at a time. Blocks of Blosc2 are from 8 KB to 4 MB, and
# no more than a few lengths of streams longer than what they decode to.
_PIECE_BYTES = 8 * 2**20
_LEAST_BLOCK = 4096
# A chunk that is read in one go, whatever is wanted of it.
_SHORT: Final = 16 * 1024
_BLOCK_OVERHEAD = 4 * 256
_DTYPE = re.compile(r"[<>|][biufc](1|2|4|8|16)")


class Data(Protocol):
    """Bytes, or what gives them a slice at a time."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> bytes | memoryview: ...


@dataclass(frozen=True, slots=True)
class Encoding:
    """How arrays are made smaller where that pays.

    Parameters
    ----------
    codec : {"zstd", "lz4", "blosclz", "raw"}
        ``raw`` leaves them as they are.
    level : int
        1 (fast) to 9 (small); 0 for ``raw``.

    Raises
    ------
    ParamError
    """

    codec: str = "zstd"
    level: int = 1

    def __post_init__(self) -> None:
        if self.codec not in (*_FORMATS, RAW):
            message = f"codec: expected one of {', '.join((*_FORMATS, RAW))}, got {self.codec!r}"
            raise ParamError(message)
        low, high = (0, 0) if self.codec == RAW else (1, 9)
        if not low <= self.level <= high:
            message = f"level of codec {self.codec}: expected {low} to {high}, got {self.level}"
            raise ParamError(message)

    def __str__(self) -> str:
        return f"{self.codec}:{self.level}"


DEFAULT: Final = Encoding()
PLAIN: Final = Encoding(RAW, 0)


def encode(array: NDArray[Any], encoding: Encoding = DEFAULT) -> tuple[str, bytes | memoryview]:
    """Bytes of a C-contiguous array, and whether they are raw or a chunk."""
    if encoding.codec != RAW and array.nbytes >= _SMALLEST and _promises(array, encoding):
        block = _BLOCK_BYTES if len(array) >= _ROWS and array.nbytes > _BLOCK_BYTES else 0
        chunk = blosc().compress(array, encoding.codec, encoding.level, block)
        if len(chunk) <= _PAYS * array.nbytes and _is_readable(chunk, array.nbytes):
            return BLOSC2, chunk
    return RAW, array.reshape(-1).view(np.uint8).data


def decode(
    codec: object,
    payload: memoryview,
    kind: np.dtype[Any],
    nbytes: int,
    shape: Sequence[int],
    into: Room | None = None,
) -> NDArray[Any]:
    """The array that `encode` was given, read-only, as `described`; of raw bytes it is a view of `payload`.

    Rows that lie beside others' stay where they are: each is in one piece, and all of them are not. A chunk is decoded
    `into` a room, which was never filled before, if there is one for it.

    Raises
    ------
    CorruptPackageError
        The bytes are not what `encode` writes. The caller has compared the digest before.
    """
    try:
        if codec == ROWS or (codec == RAW and len(payload) == nbytes):
            steps = None if codec == RAW else _steps(len(payload), kind, nbytes, shape)
            view: NDArray[Any] = np.ndarray(tuple(shape), kind, payload, strides=steps)
            array = view if view.flags.aligned else view.copy()
        elif codec == BLOSC2:
            _check_chunk(bytes(payload[:_CHUNK_OVERHEAD]), len(payload), nbytes)
            array = _decompressed(payload, kind, nbytes, tuple(shape), into)
        else:
            message = f"codec {codec!r} with {len(payload)} bytes for {nbytes}"
            raise CorruptPackageError(message)
    except (ValueError, MemoryError) as error:
        message = f"an array of shape {shape!r} cannot be made: {error}"
        raise CorruptPackageError(message) from error
    array.flags.writeable = False
    return array


def row_step(length: int, n: int, nbytes: int) -> int:
    """How many bytes apart rows begin, of n that lie beside others' in so many bytes, and have `nbytes` themselves.

    Raises
    ------
    CorruptPackageError
    """
    row = nbytes // max(n, 1)
    step, rest = divmod(length - row, n - 1) if n > 1 else (0, 0)
    if rest or step < row or not row:
        message = f"{length} bytes hold no {n} rows of {row} bytes beside others"
        raise CorruptPackageError(message)
    return step


def _steps(length: int, kind: np.dtype[Any], nbytes: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of an array whose rows lie beside others' in so many bytes."""
    apart = row_step(length, shape[0] if shape else 0, nbytes)
    return apart, *(kind.itemsize * math.prod(shape[axis + 1 :]) for axis in range(1, len(shape)))


def described(dtype: object, shape: object) -> tuple[np.dtype[Any], int]:
    """The dtype of an array, and its bytes.

    Raises
    ------
    CorruptPackageError
        No array is of this dtype and shape, or a page cannot hold it.
    """
    kind = _checked_dtype(dtype)
    if not isinstance(shape, Sequence) or len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        message = f"shape {reprlib.repr(shape)} is not a shape"
        raise CorruptPackageError(message)
    nbytes = math.prod(shape) * kind.itemsize
    if nbytes > MOST_BYTES:
        message = f"{reprlib.repr(nbytes)} bytes are more than the {MOST_BYTES} that a page may hold"
        raise CorruptPackageError(message)
    return kind, nbytes


def check_total(arrays: Iterable[tuple[object, int]], room: int = MOST_BYTES) -> None:
    """Raise where arrays, each its codec and its bytes, are more than a page of `room` bytes can have.

    Raw ones lie in it side by side; what chunks decode to is bounded whatever they say.

    Raises
    ------
    CorruptPackageError
    """
    raw = decoded = 0
    for codec, nbytes in arrays:
        if codec == RAW:
            raw += nbytes
        else:
            decoded += nbytes
    if decoded > MAX_BYTES:
        message = f"the arrays are more than {MAX_BYTES} bytes"
        raise CorruptPackageError(message)
    if raw > room:
        message = f"the arrays are more than the {room} bytes that there are of them"
        raise CorruptPackageError(message)


def check(codec: object, payload: Data, nbytes: int) -> None:
    """Raise where `decode` would; what is decoded on the way is a few blocks at a time, and is not kept.

    Raises
    ------
    CorruptPackageError
    """
    for _ in _parts(codec, payload, nbytes, 0, nbytes):
        pass


def decode_part(codec: object, payload: Data, nbytes: int, start: int, end: int) -> bytes | memoryview | bytearray:
    """Bytes `start` to `end` of the array that `encode` was given, and has `nbytes`; only what they lie in is decoded.

    Raises
    ------
    CorruptPackageError
    """
    if codec == RAW and len(payload) == nbytes:
        return payload[start:end]
    found = bytearray(end - start)
    for at, part in _parts(codec, payload, nbytes, start, end):
        low, high = max(at, start), min(at + len(part), end)
        found[low - start : high - start] = part[low - at : high - at].data
    return found


def _parts(codec: object, payload: Data, nbytes: int, start: int, end: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """What an array's bytes from `start` to `end` lie in: where each part begins, and the part."""
    if codec == RAW and len(payload) == nbytes:
        return
    if codec != BLOSC2:
        message = f"codec {reprlib.repr(codec)} with {len(payload)} bytes for {nbytes}"
        raise CorruptPackageError(message)
    if len(payload) <= _SHORT:
        payload = payload[:]
    head = bytes(payload[:_CHUNK_OVERHEAD])
    _check_chunk(head, len(payload), nbytes)
    if head[-1] == _SPECIAL_ZERO:
        for at in range(start, end, _PIECE_BYTES):
            yield at, np.zeros(min(_PIECE_BYTES, end - at), np.uint8)
        return
    blocksize = int(_CHUNK_HEADER.unpack_from(head)[5])
    blocks, most = -(-nbytes // blocksize), max(2, _PIECE_BYTES // (4 * blocksize))
    if not min(nbytes // 2, _LEAST_BLOCK) <= blocksize <= _PIECE_BYTES:
        message = f"a chunk of {nbytes} bytes has blocks of {blocksize}"
        raise CorruptPackageError(message)
    # The last block may be a short one, which the header of a chunk of it alone could not say.
    alone = blocks - 2 if nbytes % blocksize else blocks - 1
    at, stop = max(0, min(start // blocksize, alone)), -(-end // blocksize)
    while at < stop:
        upto = blocks if stop == blocks <= at + most + 1 else min(stop, at + most)
        part = np.zeros(min(nbytes, upto * blocksize) - at * blocksize, np.uint8)
        _decompress(memoryview(_some_blocks(head, payload, at, upto, len(part))), part)
        yield at * blocksize, part
        at = upto


def _some_blocks(head: bytes, payload: Data, first: int, last: int, nbytes: int) -> bytes:
    """Some blocks of a chunk as a chunk of their own, which decodes to `nbytes`: blocks know nothing of one another."""
    *_, whole, blocksize, _ = _CHUNK_HEADER.unpack_from(head)
    upto = min(last + 1, -(-whole // blocksize))
    table = payload[_CHUNK_OVERHEAD + 4 * first : _CHUNK_OVERHEAD + 4 * upto]
    if len(table) != 4 * (upto - first):
        message = f"a chunk of {len(payload)} bytes has no room for the places of its blocks"
        raise CorruptPackageError(message)
    starts = struct.unpack(f"<{upto - first}i", table)
    places, body = [], []
    place = _CHUNK_OVERHEAD + 4 * (last - first)
    for start, following in zip(starts[: last - first], (*starts[1:], len(payload)), strict=False):
        if not _CHUNK_OVERHEAD <= start < len(payload):
            message = f"a block of a chunk of {len(payload)} bytes begins at byte {start}"
            raise CorruptPackageError(message)
        # Blocks lie one after another: what comes after this one is not read.
        most = blocksize + _BLOCK_OVERHEAD
        body.append(payload[start : min(start + most, following) if following > start else start + most])
        places.append(place)
        place += len(body[-1])
    opened = head[:4] + struct.pack("<3i", nbytes, blocksize, place) + head[16:]
    return b"".join([opened, struct.pack(f"<{len(places)}i", *places), *body])


def _checked_dtype(text: object) -> np.dtype[Any]:
    # The pattern comes before np.dtype, which also reads structured and object dtypes from text.
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        message = f"dtype {reprlib.repr(text)} is not a plain numeric dtype"
        raise CorruptPackageError(message)
    try:
        return np.dtype(text)
    except TypeError as error:
        message = f"dtype {text!r} is not known"
        raise CorruptPackageError(message) from error


def _promises(array: NDArray[Any], encoding: Encoding) -> bool:
    """Whether parts of an array compress well enough; of a small one only the whole tells."""
    if array.nbytes <= 2 * _PROBE_PARTS * _PROBE_BYTES:
        return True
    flat = array.reshape(-1)
    size = max(1, _PROBE_BYTES // array.itemsize)
    step = (len(flat) - size) // (_PROBE_PARTS - 1)
    probe = np.concatenate([flat[start : start + size] for start in range(0, _PROBE_PARTS * step, step)])
    return len(blosc().compress(probe, encoding.codec, encoding.level)) <= _PAYS * probe.nbytes


def _is_readable(chunk: bytes, nbytes: int) -> bool:
    # A future Blosc2 may write what this gate does not know; raw bytes are always right.
    try:
        _check_chunk(chunk[:_CHUNK_OVERHEAD], len(chunk), nbytes)
    except CorruptPackageError:
        return False
    return True


def _check_chunk(head: bytes, length: int, nbytes: int) -> None:
    """Compare the header of a chunk of `length` bytes with what is expected of it, field by field.

    The layout is C-Blosc2's README_CHUNK_FORMAT. Lazy chunks, dictionaries, plugins, other codecs and special chunks
    other than zeros are things that `encode` never writes, or that make the decoder read elsewhere: they are refused.
    """
    if len(head) < _CHUNK_OVERHEAD:
        message = f"a chunk of {length} bytes has no header"
        raise CorruptPackageError(message)
    version, _, flags, typesize, chunk_nbytes, blocksize, cbytes = _CHUNK_HEADER.unpack_from(head)
    if not (
        cbytes == length
        and chunk_nbytes == nbytes
        and typesize > 0
        and 0 < blocksize <= nbytes
        and version <= _NEWEST_FORMAT
        and (flags & ~_UNSPLIT ^ _EXTENDED_HEADER, head[22]) in _FORMATS.values()
        and head[16:22] == _SHUFFLE
        and not any(head[23:30])
        and head[31] in (_SPECIAL_NONE, _SPECIAL_ZERO)
    ):
        message = f"chunk header {head.hex()} does not fit {nbytes} bytes"
        raise CorruptPackageError(message)


def _decompressed(
    chunk: memoryview, kind: np.dtype[Any], nbytes: int, shape: tuple[int, ...], made: Room | None
) -> NDArray[Any]:
    # Zeros, so that bytes which a malformed chunk leaves out are never another array's.
    if made is None and LEAST_BYTES <= nbytes < _NUMPYS:
        made = room(nbytes)
    if made is None or len(made.into) != nbytes:
        array: NDArray[Any] = np.zeros(shape, kind)
        _decompress(chunk, array)
        return array
    into = np.frombuffer(made.into, np.uint8)
    if not made.is_new:
        into.fill(0)
    _decompress(chunk, into)
    return np.ndarray(shape, kind, made.lent())


def _decompress(chunk: memoryview, out: NDArray[Any]) -> None:
    try:
        blosc().decompress(chunk, out)
    except ValueError as error:
        message = f"the chunk does not decompress: {error}"
        raise CorruptPackageError(message) from error
