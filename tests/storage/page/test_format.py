"""Pages and their rows: digest first, then the header, then the arrays; merging and cutting keep every package."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.samples import key_of, page_of, value_of
from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page
from whiteboard.storage.page import format
from whiteboard.storage.page.format import Blob, cuts, decode_page, digest_of, encode_page, merged, owned, take


def _resealed(blob: Blob, change: Callable[[Any], Any]) -> Blob:
    """A blob with another header and a digest that fits it: what a hostile writer would make."""
    header = json.dumps(change(json.loads(blob.header))).encode()
    return Blob(header, digest_of(header, blob.data), blob.data)


def _entry(index: int, field: int, value: Any) -> Callable[[Any], Any]:
    def change(header: Any) -> Any:
        header["arrays"][index][field] = value
        return header

    return change


def test_round_trip() -> None:
    """A page's row gives back all of it; provenance only when it is asked for."""
    page = page_of(range(30))
    for provenance in (False, True):
        back = decode_page(encode_page(page).joined(), provenance=provenance)
        assert (back.op, back.n, back.cost_ns) == (page.op, page.n, page.cost_ns)
        np.testing.assert_array_equal(back.keys, page.keys)
        assert {name: array.tobytes() for name, array in back.arrays.items()} == {
            name: array.tobytes() for name, array in page.arrays.items()
        }
        if provenance:
            np.testing.assert_array_equal(back.src_ids, page.src_ids)
            np.testing.assert_array_equal(back.versions, page.versions)
        else:
            assert back.src_ids is back.versions is None


@pytest.mark.parametrize(("written", "read"), [("blake2b", "sha256"), ("sha256", "blake2b")])
def test_digests_of_another_machine(written: str, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that was hashed where the other hash is the quicker one is read, and its damage is found."""
    monkeypatch.setattr(format, "_quicker", lambda: written)
    blob = encode_page(page_of(range(30))).joined()
    monkeypatch.setattr(format, "_quicker", lambda: read)
    assert decode_page(blob).n == 30
    assert encode_page(page_of(range(30))).joined().digest != blob.digest
    with pytest.raises(CorruptPackageError, match="digest"):
        decode_page(Blob(blob.header, blob.digest, blob.data[:-1] + b"!"))


@given(st.integers(0), st.integers(1, 255))
def test_any_flipped_byte_is_refused(at: int, flip: int) -> None:
    """A change of any byte of header, digest or data is refused by the digest, before anything is parsed."""
    blob = encode_page(page_of(range(40))).joined()
    parts = [bytearray(blob.header), bytearray(blob.digest), bytearray(blob.data)]
    at %= sum(map(len, parts))
    for part in parts:
        if at < len(part):
            part[at] ^= flip
            break
        at -= len(part)
    with pytest.raises(CorruptPackageError, match="digest"):
        decode_page(Blob(*map(bytes, parts)))


FORGERIES: dict[str, Callable[[Any], Any]] = {
    "a list": lambda header: [],
    "nothing": lambda header: {},
    "no arrays": lambda header: {**header, "arrays": None},
    "short entries": lambda header: {**header, "arrays": [[1, 2]]},
    "op": lambda header: {**header, "op": 3},
    "n is text": lambda header: {**header, "n": "40"},
    "n is wrong": lambda header: {**header, "n": 41},
    "n is a bool": lambda header: {**header, "n": True},
    "no cost": lambda header: {**header, "cost_ns": None},
    "no keys": lambda header: {**header, "arrays": header["arrays"][1:]},
    "keys twice": lambda header: {**header, "arrays": [*header["arrays"], header["arrays"][0]]},
    "a name": _entry(0, 0, ["keys"]),
    "an object dtype": _entry(0, 1, "|O"),
    "keys turned": _entry(0, 2, [16, 40]),
    "rows": _entry(1, 2, [320]),
    "no rows": _entry(1, 2, []),
    "no shape": _entry(1, 2, None),
    "a text shape": _entry(1, 2, "ab"),
    "a codec": _entry(1, 3, "cframe"),
    "offset < 0": _entry(1, 4, -1),
    "offset outside": _entry(1, 4, 10**9),
    "offset 1.0": _entry(1, 4, 1.0),
    "length < 0": _entry(1, 5, -8),
    "length outside": _entry(1, 5, 10**12),
    "length is text": _entry(1, 5, "9"),
}


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES.keys())
def test_forged_headers_are_refused(change: Callable[[Any], Any]) -> None:
    """A header that a hostile writer sealed with a fitting digest is refused for what it says."""
    with pytest.raises(CorruptPackageError):
        decode_page(_resealed(encode_page(page_of(range(40))).joined(), change))


@pytest.mark.parametrize(
    "header",
    [b"", b"\xff\xfe", b"{", b"[" * 100_000, b'{"arrays": 1e999}'],
    ids=["empty", "bytes", "open", "deep", "infinite"],
)
def test_headers_that_are_no_json(header: bytes) -> None:
    """Bytes that cannot be parsed are refused like any other header."""
    with pytest.raises(CorruptPackageError):
        decode_page(Blob(header, digest_of(header, b""), b""))


def test_rows_that_are_no_bytes() -> None:
    """SQLite gives back whatever type lies in a row; what is not bytes is refused."""
    blob = encode_page(page_of([1])).joined()
    rows: list[Any] = [(None, blob.digest, b""), ("text", blob.digest, b""), (blob.header, 5, blob.data)]
    for row in rows:
        with pytest.raises(CorruptPackageError):
            decode_page(Blob(*row))


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays that would together unpack to more than a page may hold are refused."""
    page = Page("op", page_of(range(500)).keys, {f"g{i}": np.zeros((500, 100)) for i in range(10)})
    blob = encode_page(page).joined()
    assert len(blob.data) < 40_000
    monkeypatch.setattr(format, "MAX_BYTES", 1_000_000)
    with pytest.raises(CorruptPackageError, match="more than"):
        decode_page(blob)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from([4, 8]), st.sampled_from(["a", "b"])), max_size=12),
    st.sampled_from([300, 2048, 512 * 7, 512 * 1024]),
)
def test_merging_keeps_every_package(parts: list[tuple[int, int, str]], nbytes: int) -> None:
    """Merged pages hold exactly the packages and the cost that went in, in pages of one signature and bounded size."""
    put, first = [], 0
    for n, size, op in parts:
        put.append(page_of(range(first, first + n), size, op))
        first += n
    got = list(merged(put, nbytes))
    assert sum(page.cost_ns for page in got) == sum(page.cost_ns for page in put)
    seen = {}
    for page in got:
        assert 1 <= page.n <= 1.5 * max(1, nbytes // 512)
        for row in range(page.n):
            seen[page.keys[row].tobytes()] = (page.op, page.arrays["y"][row].tobytes())
            assert page.src_ids is not None
            assert key_of(int(page.src_ids[row, 0])) == page.keys[row].tobytes()
    numbers = iter(range(first))
    wanted = {}
    for n, size, op in parts:
        for number in [next(numbers) for _ in range(n)]:
            wanted[key_of(number)] = (op, value_of(number, size).tobytes())
    assert seen == wanted


@given(st.integers(0, 5000), st.integers(1, 700))
def test_what_was_cut_stays_as_it_is(n: int, limit: int) -> None:
    """Rows are cut into parts that are neither cut nor joined again, or not at all where they are few."""
    edges = cuts(n, limit)
    parts = np.diff(edges).tolist()
    assert (edges == []) == (2 * n <= limit)
    assert not parts or (edges[0], sum(parts)) == (0, n)
    assert all(cuts(part, limit) == [0, part] for part in parts)


def test_owned_pages_keep_no_larger_buffer() -> None:
    """A page that is cut from a larger one is copied, one that is whole is not; both become read-only."""
    page = page_of(range(100))
    assert owned(page).arrays["y"] is page.arrays["y"]
    part = owned(take(page, slice(10, 20)))
    for array in (part.keys, *part.arrays.values()):
        assert array.base is None
        assert not array.flags.writeable
    assert part.cost_ns == 10 * 1000
    column = Page("op", page.keys, {"y": np.zeros((5, 100)).T})
    assert owned(column).arrays["y"].flags.c_contiguous
