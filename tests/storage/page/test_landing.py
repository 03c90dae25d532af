"""A page that is read as a whole: all that is handed out was looked at, wherever its blocks begin and end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page
from whiteboard.storage.page import digests, landing, one_row
from whiteboard.storage.page.digests import digest_of
from whiteboard.storage.page.format import decode_page, encode_page
from whiteboard.storage.page.grouping import alive_bytes
from whiteboard.storage.page.landing import Landed


class Read:
    """Data that says which of its bytes were asked for."""

    def __init__(self, data: bytes) -> None:
        self.data, self.asked = data, bytearray(len(data))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, part: slice) -> bytes:
        found = self.data[part]
        self.asked[part] = b"\1" * len(found)
        return found


def page_of(n: int, width: int, smooth: bool) -> Page:
    """A page with two arrays, tokens and sources."""
    rng = np.random.default_rng(n + width)
    x = rng.normal(size=(n, width))
    y = np.ones_like(x) if smooth else x + 1
    keys, tokens = (rng.integers(0, 256, (n, *shape), dtype=np.uint8) for shape in ((16,), (1, 16)))
    return Page("f", keys, {"y": y, "g0": x - 1}, 7, tokens=tokens, sources=(x,))


def landed(header: bytes, data: Read) -> Landed:
    """A page as it is read."""
    said = one_row.told(header, digest_of(header))
    assert said is not None
    return said.landed(data)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(600, 40_000), st.booleans(), st.sampled_from([10, 12, 14, 16]), st.data())
def test_whichever_bit_is_another_it_is_refused(
    n: int, width: int, smooth: bool, power: int, draw: st.DataObject
) -> None:
    """Of all that is read; what no array is in is not read, if its block has no other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(landing, "_PIECE_BYTES", 2**power)
        landing._steps.cache_clear()
        page = page_of(n, width, smooth)
        packed = encode_page(page).joined()
        data = Read(bytes(packed.data))
        whole = landed(packed.header, data).page()
        assert whole.keys.tobytes() == page.keys.tobytes()
        assert {name: array.tobytes() for name, array in whole.arrays.items()} == {
            name: array.tobytes() for name, array in page.arrays.items()
        }
        assert not any(array.flags.writeable for array in (whole.keys, *whole.arrays.values()))
        assert whole.alive == page.keys.nbytes + sum(array.nbytes for array in page.arrays.values())
        assert alive_bytes(whole) == whole.alive
        at = draw.draw(st.integers(0, len(data) - 1))
        other = Read(data.data[:at] + bytes([data.data[at] ^ 1 << at % 8]) + data.data[at + 1 :])
        if data.asked[at]:
            with pytest.raises(CorruptPackageError):
                landed(packed.header, other)
        else:
            assert landed(packed.header, other).page().arrays["y"].tobytes() == page.arrays["y"].tobytes()
        assert sum(data.asked) <= max(end for _, end in landed(packed.header, data).arrays.spans) + digests._MOST_BLOCK
        for length in (0, at, len(data) - 1):
            with pytest.raises(CorruptPackageError):
                landed(packed.header, Read(data.data[:length]))
    landing._steps.cache_clear()


def test_sources_are_not_read() -> None:
    """What a page keeps of them is for who looks for it."""
    packed = encode_page(page_of(4, 2**14, smooth=False)).joined()
    data = Read(bytes(packed.data))
    landed(packed.header, data)
    assert sum(data.asked) < 0.8 * len(data)


def buffer_of(array: Any) -> int:
    """Bytes of memory that an array keeps alive."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array.nbytes if isinstance(array, np.ndarray) else len(array)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("read", ["landed", "decoded"])
def test_who_keeps_a_small_result_keeps_no_large_gradient(smooth: bool, read: str) -> None:
    """Whether its page was read into its place, or decoded from its bytes."""
    x = np.ones((1, 400_000)) if smooth else np.random.default_rng(0).normal(size=(1, 400_000))
    page = Page("f", np.zeros((1, 16), np.uint8), {"y": x[:, :4] + 1, "g0": x, "g1": x + 1}, 7)
    packed = encode_page(page).joined()
    found = landed(packed.header, Read(bytes(packed.data))).page() if read == "landed" else decode_page(packed)
    for name, array in page.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
    assert buffer_of(found.arrays["y"]) < 2000  # a page of alike rows is no larger, compressed
