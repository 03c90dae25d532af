"""One package of a page is what the whole page has in that row; what a page may not hold is refused in either way."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page
from whiteboard.storage.page import digests, format, one_row
from whiteboard.storage.page.digests import digest_of, is_intact
from whiteboard.storage.page.format import Blob, Moved, decode_page, encode_page
from whiteboard.storage.page.grouping import alive_bytes

RNG = np.random.default_rng(0)


class Elsewhere:
    """Data that is read a part at a time."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, part: slice) -> bytes:
        return self.data[part]


def _page(n: int, *shape: int, op: str = "f", smooth: bool = False) -> Page:
    y = np.arange(n * int(np.prod(shape)), dtype=np.float64) if smooth else RNG.normal(size=n * int(np.prod(shape)))
    keys = RNG.integers(0, 256, (n, 16), dtype=np.uint8)
    arrays: dict[str, np.ndarray] = {
        "y": y.reshape(n, *shape),
        "g0": RNG.normal(size=n).astype(np.float32),
        "g1": np.empty((n, 0)),
    }
    tokens = RNG.integers(0, 256, (n, 2, 16), dtype=np.uint8)
    return Page(op, keys, arrays, 1000 * n + 7, lineage='{"version":1}', tokens=tokens)


def _same(page: Page, slot: int, one: Page) -> None:
    assert (one.op, one.n, one.lineage, one.cost_ns) == (page.op, 1, page.lineage, page.cost_ns // page.n)
    assert one.keys.tobytes() == page.keys[slot].tobytes()
    if page.n > 1:
        assert one.alive == one.nbytes == alive_bytes(replace(one, alive=None))
    assert list(one.arrays) == list(page.arrays)
    for name, array in page.arrays.items():
        found = one.arrays[name]
        assert (found.dtype, found.shape) == (array.dtype, (1, *array.shape[1:]))
        assert found.tobytes() == array[slot : slot + 1].tobytes()
        assert not found.flags.writeable


def _same_page(page: Page, whole: Page) -> None:
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
    _lay(monkeypatch, together)
    page = _page(n, width, op=op, smooth=smooth)
    blob = encode_page(page).joined()
    is_short = n < (8 if together else 16)
    for slot in range(n):
        one = one_row.read(blob, slot)
        assert one is not None
        _same(page, slot, one)
        one = one_row.read(Moved(blob.header, blob.digest, Elsewhere(bytes(blob.data))), slot)
        if is_short and "quoted" in op:
            assert one is None  # a header that is read as others are
            continue
        assert one is not None
        if is_short:
            _same_page(page, one)
        else:
            _same(page, slot, one)
        if n >= 8:
            moved = Moved(blob.header, blob.digest, Elsewhere(bytes(blob.data)))
            one = one_row.read(moved, slot, alone=True)
            assert one is not None
            _same(page, slot, one)


@st.composite
def _pages(draw: st.DrawFn) -> Page:
    """Pages of arrays of several dtypes and shapes; of some the rows are alike, or smooth."""
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    arrays = {}
    for name in ["y", "g0", "g1"][: draw(st.integers(1, 3))]:
        dtype = draw(st.sampled_from(["<f8", "<f8", "<f4", ">f8", "<c16", "|b1", "|i1"]))
        shape = draw(st.sampled_from([(n,), (n, 3), (n, 32), (n, 2, 40), (n, 0), (n, 400)]))
        kind = draw(st.sampled_from(["random", "random", "alike", "smooth"]))
        values = rng.normal(size=shape) * 100
        values = np.resize(values[:1], shape) if kind == "alike" else np.round(values, 0 if kind == "smooth" else 9)
        arrays[name] = values.astype(dtype)
    keys = rng.integers(0, 256, (n, 16), dtype=np.uint8)
    tokens = rng.integers(0, 256, (n, 1, 16), dtype=np.uint8) if draw(st.booleans()) else None
    return Page("f", keys, arrays, draw(st.integers(0, 10**12)), lineage='{"version":1}', tokens=tokens)


@given(page=_pages(), data=st.data())
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
            _same(page, slot, one)
            assert (one.alive, one.cost_ns) == (again.alive, again.cost_ns)
    for slot in (-1, page.n, 2**62):
        assert one_row.quick(blob.header, blob.digest, Elsewhere(bytes(blob.data)), slot) is None


@given(page=_pages(), data=st.data())
def test_a_row_in_one_go_is_refused_where_the_page_is(page: Page, data: st.DataObject) -> None:
    """Whatever bytes of header, digest or data are others, it is no row, or the one that is read of such a page."""
    blob = encode_page(page).joined()
    slot = data.draw(st.integers(0, page.n - 1))
    if data.draw(st.booleans()):
        one_row.quick(blob.header, blob.digest, blob.data, slot)  # from here on the page is remembered
    parts = [blob.header, blob.digest, bytes(blob.data)]
    which = data.draw(st.sampled_from([0, 1, 2, 2]))
    at = data.draw(st.integers(0, len(parts[which]) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "more"]))
    was = parts[which]
    parts[which] = {"flip": was[:at] + bytes([was[at] ^ 1]) + was[at + 1 :], "cut": was[:at], "more": was + was}[how]
    header, digest, bad = parts

    def told(read: Callable[[], Page | None]) -> object:
        try:
            one = read()
        except CorruptPackageError:
            return "refused"
        return one and (one.keys.tobytes(), {name: array.tobytes() for name, array in one.arrays.items()})

    quick = told(lambda: one_row.quick(header, digest, Elsewhere(bad), slot))
    assert quick is None or quick == told(lambda: one_row.read(Moved(header, digest, Elsewhere(bad)), slot))
    if which < 2:
        assert quick in ("refused", None)


@given(first=_pages(), second=_pages())
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
    page = replace(_page(300, 60), arrays={name: RNG.normal(size=(300, 60)) for name in ("y", "g0")})
    for arrays in (page.arrays, {**page.arrays, "g1": np.tile(RNG.normal(size=60), (300, 1))}):
        blob = encode_page(replace(page, arrays=arrays)).joined()
        assert one_row.read(blob, 0) is not None
        none = [slot for slot in range(300) if one_row.quick(blob.header, blob.digest, blob.data, slot) is None]
        assert len(none) == 300 * 976 // 2**14


@pytest.mark.parametrize("width", [64, 2000])
def test_compressed_columns_that_are_small(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows that are alike, or nearly, the first one asked for brings what others need, if that is not much."""
    page = _page(200, width)
    nearly = np.zeros((200, width))
    nearly[150, 3] = 1
    alike = {"g2": np.tile(RNG.normal(size=width), (200, 1)), "g3": nearly, "g4": np.zeros((200, width))}
    page = replace(page, arrays={**page.arrays, **alike})
    blob = encode_page(page).joined()
    data = Elsewhere(bytes(blob.data))
    for slot in (7, 150, 8, 199, 0):
        one = one_row.read(Moved(blob.header, blob.digest, data), slot)
        assert one is not None
        _same(page, slot, one)
    kept = one_row.told(blob.header, blob.digest)
    assert kept is not None
    assert sum(map(len, (*kept.alike.values(), *kept.chunks.values()))) <= one_row._KEPT_BYTES
    assert len(kept.alike) + len(kept.chunks) == (3 if width == 64 else 0)


def test_no_row_of_the_page() -> None:
    """What is not there is left to whoever tells why."""
    blob = encode_page(_page(9, 4)).joined()
    assert one_row.read(blob, 9) is one_row.read(blob, -1) is None


@pytest.mark.parametrize("name", ["blake2b", "sha256"])
def test_pages_of_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One digest over all of it, and no blocks."""
    monkeypatch.setattr(format, "blocks_of", lambda *_: {})
    monkeypatch.setattr(format, "digest_of", lambda header, *data: digests._digest(name, header, data))
    page = _page(30, 10)
    blob = encode_page(page).joined()
    one = one_row.read(blob, 17)
    assert one is not None
    _same(page, 17, one)
    with pytest.raises(CorruptPackageError):
        one_row.read(Blob(blob.header, blob.digest, bytes(blob.data[:-1]) + b"\0"), 0)


def test_equal_headers_but_for_cost_and_blocks() -> None:
    """What is remembered of one page is right of the next."""
    for _ in range(3):
        page = _page(50, 70)
        blob = encode_page(Page(**{**_fields(page), "cost_ns": int(RNG.integers(1, 10**12))})).joined()
        for slot in (0, 49):
            one = one_row.read(blob, slot)
            assert one is not None
            whole = decode_page(blob)
            _same(whole, slot, one)


def _fields(page: Page) -> dict[str, Any]:
    return {name: getattr(page, name) for name in page.__slots__}


def test_every_byte_of_the_header_counts() -> None:
    """A header with any other byte is refused, be it one that is remembered but for that byte."""
    blob = encode_page(_page(20, 30)).joined()
    assert one_row.read(blob, 0) is not None
    for at in range(len(blob.header)):
        header = blob.header[:at] + bytes([blob.header[at] ^ 1]) + blob.header[at + 1 :]
        with pytest.raises(CorruptPackageError):
            one_row.read(Blob(header, blob.digest, blob.data), 0)


@pytest.mark.parametrize("together", [False, True])
def test_every_byte_of_the_row_counts(together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row with another byte is refused, wherever it is."""
    _lay(monkeypatch, together)
    page = _page(300, 40)
    blob = encode_page(page).joined()
    for row in (page.keys[123], page.arrays["y"][123], page.arrays["g0"][123]):
        first = bytes(blob.data).index(row.tobytes())
        for at in range(first, first + row.nbytes):
            data = bytes(blob.data[:at]) + bytes([blob.data[at] ^ 16]) + blob.data[at + 1 :]
            with pytest.raises(CorruptPackageError):
                one_row.read(Blob(blob.header, blob.digest, data), 123)


def _lay(monkeypatch: pytest.MonkeyPatch, together: bool) -> None:
    """Let rows of several arrays lie beside one another, or column after column, as pages of before."""
    if not together:
        monkeypatch.setattr(format, "_ROWS", 10**9)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("n",), 21),
        (("n",), "20"),
        (("n",), 0),
        (("op",), None),
        (("cost_ns",), 1.5),
        (("cost_ns",), None),
        (("arrays",), []),
        (("arrays",), [None]),
        (("arrays", 0, 0), "a:y"),
        (("arrays", 0, 1), "<f8"),
        (("arrays", 1, 0), "a:z"),
        (("arrays", 1, 1), "O"),
        (("arrays", 1, 2), [20, -30]),
        (("arrays", 1, 2), [20, 31]),
        (("arrays", 1, 3), "pickle"),
        (("arrays", 1, 4), -1),
        (("arrays", 1, 4), 10**6),
        (("arrays", 1, 4), True),
        (("arrays", 1, 5), 10**6),
        (("arrays", 1, 5), 10**30),
    ],
    ids=repr,
)
def test_hostile_headers(where: tuple[Any, ...], value: object) -> None:
    """A header whose digest fits and that says what no page does, be it spaced as those that stores write or not."""
    blob = encode_page(_page(20, 30)).joined()
    header: Any = json.loads(blob.header)
    member = header
    for name in where[:-1]:
        member = member[name]
    member[where[-1]] = value
    for separators in ((",", ":"), (", ", ": ")):
        text = json.dumps(header, separators=separators).encode()
        with pytest.raises(CorruptPackageError):
            one_row.read(Blob(text, digest_of(text, blob.data), blob.data), 0)


@pytest.mark.parametrize("blocks", [[0, ""], [16384, ""], [8192, "AAAAAAAAAAAAAAAAAAAAAA=="]], ids=repr)
def test_hostile_blocks(blocks: list[Any]) -> None:
    """Blocks that are none, or not those of the data."""
    blob = encode_page(_page(20, 30)).joined()
    text = json.dumps(json.loads(blob.header) | {"blocks": blocks}, separators=(",", ":")).encode()
    with pytest.raises(CorruptPackageError):
        one_row.read(Blob(text, digest_of(text, blob.data), blob.data), 0)


@pytest.mark.parametrize("letter", ["*", "=", "A", " "])
def test_every_letter_of_a_digest_counts(letter: str) -> None:
    """Whichever letter of the digests is another, the page is damaged, and so is each row whose block it is of."""
    page = replace(_page(900, 60), tokens=None)
    blob = encode_page(page).joined()
    size, letters = json.loads(blob.header)["blocks"]
    count = -(-len(blob.data) // size)
    row_bytes = len(blob.data) // page.n
    for at, was in enumerate(letters):
        if letter == was or was == "=":  # after the last of them
            continue
        changed = letters[:at] + letter + letters[at + 1 :]
        text = blob.header.replace(letters.encode(), changed.encode())
        resealed = Blob(text, digest_of(text), blob.data)
        assert not is_intact(resealed)
        mine = min(6 * at // 128, count - 1)
        slot = -(-mine * size // row_bytes)  # the first that begins in this block
        if 6 * at // 128 == (6 * at + 5) // 128:  # else it is of two digests
            with pytest.raises(CorruptPackageError):
                one_row.read(resealed, slot)
        other = 0 if mine > 2 else page.n - 1
        with suppress(CorruptPackageError):
            one = one_row.read(resealed, other)
            assert one is not None
            _same(page, other, one)


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more pages than that, headers are looked at again."""
    monkeypatch.setattr(one_row, "_MOST_PAGES", 3)
    monkeypatch.setattr(one_row, "_remembered", {})
    for _ in range(10):
        page = _page(20, 30)
        one = one_row.read(encode_page(page).joined(), 3)
        assert one is not None
        _same(page, 3, one)
        assert 1 <= len(one_row._remembered) <= 3


def test_a_digest_that_is_remembered_of_another_header() -> None:
    """A page under the digest of one that was read is refused, whatever its header."""
    first, second = (encode_page(_page(20, 30)).joined() for _ in range(2))
    for _ in range(2):
        assert one_row.read(first, 0) is not None
        with pytest.raises(CorruptPackageError):
            one_row.read(Blob(second.header, first.digest, second.data), 0)


def test_members_that_are_there_twice() -> None:
    """The last one counts, as in any text of JSON."""
    page = _page(20, 30)
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
    page = _page(1, 30_000, smooth=smooth)
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
        _same(whole, 0, one)
        assert one.alive in (None, one.nbytes)
        assert alive_bytes(one) <= alive_bytes(replace(one, alive=None)) <= 1.01 * alive_bytes(one)
    assert one_row.read(laid, 1) is None


def test_every_byte_of_a_package_alone_counts() -> None:
    """Whichever byte of what is read as a whole is another, or missing, it is refused."""
    blob = encode_page(_page(1, 30_000)).joined()
    data = bytes(blob.data)
    for at in (0, 17, len(data) // 2, 30_000 * 8):
        bad = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(CorruptPackageError):
            one_row.read(Moved(blob.header, blob.digest, Elsewhere(bad)), 0)
    for short in (b"", data[:-1], data[: len(data) // 2]):
        with pytest.raises(CorruptPackageError):
            one_row.read(Moved(blob.header, blob.digest, Elsewhere(short)), 0)


@pytest.mark.parametrize("n", [2, 20])
def test_a_page_that_was_seen_is_read_as_a_whole(n: int) -> None:
    """Raw or compressed; but one whose small rows lie beside one another is left to who reads the page."""
    for smooth in (False, True):
        page = _page(n, 3000, smooth=smooth)
        blob = encode_page(page).joined()
        whole = one_row.read(Moved(blob.header, blob.digest, Elsewhere(bytes(blob.data))), 1, seen=True)
        if n == 20 and smooth:  # keys and numbers
            assert whole is None
            continue
        assert whole is not None
        _same_page(page, whole)
