"""Pages and their rows: digest first, then the header, then the arrays; merging and cutting keep every package."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.samples import page_of
from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page
from whiteboard.storage.page import codec, digests, format
from whiteboard.storage.page.digests import digest_of
from whiteboard.storage.page.format import Blob, decode_page, encode_page, keeps_sources
from whiteboard.storage.page.page_checks import check_page, checked, rows


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


@pytest.mark.parametrize("name", ["blake2b", "sha256"])
def test_digests_of_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page with one digest over all of it, as they were before BLAKE3, is read, and its damage is found."""
    monkeypatch.setattr(format, "blocks_of", lambda *_: {})
    monkeypatch.setattr(format, "digest_of", lambda header, *data: digests._digest(name, header, data))
    blob = encode_page(page_of(range(30))).joined()
    assert not blob.header.startswith(b'{"blocks"')
    monkeypatch.undo()
    assert decode_page(blob).n == 30
    assert encode_page(page_of(range(30))).joined().digest != blob.digest
    with pytest.raises(CorruptPackageError, match="digest"):
        decode_page(Blob(blob.header, blob.digest, bytes(blob.data[:-1]) + b"!"))


@pytest.mark.parametrize(("n", "width", "block"), [(64, 100, 2**14), (1, 50_000, 2**18), (4, 50_000, 2**18)])
def test_a_block_is_no_less_than_a_row(n: int, width: int, block: int) -> None:
    """Blocks are of 16 KB, but of a column with larger rows the largest power of two that a row has."""
    y = np.random.default_rng(0).normal(size=(n, width))
    header = encode_page(Page("f", np.zeros((n, 16), "u1"), {"y": y, "g0": y[:, 0]}, 1)).header
    assert json.loads(header)["blocks"][0] == block


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
    monkeypatch.setattr(codec, "MAX_BYTES", 1_000_000)
    with pytest.raises(CorruptPackageError, match="more than"):
        decode_page(blob)


def kept(n: int = 40) -> Page:
    """A page that keeps its two sources, and a cotangent."""
    page = page_of(range(n))
    y = page.arrays["y"]
    tokens = np.zeros((n, 3, 16), np.uint8)
    return replace(page, tokens=tokens, sources=(y + 1, y - 1, y[:, :2].copy()))


def test_sources_come_when_they_are_asked_for() -> None:
    """Sources are there to the bit where provenance is, or they alone, are wanted; a hit decodes none."""
    page = kept()
    blob = encode_page(page).joined()
    assert decode_page(blob).sources is None
    assert decode_page(blob, provenance=True, sources=False).sources is None
    for back in (decode_page(blob, provenance=True), decode_page(blob, sources=True)):
        assert [each.tobytes() for each in back.sources or ()] == [each.tobytes() for each in page.sources or ()]
    assert decode_page(blob, grads=False).arrays.keys() == {"y"}
    assert decode_page(encode_page(page_of([1])).joined(), provenance=True).sources is None
    assert (keeps_sources(blob.header), keeps_sources(encode_page(page_of([1])).header)) == (True, False)
    checked(blob)
    check_page(page)
    part = rows(blob, 3, 9)
    assert [each.tobytes() for each in part.sources or ()] == [each[3:9].tobytes() for each in page.sources or ()]


def _sources(change: Callable[[list[Any]], Any]) -> Callable[[Page], Page]:
    return lambda page: replace(page, sources=tuple(change(list(page.sources or ()))))


ODD_SOURCES: dict[str, Callable[[Page], Page]] = {
    "another shape": _sources(lambda x: [x[0][:, :3].copy(), *x[1:]]),
    "another dtype": _sources(lambda x: [x[0].astype(np.float32), *x[1:]]),
    "an integer": _sources(lambda x: [*x[:2], x[2].astype(np.int64)]),
    "complex": _sources(lambda x: [*x[:2], x[2].astype(np.complex128)]),
    "fewer than tokens": _sources(lambda x: x[:2]),
    "more than tokens": _sources(lambda x: [*x, x[2]]),
    "fewer rows": _sources(lambda x: [*x[:2], x[2][:-1].copy()]),
}


@pytest.mark.parametrize("change", ODD_SOURCES.values(), ids=ODD_SOURCES.keys())
def test_sources_that_no_op_takes_are_refused_at_the_gate(change: Callable[[Page], Page]) -> None:
    """From elsewhere no page comes in whose sources have not the dtype and shape of their gradients."""
    page = change(kept())
    with pytest.raises(CorruptPackageError):
        check_page(page)
    with pytest.raises(CorruptPackageError):
        checked(encode_page(page).joined())


@pytest.mark.parametrize("name", ["x1", "x2", "x01", "x-1", "x", "xx", "x1000000", "y", "a:x0"])
def test_a_source_under_another_name(name: str) -> None:
    """A page whose sources do not follow one another is damaged for who wants them, and for a hit it is none."""
    blob = _resealed(encode_page(kept()).joined(), _entry(7, 0, name))
    assert json.loads(encode_page(kept()).header)["arrays"][7][0] == "x0"
    with pytest.raises(CorruptPackageError):
        checked(blob)
    with pytest.raises(CorruptPackageError):  # twice, missing, or a column that there is not
        check_page(decode_page(blob, provenance=True))


@pytest.mark.parametrize("nbytes", [0, 1, 16 * 2**10, 16 * 2**10 + 1, 5 * 2**20])
def test_what_a_header_says_of_its_data(nbytes: int) -> None:
    """A header bounds its data to less than a block more than it has; one without blocks does not."""
    blocks = digests.blocks_of([bytes(nbytes)])
    header = json.dumps({**blocks, "n": 1}, separators=(",", ":")).encode()
    assert nbytes <= digests.most_bytes(header) < nbytes + blocks["blocks"][0]
    assert digests.most_bytes(b'{"n":1}') == digests.most_bytes("text") == sys.maxsize
