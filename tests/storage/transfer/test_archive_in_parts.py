"""What is large in an archive is read in parts, and what is only said to be large takes no memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import whiteboard as wb
from tests.storage.samples import run_python
from tests.storage.transfer.forging import commit, made, nodes, page, raw, system
from whiteboard.storage.page import codec, page_checks
from whiteboard.storage.page.codec import Encoding
from whiteboard.storage.page.format import Moved, moved, pack
from whiteboard.storage.transfer import archive, compare
from whiteboard.storage.transfer.archive import PAGE
from whiteboard.storage.transfer.import_archive import import_archive


def _hole(path: Path, header: int, data: int) -> None:
    """An archive whose last frame claims more than was written of it, and a file of that size."""
    made(path)
    with path.open("ab") as file:
        file.write(archive._FRAME.pack(PAGE, 1, header, data, bytes(16)))
        file.truncate(file.tell() + header + data)


class _Zeros:
    """Data of zeros that is nowhere."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> bytes:
        start, end, _ = part.indices(self.length)
        return bytes(end - start)


def _hollow(path: Path) -> None:
    """A page of one package of 150 MB, which is not compressed."""
    size = 150 * 2**20
    keys, y = ["keys", "|u1", [1, 16], "raw", 0, 16], ["a:y", "<f8", [1, size // 8 - 2], "raw", 16, size - 16]
    header = json.dumps({"op": "x", "n": 1, "cost_ns": 1, "arrays": [keys, y]}).encode()
    made(path, lambda writer: writer.blob(PAGE, 1, moved(Moved(header, b"", _Zeros(size)), header)))


def _bomb(path: Path) -> None:
    """Pages of a few kilobytes that decode to 480 MB, of one package and of many, and a node page of 160 MB."""
    one: dict[str, Any] = {"a__y": np.ones((1, 60 * 2**20 // 8)), "a__g0": np.zeros((1, 420 * 2**20 // 8))}
    many: dict[str, Any] = {name: array.reshape(3, -1) for name, array in one.items()}
    made(
        path,
        page(**one),
        page(n=3, keys=np.arange(48, dtype=np.uint8).reshape(3, 16) + 100, **many),
        page(n=3, **many),
        system(),
        commit(nodes(values=np.zeros((3, 160 * 2**20 // 24)))),
    )


def _wide(path: Path) -> None:
    """Headers of many small objects."""
    header = b'{"arrays":[' + b"[]," * (5 * 2**20) + b"0]}"
    made(path, raw(PAGE, header))


HOSTILE: dict[str, Callable[[Path], None]] = {
    "a header of 4 GB": lambda path: _hole(path, 2**32 - 1, 0),
    "data of 300 MB": lambda path: _hole(path, 0, 300 * 10**6),
    "raw": _hollow,
    "bombs": _bomb,
    "wide": _wide,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_an_archive_declares_takes_no_memory(kind: str, tmp_path: Path) -> None:
    """Import takes tens of megabytes, once and again, whatever lengths, shapes and values an archive claims to have."""
    HOSTILE[kind](tmp_path / "a.wb")
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np, blosc2\n"
        "from whiteboard.errors import ArchiveError\n"
        "from whiteboard.storage.transfer.import_archive import import_archive\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for _ in range(2):\n"
        "    try: import_archive(sys.argv[1] + '/s.db', Path(sys.argv[1] + '/a.wb'))\n"
        "    except ArchiveError as error: print(error)\n"
        "print(peak() - before)"
    )
    done = run_python(code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 80_000, done.stdout


def _codecs() -> Iterator[tuple[str, NDArray[Any]]]:
    chance = np.random.default_rng(0)
    for dtype in ("<f8", "<f4", "|u1", "<c16", "<i8"):
        for n in (1000, 33_333, 600_007):
            yield f"{dtype} {n}", np.repeat(chance.integers(0, 50, n // 10 + 1), 10)[:n].astype(dtype)
    yield "zeros", np.zeros(3_000_000)


@pytest.mark.parametrize(("name", "array"), list(_codecs()), ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("encoding", [Encoding("zstd", 1), Encoding("lz4", 9), Encoding("blosclz", 5)], ids=str)
def test_a_part_of_an_array_is_that_part_of_it(
    name: str, array: NDArray[Any], encoding: Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded a few blocks at a time, an array has the same bytes, from anywhere to anywhere."""
    monkeypatch.setattr(codec, "_PIECE_BYTES", 4_500_000)  # a block may be one of 4 MiB
    how, payload = codec.encode(array, encoding)
    data, whole = bytes(payload), array.tobytes()
    codec.check(how, data, array.nbytes)
    edges = [0, 1, array.nbytes // 3, array.nbytes // 2, array.nbytes - 1, array.nbytes]
    for start, end in pairwise(edges):
        assert codec.decode_part(how, data, array.nbytes, start, end) == whole[start:end]
    assert codec.decode_part(how, data, array.nbytes, 0, array.nbytes) == whole


def test_large_pages_come_in_by_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large page of which the store holds some packages adds the others, counts what differs, and twice is once."""
    monkeypatch.setattr(compare, "LARGE", 1000)
    monkeypatch.setattr(compare, "PART", 3000)
    chance = np.random.default_rng(0)
    keys, y = chance.integers(0, 256, (40, 16), np.uint8), chance.normal(size=(40, 100))
    first = made(tmp_path / "a.wb", page(n=10, keys=keys[:10], a__y=y[:10], a__g0=-y[:10]))
    other = y.copy()
    other[3, 7] = np.nextafter(y[3, 7], 9)
    second = made(tmp_path / "b.wb", page(n=40, keys=keys, a__y=other, a__g0=-y))
    smaller = made(tmp_path / "c.wb", page(n=40, keys=keys, a__y=y[:, :3], a__g0=-y[:, :3]))
    store = tmp_path / "s.db"
    assert _counts(store, first) == (10, 0, 0)
    assert _counts(store, second) == (30, 9, 1)
    assert _counts(store, second) == (0, 39, 1)
    assert _counts(store, first) == (0, 10, 0)
    assert _counts(store, smaller) == (0, 0, 40)
    with wb.open(store) as board:
        assert board.verify().ok
        found = board._store.packages.find([key.tobytes() for key in keys])
    got = np.array([found.pages[p].arrays["y"][slot] for p, slot in zip(found.page, found.slot, strict=True)])
    assert np.array_equal(got, y)


def _counts(store: Path, path: Path) -> tuple[int, int, int]:
    done = import_archive(store, path).packages
    return done.added, done.present, done.conflicts


def test_rows_of_a_page_are_those_rows(tmp_path: Path) -> None:
    """Some rows of a page that lies in a file are what the whole page has there."""
    chance = np.random.default_rng(0)
    arrays = {"keys": chance.integers(0, 256, (50, 16), np.uint8), "a:y": np.repeat(chance.normal(size=(50, 40)), 9, 1)}
    blob = pack({"op": "x", "n": 50, "cost_ns": 500}, arrays).joined()
    page_checks.check_packages(blob)
    for start, end in [(0, 1), (0, 50), (7, 31), (49, 50)]:
        found = page_checks.rows(blob, start, end)
        assert np.array_equal(found.keys, arrays["keys"][start:end])
        assert np.array_equal(found.arrays["y"], arrays["a:y"][start:end])
        assert found.cost_ns == 10 * (end - start)
