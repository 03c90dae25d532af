"""One package of a large page is read without the others: the same bits, and damage is seen where it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from tests.storage.samples import transaction
from whiteboard.records.packages import DISK, MISS, Page
from whiteboard.storage import open_store
from whiteboard.storage.page import digests, one_row
from whiteboard.storage.upkeep.verify import verify

N = 256
RNG = np.random.default_rng(0)
KEYS = RNG.integers(0, 256, (N, 16), dtype=np.uint8)
ARRAYS = {
    "random": RNG.normal(size=(N, 64)),
    "compressed": RNG.integers(0, 10**6, (N, 300)).astype(np.float64),
    "scalars beside rows": RNG.normal(size=(N, 100)),
    "alike": np.tile(RNG.normal(size=100), (N, 1)),
}


def filled(path: Path, y: np.ndarray) -> None:
    """A store with one page of y and a gradient."""
    with open_store(path) as stores:
        stores.packages.put(Page("f", KEYS, {"y": y, "g0": y[:, 0].copy(), "g1": -y}, 1000 * N))


def find(path: Path, *rows: int, memory_bytes: int = 0) -> list[tuple[int, dict[str, bytes], int]]:
    """Ask for some packages, one after another: tier, bytes by array, and how many packages came with it."""
    found: list[tuple[int, dict[str, bytes], int]] = []
    with open_store(path, memory_bytes=memory_bytes, readonly=True) as stores:
        for row in rows:
            place = stores.packages.find([KEYS[row].tobytes()])
            if place.tier[0] == MISS:
                found.append((MISS, {}, 0))
                continue
            page = place.pages[place.page[0]]
            arrays = {name: array[place.slot[0]].tobytes() for name, array in page.arrays.items()}
            found.append((int(place.tier[0]), arrays, page.n))
    return found


@pytest.mark.parametrize("kind", ARRAYS)
def test_each_row_is_what_was_put(tmp_path: Path, kind: str) -> None:
    """The bits of every package, read alone; its cost is its own."""
    y = ARRAYS[kind]
    filled(tmp_path / "a.db", y)
    for row, (tier, arrays, n) in enumerate(find(tmp_path / "a.db", *range(N))):
        assert (tier, n) == (DISK, 1)
        assert arrays == {"y": y[row].tobytes(), "g0": y[row, 0].tobytes(), "g1": (-y[row]).tobytes()}


def test_neighbours_come_with_the_second(tmp_path: Path) -> None:
    """Where a tier in memory holds what is read, the second key that leads to a page brings all of it."""
    filled(tmp_path / "a.db", ARRAYS["random"])
    found = find(tmp_path / "a.db", 3, 200, 100, memory_bytes=2**24)
    assert [(tier, n) for tier, _, n in found] == [(DISK, 1), (DISK, N), (1, N)]


def test_a_damaged_block(tmp_path: Path) -> None:
    """Rows of the block are misses and the page is told as damaged; rows of others are what they were."""
    path = tmp_path / "a.db"
    filled(path, ARRAYS["random"])
    with open_store(path) as stores, transaction(stores.database) as connection:
        ((data,),) = connection.exec_driver_sql("SELECT data FROM page")
        at = len(data) - 100  # in the last rows of the last gradient
        data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        connection.exec_driver_sql("UPDATE page SET data = ?", (data,))
    (first, last) = find(path, 0, N - 1)
    assert (first[0], last[0]) == (DISK, MISS)
    with open_store(path, memory_bytes=0) as stores:
        stores.packages.find([KEYS[N - 1].tobytes()])
        assert stores.packages.stats()["corrupt"] == 1
        assert not verify(stores.database).ok


@pytest.mark.parametrize("column", ["header", "digest", "data"])
@pytest.mark.parametrize("kind", ARRAYS)
def test_damage_to_a_page_that_was_read(tmp_path: Path, kind: str, column: str) -> None:
    """What is remembered of a page is no answer for what it has become, and is one again once that is as it was."""
    path, key = tmp_path / "a.db", KEYS[N - 1].tobytes()
    filled(path, ARRAYS[kind])
    with open_store(path, memory_bytes=0, readonly=True) as stores, open_store(path) as other:
        assert stores.packages.find([KEYS[0].tobytes()]).tier.tolist() == [DISK]
        with transaction(other.database) as connection:
            before = [(each, number) for number, each in connection.exec_driver_sql(f"SELECT id, {column} FROM page")]
            after = [(bytes(byte ^ 1 for byte in each), number) for each, number in before]
            connection.exec_driver_sql(f"UPDATE page SET {column} = ? WHERE id = ?", after)
        assert stores.packages.find([key]).tier.tolist() == [MISS]
        with transaction(other.database) as connection:
            connection.exec_driver_sql(f"UPDATE page SET {column} = ? WHERE id = ?", before)
        found = stores.packages.find([key])
        assert found.tier.tolist() == [DISK]
        assert found.pages[0].arrays["y"].tobytes() == ARRAYS[kind][N - 1].tobytes()


def test_only_blocks_of_the_row_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks an array at most."""
    filled(tmp_path / "a.db", ARRAYS["random"])
    read: list[int] = []

    def counted(data: bytes) -> object:
        read.append(len(data))
        return blake3(data)

    for module in (digests, one_row):
        monkeypatch.setattr(module, "blake3", counted)
    find(tmp_path / "a.db", 100)
    assert 0 < sum(read) <= 2 * 4 * 16 * 2**10
    read.clear()
    find(tmp_path / "a.db", 101)  # of a page whose header was looked at
    assert read == [16 * 2**10]


@pytest.mark.parametrize("harm", [False, True], ids=["whole", "damaged"])
@pytest.mark.parametrize("width", [30_000, 300_000])
@pytest.mark.parametrize("smooth", [False, True])
def test_a_large_package_alone(tmp_path: Path, harm: bool, width: int, smooth: bool) -> None:
    """A page of one package is read as a whole, and is a miss that is counted once where a bit of it is another."""
    y = np.linspace(0, 1, width)[None] if smooth else np.random.default_rng(1).normal(size=(1, width))
    with open_store(tmp_path / "a.db") as stores:
        stores.packages.put(
            Page("f", KEYS[:1], {"y": y, "g0": -y}, 1000, sources=(y,), tokens=np.zeros((1, 1, 16), "u1"))
        )
    if harm:
        with open_store(tmp_path / "a.db") as stores, transaction(stores.database) as connection:
            connection.exec_driver_sql("UPDATE page SET data = CAST(zeroblob(length(data)) AS BLOB)")
    with open_store(tmp_path / "a.db", memory_bytes=0) as stores:
        found = stores.packages.find([KEYS[0].tobytes()])
        assert stores.packages.stats()["corrupt"] == (1 if harm else 0)
        assert found.tier.tolist() == [MISS if harm else DISK]
        assert harm or found.pages[0].arrays["g0"].tobytes() == (-y).tobytes()
        for array in found.pages[0].arrays.values() if found.pages else ():
            with pytest.raises(ValueError, match="WRITEABLE"):
                array[:].flags.writeable = True


@pytest.mark.parametrize("value", ["1", "'text'", "1.5", "CAST(data AS TEXT)", "x''"])
@pytest.mark.parametrize("column", ["header", "digest", "data"])
@pytest.mark.parametrize("n", [1, N], ids=["small", "large"])
def test_a_row_of_other_types(tmp_path: Path, n: int, column: str, value: str) -> None:
    """What stands in a row and was not put there is a miss that is counted once."""
    path = tmp_path / "a.db"
    with open_store(path) as stores:
        stores.packages.put(Page("f", KEYS[:n], {"y": ARRAYS["random"][:n]}, 1000))
    with open_store(path) as stores, transaction(stores.database) as connection:
        connection.exec_driver_sql(f"UPDATE page SET {column} = {value}")
    with open_store(path, memory_bytes=0) as stores:
        assert stores.packages.find([KEYS[0].tobytes()]).tier.tolist() == [MISS]
        assert stores.packages.stats()["corrupt"] == 1
