"""The archive's form: frames come back as they were written, and any cut or changed byte is found."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.storage.moving import filled
from whiteboard.errors import ArchiveError
from whiteboard.storage.page.digests import digest_of
from whiteboard.storage.page.format import Blob
from whiteboard.storage.transfer import archive
from whiteboard.storage.transfer.archive import MAGIC, Reader, Writer
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.survey import survey


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """An archive of a whole store."""
    return export(filled(tmp_path / "a.db"), tmp_path / "a.wb").path


def _survey(path: Path) -> Any:
    with path.open("rb") as file:
        return survey(path, file)


def test_frames_come_back(tmp_path: Path) -> None:
    """What is written frame by frame is read frame by frame, and the digest over all is the same on both sides."""
    path = tmp_path / "a.wb"
    blob = Blob(b"{}", digest_of(b"{}", b"data"), b"data")
    with path.open("w+b") as file:
        writer = Writer(file, archive.whole_digest())
        writer.start()
        writer.fields(archive.HEAD, 7, {"x": 1})
        writer.blob(archive.PAGE, 2**40, blob)
        digest = archive.digest_up_to(file, writer.nbytes).digest()
    with path.open("rb") as file:
        reader = Reader(path, file)
        first, second = reader.frames()
        assert (first.kind, first.number, first.fields()) == (archive.HEAD, 7, {"x": 1})
        assert (second.kind, second.number, second.end) == (archive.PAGE, 2**40, path.stat().st_size)
        assert (second.header, second.digest, second.data) == (blob.header, blob.digest, blob.data)
        assert reader.digest.digest() == digest


def test_a_whole_archive_is_surveyed(made: Path) -> None:
    """A survey counts what was exported and knows each history, a fork's with its origin's commits."""
    found = _survey(made)
    assert found.pages == 6
    assert {system.name: sorted(system.history) for system in found.systems} == {
        "a": [0, 1, 2, 3, 4],
        "a forked": [0, 1, 2, 3],
    }


def test_every_truncation_is_found(made: Path, tmp_path: Path) -> None:
    """An archive that ends early, inside of a frame or between two, is refused."""
    whole = made.read_bytes()
    with made.open("rb") as file:
        ends = [frame.end for frame in Reader(made, file).frames()]
    cut = tmp_path / "cut.wb"
    for length in [0, 3, 15, 16, *ends[:-1], *random.Random(0).sample(range(len(whole)), 60)]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ArchiveError):
            _survey(cut)


def test_every_changed_byte_is_found(made: Path, tmp_path: Path) -> None:
    """An archive with one altered byte, anywhere, is refused."""
    whole = made.read_bytes()
    changed = tmp_path / "changed.wb"
    chance = random.Random(0)
    for at in [*range(120), *chance.sample(range(len(whole)), 300)]:
        data = bytearray(whole)
        data[at] ^= 1 << chance.randrange(8)
        changed.write_bytes(data)
        with pytest.raises(ArchiveError):
            _survey(changed)


class Expect(NamedTuple):
    """What is done to an archive, and a word of the error."""

    change: Any
    word: str
    id: str


def _version(data: bytes, number: int) -> bytes:
    return MAGIC + struct.pack("<I", number) + data[len(MAGIC) + 4 :]


def _swapped(data: bytes) -> bytes:
    return data[:16] + data[16:].replace(b"PAGE", b"NODE", 1)


BAD = [
    Expect(lambda data: b"PK\x03\x04" + data, "not a whiteboard archive", "another-kind-of-file"),
    Expect(lambda data: b"", "not a whiteboard archive", "empty"),
    Expect(lambda data: _version(data, 4), "format 4, newer", "newer"),
    Expect(lambda data: _version(data, 0), "format 0", "format-zero"),
    Expect(lambda data: data + b"x", "truncated", "one-byte-behind"),
    Expect(lambda data: data + data[16:], "something follows", "twice"),
    Expect(_swapped, "belongs to no commit", "a-page-as-a-node-page"),
    Expect(lambda data: data[: data.rindex(b"DONE")], "without its last frame", "no-end"),
]


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_what_is_no_archive_is_told_in_one_line(made: Path, case: Expect) -> None:
    """A file that is none, newer, or put together wrongly is refused with what is wrong and the file's name."""
    made.write_bytes(case.change(made.read_bytes()))
    with pytest.raises(ArchiveError, match=case.word) as caught:
        _survey(made)
    assert str(made) in str(caught.value)
    assert "\n" not in str(caught.value)
