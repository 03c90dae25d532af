"""Blosc2's compressor and decompressor, by its C library where that lies beside the package.

``import blosc2`` brings a remote store, a table and an HTTP client, 0.2 s of imports of which a process that reads one
array needs nothing. Its wheels hold the library too, as programs in C use it; the number in its name says that its
functions and structures are those below. Where no file has that name, as elsewhere than on Linux, the package is used.
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import c_bool, c_int, c_int16, c_int32, c_uint8, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

CODECS: Final = {"blosclz": 0, "lz4": 1, "zstd": 5}
"""Numbers of compressors, as they are in a chunk's header too."""

_LIBRARY: Final = "libblosc2.so.9"
_FILTERS: Final = 6
_SHUFFLE, _AUTO_SPLIT = 1, 3
_OVERHEAD: Final = 32
# Less is done sooner than the interpreter is had again where another thread computes.
_LETS_GO: Final = 64 * 1024
# What was worked in for so much is kept for the next: a thread has a few times as many bytes.
_SMALL: Final = 256 * 1024
# What is tried of large arrays has so many bytes: to compress them takes 15 µs, and 36 with a context made for it.
_PROBE: Final = 4096


class Blosc(Protocol):
    """What is needed of Blosc2. Both use one thread: two can wait for each other for ever over a malformed chunk."""

    def compress(self, array: NDArray[Any], codec: str, level: int, block: int = 0) -> bytes:
        """A chunk of a C-contiguous array, its bytes shuffled by the size of its items, in blocks of so many bytes.

        By default these are as large as the level has them, up to 4 MB: what is read of a chunk costs a block.
        """

    def decompress(self, chunk: memoryview, out: NDArray[Any]) -> None:
        """Fill a C-contiguous array with what a chunk holds, whose header says as many bytes.

        Raises
        ------
        ValueError
            The chunk is malformed; what `out` holds then is anything.
        """


@cache
def blosc() -> Blosc:
    """The library where it is there, else the package."""
    spec = find_spec("blosc2")
    file = None if spec is None or spec.origin is None else Path(spec.origin).parent / "lib" / _LIBRARY
    if file is not None and file.is_file():
        try:
            return Library(file)
        except (OSError, AttributeError):  # of another machine, or without some of the functions
            pass
    return Package()


class _Compression(ctypes.Structure):
    """``blosc2_cparams``."""

    _fields_ = (
        ("compcode", c_uint8),
        ("compcode_meta", c_uint8),
        ("clevel", c_uint8),
        ("use_dict", c_int),
        ("typesize", c_int32),
        ("nthreads", c_int16),
        ("blocksize", c_int32),
        ("splitmode", c_int32),
        ("schunk", c_void_p),
        ("filters", c_uint8 * _FILTERS),
        ("filters_meta", c_uint8 * _FILTERS),
        ("prefilter", c_void_p),
        ("preparams", c_void_p),
        ("tuner_params", c_void_p),
        ("tuner_id", c_int),
        ("instr_codec", c_bool),
        ("codec_params", c_void_p),
        ("filter_params", c_void_p * _FILTERS),
    )


class _Decompression(ctypes.Structure):
    """``blosc2_dparams``."""

    _fields_ = (
        ("nthreads", c_int16),
        ("schunk", c_void_p),
        ("postfilter", c_void_p),
        ("postparams", c_void_p),
        ("typesize", c_int32),
    )


class _Context:
    """What a call works in; a new one takes 9 µs to get its memory, and a chunk of 64 KB 7 µs more."""

    __slots__ = ("_library", "at")

    def __init__(self, library: Any, made: Any) -> None:
        self._library, self.at = library, made

    def __del__(self) -> None:
        self._library.blosc2_free_ctx(self.at)


class Library:
    """The C library in a file."""

    def __init__(self, file: Path) -> None:
        # The same library twice: calls of the first keep the interpreter, calls of the second let others have it.
        self._keeps: Any = _declared(ctypes.PyDLL(str(file)))
        self._lets_go: Any = _declared(ctypes.CDLL(str(file)))
        self._keeps.blosc2_init()
        self._kept = threading.local()

    def compress(self, array: NDArray[Any], codec: str, level: int, block: int = 0) -> bytes:
        chunk = np.empty(array.nbytes + _OVERHEAD, np.uint8)
        # A context goes by the blocks of what it was first used for, so it is kept for what has as many bytes.
        asked = codec, level, array.itemsize, array.nbytes, block
        kept: dict[Any, _Context] = self._kept.__dict__
        context = kept.pop(asked, None) or _Context(self._keeps, self._compressing(*asked))
        size = self._of(array.nbytes).blosc2_compress_ctx(context.at, _at(array), array.nbytes, _at(chunk), len(chunk))
        if array.nbytes == _PROBE:
            kept[asked] = context
        if size <= 0:
            message = f"Blosc2 cannot compress {array.nbytes} bytes: it said {size}"
            raise RuntimeError(message)
        return chunk[:size].tobytes()

    def decompress(self, chunk: memoryview, out: NDArray[Any]) -> None:
        given = np.frombuffer(chunk, np.uint8)
        # Taken out while it is at work: a signal's handler that comes in here makes another.
        kept: dict[Any, _Context] = self._kept.__dict__
        context = kept.pop("context", None) or _Context(self._keeps, self._decompressing())
        size = self._of(out.nbytes).blosc2_decompress_ctx(context.at, _at(given), given.nbytes, _at(out), out.nbytes)
        if size != out.nbytes:
            message = f"Blosc2 said {size} where {out.nbytes} bytes were to come"
            raise ValueError(message)
        if out.nbytes <= _SMALL:
            kept["context"] = context

    def _compressing(self, codec: str, level: int, itemsize: int, _: int, block: int) -> Any:
        asked = _Compression(
            compcode=CODECS[codec], clevel=level, typesize=itemsize, nthreads=1, blocksize=block, splitmode=_AUTO_SPLIT
        )
        asked.filters[0] = _SHUFFLE
        return self._keeps.blosc2_create_cctx(asked)

    def _decompressing(self) -> Any:
        return self._keeps.blosc2_create_dctx(_Decompression(nthreads=1, typesize=8))

    def _of(self, nbytes: int) -> Any:
        return self._keeps if nbytes < _LETS_GO else self._lets_go


def _declared(library: Any) -> Any:
    """A library that knows what its functions take and return."""
    library.blosc2_create_cctx.argtypes = (_Compression,)
    library.blosc2_create_dctx.argtypes = (_Decompression,)
    for make in (library.blosc2_create_cctx, library.blosc2_create_dctx):
        make.restype = c_void_p
    for work in (library.blosc2_compress_ctx, library.blosc2_decompress_ctx):
        work.argtypes, work.restype = (c_void_p, c_void_p, c_int32, c_void_p, c_int32), c_int
    library.blosc2_free_ctx.argtypes, library.blosc2_free_ctx.restype = (c_void_p,), None
    library.blosc2_init.argtypes, library.blosc2_init.restype = (), None
    return library


def _at(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


class Package:
    """The package ``blosc2``."""

    def compress(self, array: NDArray[Any], codec: str, level: int, block: int = 0) -> bytes:
        import blosc2

        chunk = blosc2.compress2(
            array,
            codec=blosc2.Codec[codec.upper()],
            clevel=level,
            typesize=array.itemsize,
            blocksize=block,
            filters=[blosc2.Filter.SHUFFLE],
            filters_meta=[0],
            splitmode=blosc2.SplitMode.AUTO_SPLIT,
            nthreads=1,
        )
        return bytes(chunk)

    def decompress(self, chunk: memoryview, out: NDArray[Any]) -> None:
        import blosc2

        try:
            blosc2.decompress2(chunk, out, nthreads=1)
        except (RuntimeError, TypeError) as error:
            raise ValueError(str(error)) from error
