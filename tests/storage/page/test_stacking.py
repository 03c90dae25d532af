"""Pages that are read at once: each is what was written, and together they are columns that nobody copies."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import whiteboard as wb
from tests.storage.samples import key_of, packages_at, transaction
from whiteboard.evaluation.separate import columns
from whiteboard.memory import room
from whiteboard.records import adjacent
from whiteboard.records.adjacent import together
from whiteboard.records.packages import Found, Page
from whiteboard.storage.page import stacking
from whiteboard.storage.page.digests import digest_of
from whiteboard.storage.page.format import encode_page
from whiteboard.storage.sqlite import rows

pytestmark = pytest.mark.skipif(room._ADVICE is None, reason="no large pages here")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacking, "LEAST_BYTES", 1)


def page(first: int, n: int, width: int, kind: str, dtype: str = "<f8") -> Page:
    """A page whose rows have 128 KB and more, random ones and such that compress."""
    rng = np.random.default_rng(first)
    keys = np.frombuffer(b"".join(map(key_of, range(first, first + n))), np.uint8).reshape(n, 16)
    random, smooth = rng.normal(size=(n, width)), np.full((n, width), float(first))
    y, grad = {"raw": (random, -random), "alike": (smooth, -smooth), "both": (random, smooth)}[kind]
    return Page("mul", keys, {"y": y.astype(dtype), "g0": grad.astype(dtype)}, 1000)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["raw", "alike", "both"])), min_size=1, max_size=6),
    st.integers(8192, 8500),
    st.sampled_from(["<f8", "<f4"]),
    st.sampled_from(["ordered", "turned", "some"]),
    st.sets(st.integers(1, 6), max_size=2),
)
def test_what_is_found_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[tuple[int, str]],
    width: int,
    dtype: str,
    order: str,
    damaged: set[int],
) -> None:
    """Of pages of any number of rows, raw and compressed, in any order, whole and damaged."""
    store = packages_at(tmp_path_factory.mktemp("stacked") / "a.db")
    pages, first = [], 0
    for n, kind in sizes:
        pages.append(page(first, n, width, kind, dtype))
        first += n
        store.put(pages[-1])
        store.flush()
    with transaction(store.database) as connection:
        ids = connection.exec_driver_sql("SELECT id FROM page").scalars()
        broken = {page_id for page_id in ids if page_id in damaged}
        for page_id in broken:
            connection.exec_driver_sql("UPDATE page SET data = zeroblob(length(data)) WHERE id = ?", (page_id,))
    numbers = list(range(first))
    numbers = {"ordered": numbers, "turned": numbers[::-1], "some": numbers[::2]}[order]
    found = store.find([key_of(number) for number in numbers])
    whole = {name: np.concatenate([each.arrays[name] for each in pages]) for name in ("y", "g0")}
    for name in whole:
        for at, number in enumerate(numbers):
            if found.page[at] >= 0:
                held = found.pages[found.page[at]].arrays[name][found.slot[at]]
                assert held.tobytes() == whole[name][number].tobytes()
    if not broken:
        assert (found.page >= 0).all()
        y, grad = columns({"y": (width,), "g0": (width,)}, found.pages, found.page, found.slot, np.dtype(dtype))
        assert y.tobytes() == whole["y"][numbers].tobytes()
        assert grad.tobytes() == whole["g0"][numbers].tobytes()
        assert not y.flags.writeable
    store.close()


def found_again(path: Path, pages: list[Page]) -> Found:
    """What a store that was just opened finds of all packages, each page in a row of its own."""
    store = packages_at(path)
    for each in pages:
        store.put(each)
        store.flush()
    found = store.find([key.tobytes() for each in pages for key in each.keys])
    store.close()
    return found


@pytest.mark.parametrize("kind", ["raw", "both", "alike"])
@pytest.mark.parametrize("n", [1, 3])
def test_a_column_of_all_pages_is_a_view_that_stays(tmp_path: Path, kind: str, n: int) -> None:
    """It cannot be made writable, and holds what it held when the pages have gone, as a page does when it has gone."""
    pages = [page(number * n, n, 9001, kind) for number in range(5)]
    found = found_again(tmp_path / "a.db", pages)
    y, grad = columns({"y": (9001,), "g0": (9001,)}, found.pages, found.page, found.slot, np.dtype("f8"))
    assert all(np.shares_memory(y, each.arrays["y"]) for each in found.pages)
    assert all(np.shares_memory(grad, each.arrays["g0"]) for each in found.pages)
    with pytest.raises(ValueError, match="WRITEABLE"):
        y.flags.writeable = True
    kept, columns_kept = found.pages[2].arrays["y"], len(adjacent._kept)
    del found
    gc.collect()
    for _ in range(40):  # which would be given what went back
        made = room.room(72_008 * n)
        assert made is not None
        made.into[:] = b"\xff" * len(made.into)
    assert y.tobytes() == np.concatenate([each.arrays["y"] for each in pages]).tobytes()
    del y, grad
    gc.collect()
    assert len(adjacent._kept) == columns_kept - 2
    for _ in range(40):
        made = room.room(72_008 * n)
        assert made is not None
        made.into[:] = b"\xff" * len(made.into)
    assert kept.tobytes() == pages[2].arrays["y"].tobytes()


def test_together_is_for_what_lies_so(tmp_path: Path) -> None:
    """Arrays in another order, with others between them, not of a mapping, or transposed are not one."""
    found = found_again(tmp_path / "a.db", [page(number, 2, 9000, "raw") for number in range(0, 8, 2)])
    a, b, c, _ = (each.arrays["y"] for each in found.pages)
    assert together([a, b, c]) is not None
    assert together([b, c]) is not None
    for apart in ([b, a], [a, c], [a, b.copy()], [a.copy(), b.copy()], [a[:, ::2], b], [a, b[1:]]):
        assert together(apart) is None
    tail = together([a[1:], b[:1]])
    assert tail is not None
    assert tail.tobytes() == a[1:].tobytes() + b[:1].tobytes()


@pytest.mark.parametrize(
    ("place", "value"),
    [(4, -8), (5, 2**50), (5, "8"), (2, [2**40]), (2, None), (1, "O"), (0, 3)],
)
def test_what_a_header_says_wrong_is_not_believed(place: int, value: object) -> None:
    """Its page is read as others are, and refused there."""
    packed = encode_page(page(1, 1, 9000, "raw"))
    said = json.loads(packed.header)
    said["arrays"][1][place] = value
    header = json.dumps(said, separators=(",", ":")).encode()
    assert rows._told(packed.header, packed.digest, None) is not None
    for wrong, digest in ((header, digest_of(header)), (header, packed.digest), (None, 3), (b"", b"")):
        assert rows._told(wrong, digest, None) is None
    alike = encode_page(page(1, 1, 9000, "alike"))
    assert rows._told(alike.header, alike.digest, bytes(100)) is not None
    assert rows._told(alike.header, alike.digest, "text") is None
    small = encode_page(page(1, 1, 1000, "alike"))
    assert rows._told(small.header, small.digest, bytes(100)) is None


def test_hits_of_nodes_are_not_copied(tmp_path: Path) -> None:
    """Over nodes: what a second process finds has the bits of what the first computed, in memory of the pages."""
    x = np.random.default_rng(0).normal(size=(9, 20_000))
    jobs = wb.JobBatch("mul", np.array([(number, 8) for number in range(8)]))
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("s")
        system.add_nodes(range(9), theta=x)
        system.commit()
        first = system.process(jobs)
    with wb.open(tmp_path / "a.db") as board:
        again = board.system("s").process(jobs)
        once_more = board.system("s").process(jobs)
        assert np.shares_memory(again.y, once_more.y)
    assert (again.hit == 2).all()
    assert (once_more.hit == 1).all()
    assert again.y.tobytes() == once_more.y.tobytes() == first.y.tobytes()
    for a, b in zip(again.grads, first.grads, strict=True):
        assert a.tobytes() == b.tobytes()


def test_too_much_is_not_stacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page that is held keeps in memory of others has a bound."""
    pages = [page(number, 1, 9000, "raw") for number in range(3)]
    monkeypatch.setattr(stacking, "MOST_BYTES", 6 * 72_000 - 1)
    found = found_again(tmp_path / "a.db", pages)
    assert together([each.arrays["y"] for each in found.pages]) is None
    assert [each.arrays["y"].tobytes() for each in found.pages] == [each.arrays["y"].tobytes() for each in pages]
