"""One package of a page is what the whole page has in that row."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.page.rows import RNG, Elsewhere, assert_row, lay, page_of, pages
from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page
from whiteboard.storage.page import digests, format, one_row
from whiteboard.storage.page.digests import digest_of
from whiteboard.storage.page.format import Blob, Moved, decode_page, encode_page
from whiteboard.storage.page.grouping import alive_bytes


def _assert_page(page: Page, whole: Page) -> None:
    assert (whole.op, whole.n, whole.lineage, whole.cost_ns) == (page.op, page.n, page.lineage, page.cost_ns)
    assert whole.keys.tobytes() == page.keys.tobytes()
    assert whole.alive == whole.nbytes
    assert list(whole.arrays) == list(page.arrays)
    for name, array in page.arrays.items():
        found = whole.arrays[name]
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert not found.flags.writeable


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("op", ["f", 'ö "quoted\\', "n" * 300])
@pytest.mark.parametrize(("n", "width"), [(1, 5), (3, 300), (8, 4), (16, 4), (300, 100), (20, 4000)])
def test_a_row_is_that_of_the_page(
    n: int, width: int, op: str, smooth: bool, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row, raw or compressed, of any name of an op, and wherever the data lies."""
    lay(monkeypatch, together)
    page = page_of(n, width, op=op, smooth=smooth)
    blob = encode_page(page).joined()
    is_short = n < (8 if together else 16)
    for slot in range(n):
        one = one_row.read(blob, slot)
        assert one is not None
        assert_row(page, slot, one)
        one = one_row.read(Moved(blob.header, blob.digest, Elsewhere(bytes(blob.data))), slot)
        if is_short and "quoted" in op:
            assert one is None  # a header that is read as others are
            continue
        assert one is not None
        if is_short:
            _assert_page(page, one)
        else:
            assert_row(page, slot, one)
        if n >= 8:
            moved = Moved(blob.header, blob.digest, Elsewhere(bytes(blob.data)))
            one = one_row.read(moved, slot, alone=True)
            assert one is not None
            assert_row(page, slot, one)


@given(page=pages(), data=st.data())
def test_a_row_in_one_go_is_that_of_the_page(page: Page, data: st.DataObject) -> None:
    """In bits, and in all else that is said of it, before and after what is remembered of the page; or it is none."""
    blob = encode_page(page).joined()
    for _ in range(3):
        slot = data.draw(st.integers(0, page.n - 1))
        one = one_row.quick(blob.header, blob.digest, Elsewhere(bytes(blob.data)), slot)
        again = one_row.read(blob, slot)
        assert again is not None
        if one is not None:
            assert page.n > 1
            assert_row(page, slot, one)
            assert (one.alive, one.cost_ns) == (again.alive, again.cost_ns)
    for slot in (-1, page.n, 2**62):
        assert one_row.quick(blob.header, blob.digest, Elsewhere(bytes(blob.data)), slot) is None


@given(first=pages(), second=pages())
def test_pages_of_a_kind(first: Page, second: Page) -> None:
    """They have one op, and arrays of the same names, dtypes and shapes; what is read of one page is of one kind."""
    kinds, told = [], []
    for page in (first, second, replace(first, op="g")):
        blob = encode_page(page).joined()
        assert one_row.read(blob, 0) is not None
        one = one_row.quick(blob.header, blob.digest, blob.data, page.n // 2)
        kinds.append(None if one is None else one.kind)
        told.append((page.op, {name: (array.dtype, array.shape[1:]) for name, array in page.arrays.items()}))
    for (kind, says), (other, of) in combinations(zip(kinds, told, strict=True), 2):
        assert kind is None or kind is not other or says == of


def test_most_rows_are_read_in_one_go() -> None:
    """Those that lie beside one another, but where two blocks meet, with such as are all alike once one was read."""
    page = replace(page_of(300, 60), arrays={name: RNG.normal(size=(300, 60)) for name in ("y", "g0")})
    for arrays in (page.arrays, {**page.arrays, "g1": np.tile(RNG.normal(size=60), (300, 1))}):
        blob = encode_page(replace(page, arrays=arrays)).joined()
        assert one_row.read(blob, 0) is not None
        none = [slot for slot in range(300) if one_row.quick(blob.header, blob.digest, blob.data, slot) is None]
        assert len(none) == 300 * 976 // 2**14


@pytest.mark.parametrize("width", [64, 2000])
def test_compressed_columns_that_are_small(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows that are alike, or nearly, the first one asked for brings what others need, if that is not much."""
    page = page_of(200, width)
    nearly = np.zeros((200, width))
    nearly[150, 3] = 1
    alike = {"g2": np.tile(RNG.normal(size=width), (200, 1)), "g3": nearly, "g4": np.zeros((200, width))}
    page = replace(page, arrays={**page.arrays, **alike})
    blob = encode_page(page).joined()
    data = Elsewhere(bytes(blob.data))
    for slot in (7, 150, 8, 199, 0):
        one = one_row.read(Moved(blob.header, blob.digest, data), slot)
        assert one is not None
        assert_row(page, slot, one)
    kept = one_row.told(blob.header, blob.digest)
    assert kept is not None
    assert sum(map(len, (*kept.alike.values(), *kept.chunks.values()))) <= one_row._KEPT_BYTES
    assert len(kept.alike) + len(kept.chunks) == (3 if width == 64 else 0)


def test_no_row_of_the_page() -> None:
    """What is not there is left to whoever tells why."""
    blob = encode_page(page_of(9, 4)).joined()
    assert one_row.read(blob, 9) is one_row.read(blob, -1) is None


@pytest.mark.parametrize("name", ["blake2b", "sha256"])
def test_pages_of_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One digest over all of it, and no blocks."""
    monkeypatch.setattr(format, "blocks_of", lambda *_: {})
    monkeypatch.setattr(format, "digest_of", lambda header, *data: digests._digest(name, header, data))
    page = page_of(30, 10)
    blob = encode_page(page).joined()
    one = one_row.read(blob, 17)
    assert one is not None
    assert_row(page, 17, one)
    with pytest.raises(CorruptPackageError):
        one_row.read(Blob(blob.header, blob.digest, bytes(blob.data[:-1]) + b"\0"), 0)


def test_equal_headers_but_for_cost_and_blocks() -> None:
    """What is remembered of one page is right of the next."""
    for _ in range(3):
        page = page_of(50, 70)
        blob = encode_page(Page(**{**_fields(page), "cost_ns": int(RNG.integers(1, 10**12))})).joined()
        for slot in (0, 49):
            one = one_row.read(blob, slot)
            assert one is not None
            whole = decode_page(blob)
            assert_row(whole, slot, one)


def _fields(page: Page) -> dict[str, Any]:
    return {name: getattr(page, name) for name in page.__slots__}


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more pages than that, headers are looked at again."""
    monkeypatch.setattr(one_row, "_MOST_PAGES", 3)
    monkeypatch.setattr(one_row, "_remembered", {})
    for _ in range(10):
        page = page_of(20, 30)
        one = one_row.read(encode_page(page).joined(), 3)
        assert one is not None
        assert_row(page, 3, one)
        assert 1 <= len(one_row._remembered) <= 3


def test_members_that_are_there_twice() -> None:
    """The last one counts, as in any text of JSON."""
    page = page_of(20, 30)
    blob = encode_page(page).joined()
    for more, expected in ((b'"cost_ns":40', ("f", 2)), (b'"op":"g"', ("g", page.cost_ns // 20))):
        text = blob.header[:-1] + b"," + more + b"}"
        resealed = Blob(text, digest_of(text, blob.data), blob.data)
        one = one_row.read(resealed, 3)
        assert one is not None
        assert (one.op, one.cost_ns) == expected
        assert decode_page(resealed).op == one.op


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("sources", [False, True])
def test_a_page_of_one_package_is_read_as_a_whole(smooth: bool, sources: bool) -> None:
    """A package that has its page for itself is what the page decodes to, and keeps no more alive than it says."""
    page = page_of(1, 30_000, smooth=smooth)
    if sources:
        x = RNG.normal(size=(1, 20_000))
        arrays, tokens = {"y": page.arrays["y"], "g0": x + 1}, np.zeros((1, 1, 16), np.uint8)
        page = replace(page, arrays=arrays, tokens=tokens, sources=(x,))
    blob = encode_page(page).joined()
    laid = Moved(blob.header, blob.digest, Elsewhere(bytes(blob.data)))
    whole = decode_page(blob)
    for seen in (False, True):
        one = one_row.read(laid, 0, seen=seen)
        assert one is not None
        assert_row(whole, 0, one)
        assert one.alive in (None, one.nbytes)
        assert alive_bytes(one) <= alive_bytes(replace(one, alive=None)) <= 1.01 * alive_bytes(one)
    assert one_row.read(laid, 1) is None


@pytest.mark.parametrize("n", [2, 20])
def test_a_page_that_was_seen_is_read_as_a_whole(n: int) -> None:
    """Raw or compressed; but one whose small rows lie beside one another is left to who reads the page."""
    for smooth in (False, True):
        page = page_of(n, 3000, smooth=smooth)
        blob = encode_page(page).joined()
        whole = one_row.read(Moved(blob.header, blob.digest, Elsewhere(bytes(blob.data))), 1, seen=True)
        if n == 20 and smooth:  # keys and numbers
            assert whole is None
            continue
        assert whole is not None
        _assert_page(page, whole)
