"""Arrays whose rows lie beside one another: each is what it was, as a whole and in part; odd ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import whiteboard as wb
from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page
from whiteboard.storage.page import one_row
from whiteboard.storage.page.codec import BLOSC2, RAW, ROWS, Encoding
from whiteboard.storage.page.digests import digest_of
from whiteboard.storage.page.format import Blob, decode_page, encode_page
from whiteboard.storage.page.grouping import owned, take
from whiteboard.storage.page.page_checks import checked, entries, rows

RNG = np.random.default_rng(0)
N = 40


def _page(n: int = N, width: int = 20, **more: np.ndarray) -> Page:
    keys = RNG.integers(0, 256, (n, 16), dtype=np.uint8)
    return Page("f", keys, {"y": RNG.normal(size=(n, width)), "g0": RNG.normal(size=(n, 2, 3)), **more}, 1000 * n)


def _codecs(blob: Blob) -> dict[str, str]:
    return {name: codec for name, _, _, codec, *_ in json.loads(blob.header)["arrays"]}


def _equal(found: Page, page: Page) -> None:
    assert found.keys.tobytes() == page.keys.tobytes()
    for name, array in page.arrays.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        assert found.arrays[name].tobytes() == array.tobytes()
        assert not found.arrays[name].flags.writeable


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (_page(), {ROWS}),
        (_page(n=7), {RAW}),
        (_page(width=600), {RAW}),
        (_page(odd=RNG.normal(size=N).astype(np.float32)), {ROWS}),
        (_page(none=np.empty((N, 0))), {ROWS, RAW}),
        (_page(smooth=np.arange(N * 100.0).reshape(N, 100)), {ROWS, BLOSC2}),
    ],
    ids=["small", "few", "wide", "unaligned", "nothing", "compressed"],
)
def test_as_a_whole(page: Page, expected: set[str]) -> None:
    """Small rows lie together where they are many, and what compresses or has no bytes lies apart."""
    blob = encode_page(page).joined()
    assert set(_codecs(blob).values()) == expected
    _equal(decode_page(blob), page)
    _equal(owned(decode_page(blob)), page)
    some = slice(3, 6)
    _equal(take(decode_page(blob), some), take(page, some))
    assert decode_page(encode_page(decode_page(blob)).joined()).keys.tobytes() == page.keys.tobytes()
    assert encode_page(decode_page(blob)) == encode_page(page)


def test_what_is_owned_keeps_no_more_alive_than_the_page() -> None:
    """Rows stay where they were read where that is hardly more than the page holds, and are copied where it is more."""
    dense = encode_page(_page()).joined()
    assert owned(decode_page(dense)).alive == len(dense.data)
    tokens = RNG.integers(0, 256, (N, 30, 16), dtype=np.uint8)
    page = _page()
    sparse = encode_page(Page("f", page.keys, page.arrays, tokens=tokens)).joined()
    mine = owned(decode_page(sparse))
    assert mine.alive == mine.nbytes
    assert all(array.flags.c_contiguous for array in mine.arrays.values())


@given(st.integers(0, N * 160), st.integers(0, N * 160))
def test_in_part(a: int, b: int) -> None:
    """Any bytes of a column, and any rows of a page."""
    page = _page()
    blob = encode_page(page).joined()
    start, end = min(a, b) // 8 * 8, max(a, b) // 8 * 8
    column = entries(blob)[1]["a:y"]
    assert column.part(start, end).tobytes() == page.arrays["y"].tobytes()[start:end]
    first, last = start // 160, min(N, end // 160 + 1)
    assert rows(blob, first, last).arrays["g0"].tobytes() == page.arrays["g0"][first:last].tobytes()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (2, [N, 21]),
        (2, [N - 1, 20]),
        (2, [N]),
        (2, []),
        (4, -1),
        (4, 10**9),
        (5, 0),
        (5, -8),
        (5, 159 * N),
        (5, 160 * N - 1),
        (5, 10**9),
    ],
)
def test_odd_rows_are_refused(field: int, value: Any) -> None:
    """Rows that do not lie as far apart as all rows do, or not within the data, or that have no bytes."""
    blob = encode_page(_page()).joined()
    header = json.loads(blob.header)
    header["arrays"][1][field] = value
    text = json.dumps(header, separators=(",", ":")).encode()
    odd = Blob(text, digest_of(text, blob.data), blob.data)
    for read in (decode_page, checked, lambda page: one_row.read(page, 0)):
        with pytest.raises(CorruptPackageError):
            read(odd)


def test_one_row_is_no_row_beside_others() -> None:
    """No store writes a page of one package so."""
    header = {"op": "f", "n": 1, "cost_ns": 1}
    arrays = [["keys", "|u1", [1, 16], ROWS, 0, 16], ["a:y", "<f8", [1], ROWS, 16, 8]]
    text, data = json.dumps(header | {"arrays": arrays}).encode(), bytes(24)
    for read in (decode_page, checked, lambda page: one_row.read(page, 0)):
        with pytest.raises(CorruptPackageError):
            read(Blob(text, digest_of(text, data), data))


def test_results_are_in_one_piece(tmp_path: Path) -> None:
    """What a user is given is C-contiguous, be it all of a page, some of it, or one row, from disk or from memory."""
    x = RNG.normal(size=(100, 10))
    with wb.open(tmp_path / "a.db") as board:
        expected = board.call_many("square", x)
    for memory_bytes in (0, 2**26):
        with wb.open(tmp_path / "a.db", memory_bytes=memory_bytes) as board:
            for part in (slice(None), slice(10, 20), slice(None)):
                found = board.call_many("square", x[part])
                for array, other in ((found.y, expected.y), (found.grads[0], expected.grads[0])):
                    assert array.flags.c_contiguous
                    assert array.tobytes() == other[part].tobytes()
            one = board.call("square", x[3])
            assert one.y.flags.c_contiguous
            assert one.y.tobytes() == expected.y[3].tobytes()


def test_raw_encoding_lies_together_too() -> None:
    """Whatever the reason is that arrays stay raw."""
    page = _page(smooth=np.arange(N * 100.0).reshape(N, 100))
    blob = encode_page(page, Encoding("raw", 0)).joined()
    assert set(_codecs(blob).values()) == {ROWS}
    _equal(decode_page(blob), page)
