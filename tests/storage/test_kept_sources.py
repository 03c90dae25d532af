"""Sources that lie in their page: wherever packages go, they go along, and none of what is compared knows of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.storage.moving import other_bits
from tests.storage.samples import key_of, page_of, run_python, sql, value_of
from whiteboard.records.packages import Page
from whiteboard.storage import open_store
from whiteboard.storage.page.codec import Encoding
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.import_archive import import_archive
from whiteboard.storage.transfer.merge import merge
from whiteboard.storage.upkeep.recompress import recompress
from whiteboard.storage.upkeep.recompress_plan import Form

EACH = 30
KEPT, BARE = range(4 * EACH), range(4 * EACH, 6 * EACH)


def with_sources(numbers: range, size: int = 8) -> Page:
    """A page of packages that keeps their sources and a cotangent."""
    page = page_of(numbers, size)
    y = page.arrays["y"]
    return replace(page, sources=(y + 1, y * 3, y[:, :1].copy()))


def filled(path: Path, size: int = 8) -> Path:
    """Make a store of pages with sources, and of others without."""
    with open_store(path) as stores:
        for first in range(0, 6 * EACH, EACH):
            numbers = range(first, first + EACH)
            stores.packages.put(with_sources(numbers, size) if first in KEPT else page_of(numbers, size))
            stores.packages.flush()
    return path


def kept(path: Path, size: int = 8) -> dict[bytes, bool]:
    """By key of each package: whether it has its sources, which then are right."""
    found: dict[bytes, bool] = {}
    number_of = {key_of(number): number for number in range(6 * EACH)}
    with open_store(path, readonly=True) as stores:
        for each in stores.pages("mul"):
            assert each.page is not None
            for row, key in enumerate(each.page.keys):
                assert key.tobytes() not in found
                found[key.tobytes()] = each.page.sources is not None
                y = value_of(number_of[key.tobytes()], size)
                np.testing.assert_array_equal(each.page.arrays["y"][row], y)
                for source, right in zip(each.page.sources or (), (y + 1, y * 3, y[:1]), strict=False):
                    assert source[row].tobytes() == right.tobytes()
    return found


ALL = {key_of(number): number in KEPT for number in range(6 * EACH)}


def _by_archive(path: Path) -> Path:
    assert export(path, path.with_name("a.wb")).damaged == 0
    import_archive(path.with_name("b.db"), path.with_name("a.wb"))
    return path.with_name("b.db")


def _by_merge(path: Path) -> Path:
    merge(path.with_name("b.db"), [path])
    return path.with_name("b.db")


def _by_parts(path: Path) -> Path:
    """Some of each page is there already, so that it cannot be taken as it lies."""
    with open_store(path.with_name("b.db")) as stores:
        stores.packages.put(with_sources(range(0, 4 * EACH, 7)))
    return _by_merge(path)


def _recompressed(form: Form) -> Callable[[Path], Path]:
    def move(path: Path) -> Path:
        assert recompress(path, form).rewritten
        return path

    return move


class Move(NamedTuple):
    """A way for packages to another place."""

    id: str
    go: Callable[[Path], Path]


MOVES = [
    Move("archive", _by_archive),
    Move("merge", _by_merge),
    Move("merge by parts", _by_parts),
    Move("larger pages", _recompressed(Form(Encoding("zstd", 9), 2**20))),
    Move("smaller pages", _recompressed(Form(Encoding("lz4", 5), 2048))),
]


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.id)
def test_sources_go_along(move: Move, tmp_path: Path) -> None:
    """Wherever packages are moved to, those that had sources have them, to the bit, and the others have none."""
    path = filled(tmp_path / "a.db")
    assert kept(path) == ALL
    moved = move.go(path)
    assert kept(moved) == ALL
    with open_store(moved) as stores:
        assert stores.verify().ok


def test_large_pages_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that are never in memory as a whole are compared, and taken in parts, with their sources."""
    for name in ("merge_packages", "compare"):
        monkeypatch.setattr(f"whiteboard.storage.transfer.{name}.LARGE", 20_000)
    monkeypatch.setattr("whiteboard.storage.transfer.merge_packages.PART", 5000)
    path = filled(tmp_path / "a.db", 64)
    with open_store(tmp_path / "b.db") as stores:
        stores.packages.put(with_sources(range(0, 4 * EACH, 7), 64))
    (report,) = merge(tmp_path / "b.db", [path])
    assert (report.packages.conflicts, report.packages.added) == (0, 6 * EACH - len(range(0, 4 * EACH, 7)))
    assert kept(tmp_path / "b.db", 64) == ALL
    (report,) = merge(tmp_path / "b.db", [path])
    assert (report.packages.present, report.packages.added) == (6 * EACH, 0)


def test_sources_are_no_conflict(tmp_path: Path) -> None:
    """Packages of the same results are the same, with or without sources; other results conflict as ever."""
    path = filled(tmp_path / "a.db")
    with open_store(tmp_path / "b.db") as stores:
        stores.packages.put(page_of(KEPT))
        stores.packages.put(with_sources(BARE))
    (report,) = merge(tmp_path / "b.db", [path])
    assert (report.packages.present, report.packages.conflicts) == (6 * EACH, 0)
    assert kept(tmp_path / "b.db") == {key: not has for key, has in ALL.items()}
    other_bits(tmp_path / "c.db", range(10))
    (report,) = merge(tmp_path / "c.db", [path])
    assert report.packages.conflicts == 10


def test_one_key_is_forgotten(tmp_path: Path) -> None:
    """The others of its page keep their sources."""
    path = filled(tmp_path / "a.db")
    with open_store(path) as stores:
        assert stores.forget(key=key_of(3)).packages == 1
    assert kept(path) == {key: has for key, has in ALL.items() if key != key_of(3)}


def test_memory_holds_no_sources(tmp_path: Path) -> None:
    """What the tier in memory takes for a package is no more with sources than without."""
    sizes: list[tuple[float, float]] = []
    for page in (page_of(range(100), 64), with_sources(range(100), 64)):
        with open_store(tmp_path / f"{len(sizes)}.db") as stores:
            stores.packages.put(page)
            stores.packages.flush()
            put = stores.packages.stats()["bytes_memory"]
        with open_store(tmp_path / f"{len(sizes)}.db") as stores:
            stores.packages.find([key_of(0)])
            sizes.append((put, stores.packages.stats()["bytes_memory"]))
    assert sizes[1][0] == sizes[0][0]
    assert sizes[1][1] <= sizes[0][1]


def test_what_is_moved_meanwhile_comes_once(tmp_path: Path) -> None:
    """While pages are read, others are joined, cut, forgotten in part and added: no package comes twice."""
    path = filled(tmp_path / "a.db")
    with open_store(path) as stores:
        seen: list[bytes] = []
        for number, each in enumerate(stores.pages("mul")):
            assert each.page is not None
            seen += [key.tobytes() for key in each.page.keys]
            if number == 1:
                recompress(path, Form(Encoding("zstd", 9), 2**20))
            if number == 2:
                stores.forget(key=key_of(50))
                recompress(path, Form(Encoding("lz4", 9), 2048))
    assert len(seen) == len(set(seen))
    assert set(seen) >= ALL.keys() - {key_of(50)}


def test_pages_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    """A damaged page, and one whose row says another op, come without packages and with their number."""
    path = filled(tmp_path / "a.db")
    (first, second, third, *_) = [row[0] for row in sql(path, "SELECT id FROM page ORDER BY id")]
    sql(path, "UPDATE page SET data = x'00' WHERE id = ?", first)
    sql(path, "UPDATE page SET n = 'many' WHERE id = ?", second)
    sql(path, "UPDATE page SET op = 'sum' WHERE id = ?", third)
    with open_store(path, readonly=True) as stores:
        found = list(stores.pages("mul"))
        (other,) = stores.pages("sum")
    assert [(each.page_id, each.n) for each in found if each.page is None] == [(first, EACH)]
    assert sum(each.n for each in found if each.page is not None) == 4 * EACH
    assert (other.page_id, other.n, other.page) == (third, EACH, None)


_PUT = """
import os, signal, sys
from pathlib import Path
from tests.storage.test_kept_sources import with_sources
from whiteboard.storage import open_store
stores = open_store(sys.argv[1])
for first in range(0, 120, 10):
    stores.packages.put(with_sources(range(first, first + 10)))
    stores.packages.flush()
    print(first, flush=True)
    if first == 70:
        stores.packages.put(with_sources(range(80, 90)))
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_nothing_that_was_written(tmp_path: Path) -> None:
    """After kill -9 every package that was flushed has its sources, and there is no half of one."""
    path = tmp_path / "a.db"
    done = run_python(_PUT, os.fspath(path))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert kept(path) == {key_of(number): True for number in range(80)}
