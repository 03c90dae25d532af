"""Arrays as bytes, and the gate: whatever is not what `encode` writes is refused before it is decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import blosc2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whiteboard.errors import CorruptPackageError
from whiteboard.storage.page import blosc, codec
from whiteboard.storage.page.codec import BLOSC2, PLAIN, RAW, Encoding, decode, described, encode

ARRAYS = hnp.arrays(
    st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(endianness="?"),
        hnp.unsigned_integer_dtypes(endianness="?"),
        hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
        hnp.complex_number_dtypes(endianness="?", sizes=(64, 128)),
    ),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12),
)


ENCODINGS = [PLAIN, *(Encoding(codec, level) for codec in ("lz4", "blosclz", "zstd") for level in (1, 5, 9))]


def _decode(encoded: tuple[str, bytes | memoryview], array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return _read(encoded[0], encoded[1], array.dtype.str, array.shape)


def _read(codec: object, payload: bytes | memoryview, dtype: object, shape: Any) -> np.ndarray[Any, Any]:
    return decode(codec, memoryview(payload), *described(dtype, shape), shape)


@given(ARRAYS)
def test_round_trip(array: np.ndarray[Any, Any]) -> None:
    """Any numeric array comes back with its dtype, shape and bits, read-only."""
    back = _decode(encode(array), array)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert not back.flags.writeable


@given(ARRAYS, st.sampled_from(ENCODINGS))
def test_round_trip_in_any_encoding(array: np.ndarray[Any, Any], encoding: Encoding) -> None:
    """Whatever `encode` writes with any codec and level passes the gate and comes back."""
    back = _decode(encode(array, encoding), array)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


@pytest.mark.parametrize("encoding", ENCODINGS[1:], ids=str)
@pytest.mark.parametrize("array", [np.zeros(9000), np.arange(9000), np.linspace(0, 1, 900, dtype=np.float32)])
def test_every_codec_pays_and_passes_the_gate(array: np.ndarray[Any, Any], encoding: Encoding) -> None:
    """What compresses is a chunk in every encoding, so that the gate knows what each of them writes."""
    encoded = encode(array, encoding)
    assert encoded[0] == BLOSC2
    np.testing.assert_array_equal(_decode(encoded, array), array)


@pytest.mark.parametrize("name", blosc.CODECS)
@pytest.mark.parametrize(
    "array",
    [np.zeros(9000), np.arange(9000, dtype=">i4"), np.random.default_rng(0).normal(size=50), np.arange(64) / 64],
)
def test_library_and_package_are_one(array: np.ndarray[Any, Any], name: str) -> None:
    """Blosc2's library, called by itself, writes the chunks that its package does; each reads the other's."""
    library, package = blosc.blosc(), blosc.Package()
    for level in (1, 9):
        chunk = library.compress(array, name, level)
        assert chunk == package.compress(array, name, level)
        for each in (library, package):
            out = np.empty_like(array)
            each.decompress(memoryview(chunk), out)
            np.testing.assert_array_equal(out, array)


def test_both_refuse_what_is_malformed() -> None:
    """A chunk that ends too early, and one for another array, are errors of one kind."""
    chunk = blosc.blosc().compress(np.arange(1000.0), "zstd", 1)
    for each in (blosc.blosc(), blosc.Package()):
        with pytest.raises(ValueError, match=r"Blosc2 said|while decompressing"):
            each.decompress(memoryview(chunk[:40]), np.empty(1000))


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (np.zeros(10_000), BLOSC2),
        (np.arange(10_000), BLOSC2),
        (np.random.default_rng(0).normal(size=10_000), RAW),
        (np.random.default_rng(0).integers(0, 256, 10_000, np.uint8), RAW),
        (np.zeros(8), RAW),
        (np.zeros((0, 5)), RAW),
    ],
    ids=["zeros", "range", "normal", "noise", "small", "empty"],
)
def test_compressed_only_where_it_pays(array: np.ndarray[Any, Any], name: str) -> None:
    """Arrays that compression does not make much smaller are stored as they are."""
    encoded = encode(array)
    assert encoded[0] == name
    assert len(encoded[1]) <= array.nbytes
    np.testing.assert_array_equal(_decode(encoded, array), array)


def _chunk(**options: Any) -> bytes:
    plain = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.SHUFFLE], "filters_meta": [0]}
    return bytes(blosc2.compress2(np.arange(1000.0), typesize=8, nthreads=1, **{**plain, **options}))


def _patched(offset: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda chunk: chunk[:offset] + new + chunk[offset + len(new) :]


@pytest.mark.parametrize(
    "patch",
    [
        _patched(0, b"\x07"),
        _patched(2, b"\x02"),
        _patched(3, b"\x00"),
        _patched(4, struct.pack("<i", 8008)),
        _patched(4, struct.pack("<i", -1)),
        _patched(8, struct.pack("<i", 0)),
        _patched(8, struct.pack("<i", 8001)),
        _patched(8, struct.pack("<i", -8)),
        _patched(12, struct.pack("<i", 7)),
        _patched(16, b"\x20"),
        _patched(16, b"\x00\x01"),
        _patched(24, b"\x05"),
        _patched(2, b"\x25"),
        _patched(2, b"\x87"),
        _patched(2, b"\x8d"),
        _patched(22, b"\x01"),
        _patched(22, b"\x20"),
        _patched(23, b"\x01"),
        _patched(31, b"\x40"),
        _patched(31, b"\x08"),
        _patched(31, b"\x20"),
        _patched(31, b"\x01"),
        lambda chunk: chunk[:31],
        lambda chunk: b"",
        lambda chunk: chunk[:-1],
        lambda chunk: chunk + b"\x00",
    ],
    ids=[
        "version",
        "old header",
        "typesize 0",
        "nbytes",
        "nbytes < 0",
        "blocksize 0",
        "blocksize > nbytes",
        "blocksize < 0",
        "cbytes",
        "plugin filter",
        "other filter",
        "filter meta",
        "another codec's format",
        "a copy",
        "a flag of no meaning",
        "another codec",
        "plugin codec",
        "codec meta",
        "uninit",
        "lazy",
        "nans",
        "dictionary",
        "31 bytes",
        "empty",
        "cut",
        "longer",
    ],
)
def test_chunk_headers_that_are_refused(patch: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk whose header is not what `encode` writes never reaches the decoder."""
    monkeypatch.setattr(codec, "_decompress", lambda chunk, out: pytest.fail("it was decoded"))
    chunk = patch(_chunk())
    with pytest.raises(CorruptPackageError):
        _read(BLOSC2, chunk, "<f8", (1000,))


@pytest.mark.parametrize(
    "options",
    [
        {"codec": blosc2.Codec.ZLIB},
        {"codec": blosc2.Codec.LZ4HC},
        {"clevel": 0},
        {"filters": [blosc2.Filter.BITSHUFFLE]},
        {"filters": [blosc2.Filter.NOFILTER]},
        {"filters": [blosc2.Filter.DELTA, blosc2.Filter.SHUFFLE], "filters_meta": [0, 0]},
        {"filters": [blosc2.Filter.TRUNC_PREC, blosc2.Filter.SHUFFLE], "filters_meta": [20, 0]},
        {"use_dict": 1},
    ],
    ids=lambda options: ", ".join(map(str, options.values())),
)
def test_chunks_of_others_are_refused(options: dict[str, Any]) -> None:
    """A good chunk that `encode` would not write, by its codec, filter or level, is refused."""
    with pytest.raises(CorruptPackageError, match="chunk header"):
        _read(BLOSC2, _chunk(**options), "<f8", (1000,))


@pytest.mark.parametrize(
    ("name", "size", "dtype", "shape"),
    [
        (RAW, 16, "|O", (2,)),
        (RAW, 16, "<U2", (2,)),
        (RAW, 16, "f8,f8", (1,)),
        (RAW, 16, "<M8[s]", (2,)),
        (RAW, 16, "float64", (2,)),
        (RAW, 16, "|f8,", (2,)),
        (RAW, 16, "<f1", (2,)),
        (RAW, 16, None, (2,)),
        (RAW, 16, "<f8", (3,)),
        (RAW, 16, "<f8", (-2,)),
        (RAW, 16, "<f8", (2.0,)),
        (RAW, 16, "<f8", (True, 2)),
        (RAW, 0, "<f8", (0, 2**62, 2**62)),
        (RAW, 16, "<f8", (1,) * 33 + (2,)),
        (RAW, 16, "<f8", (2**40,)),
        ("pickle", 16, "<f8", (2,)),
        (None, 16, "<f8", (2,)),
        (BLOSC2, 16, "<f8", (2,)),
        (BLOSC2, 0, "<f8", (0,)),
    ],
)
def test_descriptions_that_are_refused(name: Any, size: int, dtype: Any, shape: Any) -> None:
    """A dtype, shape, codec or length that does not fit is refused, and no such array is made."""
    with pytest.raises(CorruptPackageError):
        _read(name, bytes(size), dtype, shape)


@given(st.data())
def test_a_damaged_chunk_is_refused_or_harmless(data: st.DataObject) -> None:
    """With any bytes changed, a chunk is refused or fills an array of the size that was asked for: no crash."""
    chunk = bytearray(_chunk())
    for _ in range(data.draw(st.integers(1, 4))):
        chunk[data.draw(st.integers(0, len(chunk) - 1))] = data.draw(st.integers(0, 255))
    try:
        array = _read(BLOSC2, bytes(chunk), "<f8", (1000,))
    except CorruptPackageError:
        return
    assert array.nbytes == 8000


class _Counted:
    """Data that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read = 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, part: slice) -> bytes:
        found = self.data[part]
        self.read += len(found)
        return found


@pytest.mark.parametrize("blocks", [4, 3.5], ids=["whole", "short"])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_row_is_decoded_from_its_block(blocks: float, backwards: bool) -> None:
    """Wherever blocks lie; where they lie in order, nothing of the next one is read, nor of the one before the last."""
    array = np.maximum(np.random.default_rng(0).normal(size=(int(blocks * 128), 64)), 0)  # 128 rows a block
    how, chunk = encode(array)
    assert how == BLOSC2
    chunk = bytes(chunk)
    blocksize = struct.unpack_from("<i", chunk, 8)[0]
    count = -(-array.nbytes // blocksize)
    starts = [*struct.unpack_from(f"<{count}i", chunk, 32), len(chunk)]
    if backwards:
        bodies = [chunk[low:high] for low, high in pairwise(starts)]
        first = 32 + 4 * count
        places = [first + sum(map(len, bodies[number + 1 :])) for number in range(count)]
        chunk = chunk[:32] + struct.pack(f"<{count}i", *places) + b"".join(bodies[::-1])
    row = array[:1].nbytes
    for slot in range(0, len(array), 7):
        data = _Counted(chunk)
        assert codec.decode_part(how, data, array.nbytes, slot * row, (slot + 1) * row) == array[slot].tobytes()
        mine = slot * row // blocksize
        if not backwards and (array.nbytes % blocksize == 0 or mine < count - 2):
            assert data.read <= starts[mine + 1] - starts[mine] + 32 + 4 * 2
