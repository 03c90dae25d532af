"""One array and its bytes: raw, or a Blosc2 chunk where that pays, and the gate before anything is decoded."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError

RAW: Final = "raw"
BLOSC2: Final = "blosc2"

MAX_BYTES: Final = 10**9
"""SQLite's limit on one blob, and so the most bytes that a page may hold, encoded or decoded."""

# Below this many bytes the chunk header and the call cost more than compression can give.
_SMALLEST = 256
# Random floats shrink to 0.92, by their exponents: that saves less than decoding them costs.
_PAYS = 0.85
# What is larger is tried on some of its parts first: most arrays that do not pay are random from end to end.
_PROBE_PARTS, _PROBE_BYTES = 4, 1024

_CHUNK_HEADER = struct.Struct("<BBBBiii")
_CHUNK_OVERHEAD = 32
_NEWEST_FORMAT = 6
_EXTENDED_HEADER = 0x05
_SPECIAL_NONE, _SPECIAL_ZERO = 0x00, 0x10
_SHUFFLE = bytes((1, 0, 0, 0, 0, 0))
_DTYPE = re.compile(r"[<>|][biufc](1|2|4|8|16)")


def encode(array: NDArray[Any], *, compress: bool = True) -> tuple[str, bytes | memoryview]:
    """Bytes of a C-contiguous array, and the name of their codec."""
    if compress and array.nbytes >= _SMALLEST and _promises(array):
        chunk = _compress(array)
        if len(chunk) <= _PAYS * array.nbytes and _is_readable(chunk, array.nbytes):
            return BLOSC2, chunk
    return RAW, array.reshape(-1).view(np.uint8).data


def decode(codec: object, payload: memoryview, dtype: object, shape: Sequence[int]) -> NDArray[Any]:
    """The array that `encode` was given, read-only; of raw bytes it is a view of `payload`.

    Raises
    ------
    CorruptPackageError
        The description or the bytes are not what `encode` writes. The caller has compared the digest before.
    """
    kind = _checked_dtype(dtype)
    if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 32:
        message = f"shape {shape!r} is not a shape"
        raise CorruptPackageError(message)
    nbytes = math.prod(shape) * kind.itemsize
    if nbytes > MAX_BYTES:
        message = f"{nbytes} bytes are more than the {MAX_BYTES} that a page may hold"
        raise CorruptPackageError(message)
    try:
        if codec == RAW and len(payload) == nbytes:
            view: NDArray[Any] = np.ndarray(tuple(shape), kind, buffer=payload)
            array = view if view.flags.aligned else view.copy()
        elif codec == BLOSC2:
            _check_chunk(payload, nbytes)
            # Zeros, so that bytes which a malformed chunk leaves out are never another array's.
            array = np.zeros(tuple(shape), kind)
            _decompress(payload, array)
        else:
            message = f"codec {codec!r} with {len(payload)} bytes for {nbytes}"
            raise CorruptPackageError(message)
    except (ValueError, MemoryError) as error:
        message = f"an array of shape {shape!r} cannot be made: {error}"
        raise CorruptPackageError(message) from error
    array.flags.writeable = False
    return array


def _checked_dtype(text: object) -> np.dtype[Any]:
    # The pattern comes before np.dtype, which also reads structured and object dtypes from text.
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        message = f"dtype {text!r} is not a plain numeric dtype"
        raise CorruptPackageError(message)
    try:
        return np.dtype(text)
    except TypeError as error:
        message = f"dtype {text!r} is not known"
        raise CorruptPackageError(message) from error


def _compress(array: NDArray[Any]) -> bytes:
    import blosc2

    chunk = blosc2.compress2(
        array,
        codec=blosc2.Codec.ZSTD,
        clevel=1,
        typesize=array.itemsize,
        filters=[blosc2.Filter.SHUFFLE],
        filters_meta=[0],
        nthreads=1,
    )
    return bytes(chunk)


def _promises(array: NDArray[Any]) -> bool:
    """Whether parts of an array compress well enough; of a small one only the whole tells."""
    if array.nbytes <= 2 * _PROBE_PARTS * _PROBE_BYTES:
        return True
    flat = array.reshape(-1)
    size = max(1, _PROBE_BYTES // array.itemsize)
    step = (len(flat) - size) // (_PROBE_PARTS - 1)
    probe = np.concatenate([flat[start : start + size] for start in range(0, _PROBE_PARTS * step, step)])
    return len(_compress(probe)) <= _PAYS * probe.nbytes


def _is_readable(chunk: bytes, nbytes: int) -> bool:
    # A future Blosc2 may write what this gate does not know; raw bytes are always right.
    try:
        _check_chunk(memoryview(chunk), nbytes)
    except CorruptPackageError:
        return False
    return True


def _check_chunk(chunk: memoryview, nbytes: int) -> None:
    """Compare a chunk's header with what is expected of it, field by field.

    The layout is C-Blosc2's README_CHUNK_FORMAT. Lazy chunks, dictionaries, plugins and special chunks other than
    zeros are things that `encode` never writes and that make the decoder read elsewhere, so they are refused.
    """
    if len(chunk) < _CHUNK_OVERHEAD:
        message = f"a chunk of {len(chunk)} bytes has no header"
        raise CorruptPackageError(message)
    version, _, flags, typesize, chunk_nbytes, blocksize, cbytes = _CHUNK_HEADER.unpack_from(chunk)
    if not (
        cbytes == len(chunk)
        and chunk_nbytes == nbytes
        and typesize > 0
        and 0 < blocksize <= nbytes
        and version <= _NEWEST_FORMAT
        and flags & _EXTENDED_HEADER == _EXTENDED_HEADER
        and bytes(chunk[16:22]) == _SHUFFLE
        and not any(chunk[24:30])
        and chunk[31] in (_SPECIAL_NONE, _SPECIAL_ZERO)
    ):
        message = f"chunk header {bytes(chunk[:_CHUNK_OVERHEAD]).hex()} does not fit {nbytes} bytes"
        raise CorruptPackageError(message)


def _decompress(chunk: memoryview, out: NDArray[Any]) -> None:
    import blosc2

    try:
        # One thread: two can wait for each other for ever over a malformed chunk.
        blosc2.decompress2(chunk, out, nthreads=1)
    except (RuntimeError, ValueError, TypeError) as error:
        message = f"the chunk does not decompress: {error}"
        raise CorruptPackageError(message) from error
