"""Packages of more bytes than one value may hold: they lie in parts, and whatever is done with a store knows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.storage.samples import sql
from whiteboard.errors import CorruptPackageError, SchemaError
from whiteboard.records.packages import DISK, MISS, Page
from whiteboard.storage import open_store
from whiteboard.storage.cache.eviction import evict
from whiteboard.storage.page import codec, format, grouping
from whiteboard.storage.page.codec import Encoding
from whiteboard.storage.page.digests import digest_of
from whiteboard.storage.page.format import decode_page, encode_page
from whiteboard.storage.page.page_checks import checked
from whiteboard.storage.sql import page_row, rows
from whiteboard.storage.sqlite import schema
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.import_archive import import_archive
from whiteboard.storage.transfer.merge import merge
from whiteboard.storage.upkeep.recompress import recompress
from whiteboard.storage.upkeep.recompress_plan import Form
from whiteboard.storage.upkeep.remove import forget
from whiteboard.storage.upkeep.verify import verify

PART = 100_000
WIDTHS = (30_000, 20_000 + 8, 400_000, 100)
"""Of y: 480 KB, a few bytes more than whole parts, 6.4 MB, and one that needs no parts."""
RNG = np.random.default_rng(0)
KEYS = RNG.integers(0, 256, (len(WIDTHS), 16), dtype=np.uint8)
PAGES = [
    Page("f", KEYS[i : i + 1], {"y": (y := RNG.normal(size=(1, width))), "g0": -y}, 1000)
    for i, width in enumerate(WIDTHS)
]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_row, "MOST_DATA", PART)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of such packages."""
    put(tmp_path / "a.db")
    return tmp_path / "a.db"


def put(url: Path | str) -> None:
    """Put them all."""
    with open_store(url) as stores:
        for page in PAGES:
            stores.packages.put(page)
            stores.packages.flush()


def held(url: Path | str) -> list[int]:
    """The tiers of all, asked for one by one and together; those that are there have the right bits."""
    tiers: list[int] = []
    with open_store(url, memory_bytes=0) as stores:
        keys = [key.tobytes() for key in KEYS]
        for asked in ([0], [1], [2], [3], [0, 1, 2, 3]):
            found = stores.packages.find([keys[i] for i in asked])
            for row, i in enumerate(asked):
                if found.tier[row] != MISS:
                    page = found.pages[found.page[row]]
                    assert page.arrays.keys() == PAGES[i].arrays.keys()
                    for name, array in page.arrays.items():
                        assert array[found.slot[row]].tobytes() == PAGES[i].arrays[name].tobytes()
                        assert not array.flags.writeable
            tiers += found.tier.tolist()
    assert tiers[:4] == tiers[4:]
    return tiers[:4]


def parts(path: Path) -> list[tuple[int, int]]:
    """How many parts beside the first one each page has, and bytes in all."""
    return sql(path, "SELECT count(*), sum(length(data)) FROM page_part GROUP BY page_id ORDER BY page_id")


def test_they_are_found(path: Path) -> None:
    """Bit for bit, alone and among others; the sizes are told with all parts, and everything is whole."""
    assert held(path) == [DISK] * 4
    assert [count for count, _ in parts(path)] == [4, 3, 64]
    assert sql(path, "SELECT max(length(data)) FROM page") == [(PART,)]
    ((told, first),) = sql(path, "SELECT sum(nbytes), sum(length(header) + length(data)) FROM page")
    assert told == first + sum(nbytes for _, nbytes in parts(path))
    with open_store(path) as stores:
        assert verify(stores.database).ok


HARM = {
    "another byte": "UPDATE page_part SET data = CAST(zeroblob(length(data)) AS BLOB) WHERE page_id = 1 AND number = 2",
    "text": "UPDATE page_part SET data = 'text' WHERE page_id = 1 AND number = 2",
    "a part less": "DELETE FROM page_part WHERE page_id = 1 AND number = 4",
    "no parts": "DELETE FROM page_part WHERE page_id = 1",
    "another order": "UPDATE page_part SET number = 9 WHERE page_id = 1 AND number = 2",
    "a part more": "INSERT INTO page_part (page_id, number, data) VALUES (1, 5, x'00')",
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_damage(path: Path, harm: str) -> None:
    """Where a part is another, one more or none, the package is a miss, told by verify, and gone after a repair."""
    sql(path, harm)
    assert held(path) == [MISS, DISK, DISK, DISK]
    with open_store(path) as stores:
        assert [page.page_id for page in verify(stores.database).damaged] == [1]
        verify(stores.database, repair=True)
        assert verify(stores.database).ok
    assert sql(path, "SELECT count(*) FROM page_part WHERE page_id = 1") == [(0,)]
    put(path)
    assert held(path) == [DISK] * 4


def test_a_damaged_package_is_put_again(path: Path) -> None:
    """It is found damaged, computed, and put in the place of what was there."""
    sql(path, HARM["another byte"])
    with open_store(path) as stores:
        assert stores.packages.find([KEYS[0].tobytes()]).tier.tolist() == [MISS]
        stores.packages.put(PAGES[0])
    assert held(path) == [DISK] * 4


def test_parts_of_no_page(path: Path) -> None:
    """Parts whose page is gone are told, and taken away by a repair."""
    sql(path, "DELETE FROM page WHERE id = 1")  # by somebody who keeps no foreign keys
    with open_store(path) as stores:
        assert any("page_part: 4 rows that belong to no page" in why for why in verify(stores.database).unreadable)
        verify(stores.database, repair=True)
        assert verify(stores.database).ok
    assert [count for count, _ in parts(path)] == [3, 64]


@pytest.mark.parametrize("large", [0, 2**20, 2**40])
def test_they_go_with_their_pages(path: Path, large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who forgets or evicts a package takes its parts away, and counts their bytes; large ones are not read for it."""
    monkeypatch.setattr(rows, "PART_BYTES", large)
    with open_store(path) as stores:
        assert forget(stores.database, key=KEYS[1].tobytes()).packages == 1
    assert [count for count, _ in parts(path)] == [4, 64]
    with open_store(path) as stores:
        evict(stores.database, 0)
    assert parts(path) == []
    assert sql(path, "SELECT count(*) FROM package") == sql(path, "SELECT count(*) FROM recent") == [(0,)]
    ((nbytes,),) = sql(path, "SELECT sum(nbytes) FROM eviction")
    assert nbytes > 16 * sum(WIDTHS)


def test_recompressed(path: Path) -> None:
    """Rewritten they are found as before, and have the parts that they need."""
    before = parts(path)
    said = recompress(path, Form(encoding=Encoding("raw", 0)))
    assert (said.rewritten, said.damaged) == (4, 0)
    assert held(path) == [DISK] * 4
    assert parts(path) == before
    recompress(path, Form(encoding=Encoding("lz4", 1)))
    assert held(path) == [DISK] * 4
    with open_store(path) as stores:
        assert verify(stores.database).ok


def test_moved(path: Path, tmp_path: Path) -> None:
    """An archive holds them, an import and a merge bring them, and twice is once."""
    export(path, tmp_path / "a.wba")
    import_archive(tmp_path / "b.db", tmp_path / "a.wba")
    merge(tmp_path / "c.db", [path])
    for each in (tmp_path / "b.db", tmp_path / "c.db"):
        assert held(each) == [DISK] * 4
        assert parts(each) == parts(path)
        (again,) = merge(each, [path])
        assert (again.packages.added, again.packages.present) == (0, 4)


def test_no_place_in_an_older_schema(path: Path, tmp_path: Path) -> None:
    """A downgrade that would lose them is refused; without them there is none."""
    with pytest.raises(SchemaError, match="no place for packages as large as those of 3 pages"):
        schema.downgrade(path, "0006")
    assert held(path) == [DISK] * 4
    with open_store(path) as stores:
        evict(stores.database, 0)
    assert schema.downgrade(path, "0006").after == "0006"


def test_what_chunks_may_not_hold_is_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of more bytes than chunks may decode to are raw, and read; chunks of so many bytes are refused."""
    page = Page("f", KEYS[:1], {"y": (y := np.linspace(0, 1, 50_000)[None]), "g0": y + 1}, 1)
    small = encode_page(page).joined()
    assert len(small.data) < 600_000
    for module in (codec, format):
        monkeypatch.setattr(module, "MAX_BYTES", 600_000)
    blob = encode_page(page).joined()
    assert len(blob.data) > 800_000
    assert decode_page(blob).arrays["g0"].tobytes() == (y + 1).tobytes()
    assert checked(blob) == 1
    for refused in (decode_page, checked):
        with pytest.raises(CorruptPackageError, match="more than"):
            refused(small)


def test_what_is_raw_is_no_more_than_there_is() -> None:
    """Arrays that lie over one another are refused: each is a view, but who copies them would need memory for all."""
    blob = encode_page(PAGES[0]).joined()
    y, g = b'"raw",16,240000', b'"raw",240016,240000'
    assert y in blob.header
    assert g in blob.header
    more = blob.header.replace(g, y).replace(b"]]}", b'],["a:g1","<f8",[1,30000],"raw",16,240000]]}')
    forged = format.Blob(more, digest_of(more, blob.data), blob.data)
    for refused in (decode_page, checked):
        with pytest.raises(CorruptPackageError, match="bytes that there are"):
            refused(forged)


@pytest.mark.parametrize("sizes", [(0,), (1,), (PART - 1,), (PART,), (PART + 1,), (3 * PART,)])
def test_sizes(sizes: Sequence[int]) -> None:
    """Parts are whole but for the last, and there is always a first one."""
    for size in sizes:
        found = page_row.part_sizes(size)
        assert sum(found) == size
        assert all(part == PART for part in found[:-1])
        assert 0 < found[-1] <= PART or found == [0]


def test_one_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no header has room for is told, and not stored."""
    monkeypatch.setattr(grouping, "MOST_BYTES", 400_000)
    with open_store(tmp_path / "a.db") as stores, pytest.warns(RuntimeWarning, match="larger than"):
        stores.packages.put(PAGES[0])
