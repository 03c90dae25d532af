"""What a page may not hold is refused in one of its rows as it is in the whole page."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.page.rows import Elsewhere, assert_row, lay, page_of, pages
from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page
from whiteboard.storage.page import one_row
from whiteboard.storage.page.digests import digest_of, is_intact
from whiteboard.storage.page.format import Blob, Moved, encode_page


@given(page=pages(), data=st.data())
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


def test_every_byte_of_the_header_counts() -> None:
    """A header with any other byte is refused, be it one that is remembered but for that byte."""
    blob = encode_page(page_of(20, 30)).joined()
    assert one_row.read(blob, 0) is not None
    for at in range(len(blob.header)):
        header = blob.header[:at] + bytes([blob.header[at] ^ 1]) + blob.header[at + 1 :]
        with pytest.raises(CorruptPackageError):
            one_row.read(Blob(header, blob.digest, blob.data), 0)


@pytest.mark.parametrize("together", [False, True])
def test_every_byte_of_the_row_counts(together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row with another byte is refused, wherever it is."""
    lay(monkeypatch, together)
    page = page_of(300, 40)
    blob = encode_page(page).joined()
    for row in (page.keys[123], page.arrays["y"][123], page.arrays["g0"][123]):
        first = bytes(blob.data).index(row.tobytes())
        for at in range(first, first + row.nbytes):
            data = bytes(blob.data[:at]) + bytes([blob.data[at] ^ 16]) + blob.data[at + 1 :]
            with pytest.raises(CorruptPackageError):
                one_row.read(Blob(blob.header, blob.digest, data), 123)


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
    blob = encode_page(page_of(20, 30)).joined()
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
    blob = encode_page(page_of(20, 30)).joined()
    text = json.dumps(json.loads(blob.header) | {"blocks": blocks}, separators=(",", ":")).encode()
    with pytest.raises(CorruptPackageError):
        one_row.read(Blob(text, digest_of(text, blob.data), blob.data), 0)


@pytest.mark.parametrize("letter", ["*", "=", "A", " "])
def test_every_letter_of_a_digest_counts(letter: str) -> None:
    """Whichever letter of the digests is another, the page is damaged, and so is each row whose block it is of."""
    page = replace(page_of(900, 60), tokens=None)
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
            assert_row(page, other, one)


def test_a_digest_that_is_remembered_of_another_header() -> None:
    """A page under the digest of one that was read is refused, whatever its header."""
    first, second = (encode_page(page_of(20, 30)).joined() for _ in range(2))
    for _ in range(2):
        assert one_row.read(first, 0) is not None
        with pytest.raises(CorruptPackageError):
            one_row.read(Blob(second.header, first.digest, second.data), 0)


def test_every_byte_of_a_package_alone_counts() -> None:
    """Whichever byte of what is read as a whole is another, or missing, it is refused."""
    blob = encode_page(page_of(1, 30_000)).joined()
    data = bytes(blob.data)
    for at in (0, 17, len(data) // 2, 30_000 * 8):
        bad = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(CorruptPackageError):
            one_row.read(Moved(blob.header, blob.digest, Elsewhere(bad)), 0)
    for short in (b"", data[:-1], data[: len(data) // 2]):
        with pytest.raises(CorruptPackageError):
            one_row.read(Moved(blob.header, blob.digest, Elsewhere(short)), 0)
