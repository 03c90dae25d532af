"""Rooms: memory in large pages that goes back in parts, and never under a view."""

import gc
import os
import threading
import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from whiteboard.memory import room
from whiteboard.memory.room import room as room_of
from whiteboard.memory.room import shelves
from whiteboard.records.packages import Page
from whiteboard.storage.page.codec import BLOSC2, decode, encode
from whiteboard.storage.page.grouping import owned

pytestmark = pytest.mark.skipif(room._ADVICE is None, reason="no large pages here")
KB = 2**10


@pytest.fixture(autouse=True)
def _own_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_open", None)
    monkeypatch.setattr(room, "_last", None)
    room._dead.clear()
    room._spare.clear()


def filled(nbytes: int, value: int) -> np.ndarray:
    """An array that lies in a room."""
    it = room_of(nbytes)
    assert it is not None
    it.into[:] = bytes([value]) * nbytes
    return np.ndarray((nbytes,), np.uint8, it.lent())


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("nbytes", [1, 32 * KB, 100_001, 3 * KB * KB, 40 * KB * KB])
def test_new_room_is_zero_and_what_is_lent_stays_read_only(nbytes: int) -> None:
    """A room is zero until it is filled, and no array of it can be made writable."""
    it = room_of(nbytes)
    assert it is not None
    assert len(it.into) == nbytes
    assert not np.frombuffer(it.into, np.uint8).any()
    array = np.ndarray((nbytes,), np.uint8, it.lent())
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    with pytest.raises(ValueError, match="WRITEABLE"):
        array[:1].flags.writeable = True


def test_what_is_left_is_not_touched_by_what_goes() -> None:
    """Views of views keep their part as it was, whichever parts beside it go, in whatever order and thread."""
    arrays = {number: filled(33 * KB + number, number % 251) for number in range(400)}
    kept = {number: arrays[number].reshape(1, -1)[0, 7:].data for number in range(0, 400, 7)}
    threads = [
        threading.Thread(target=lambda some=some: [arrays.pop(i, None) for i in some])
        for some in (range(0, 400, 2), range(399, 0, -2))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = [filled(50 * KB, 255) for _ in range(100)]
    assert all((np.frombuffer(view, np.uint8) == number % 251).all() for number, view in kept.items())
    assert all((array == 255).all() for array in again)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells what is resident")
def test_memory_goes_back_beside_what_is_kept() -> None:
    """Of many rooms of which one in ten is kept the memory of the others is given back."""
    before = resident()
    arrays = [filled(400 * KB, 1) for _ in range(300)]
    full = resident() - before
    arrays = arrays[::10]
    gc.collect()
    arrays.append(filled(400 * KB, 1))
    assert full > 100 * KB * KB
    assert resident() - before < 0.2 * full
    assert all((array == 1).all() for array in arrays)


def test_a_decoded_array_is_held_as_it_is() -> None:
    """What a chunk decodes to lies in a room that it fills, whatever was there; to hold its page copies nothing."""
    array = np.linspace(0, 1, 40_000).reshape(1, -1)
    how, chunk = encode(array)
    assert how == BLOSC2
    filled(array.nbytes, 255)
    room._bury()
    assert len(room._spare) == 1
    found = decode(how, memoryview(chunk), array.dtype, array.nbytes, array.shape)
    assert not room._spare
    assert found.tobytes() == array.tobytes()
    with pytest.raises(ValueError, match="WRITEABLE"):
        found.flags.writeable = True
    page = owned(Page("f", np.frombuffer(bytes(16), np.uint8).reshape(1, 16), {"y": found}))
    assert page.arrays["y"] is found
    assert page.alive == found.nbytes + 16


def test_a_region_goes_with_its_last_room() -> None:
    """Nothing holds a region but its rooms, and no room that has gone is anywhere."""
    arrays = [filled(100 * KB, 1) for _ in range(3)]
    assert room._open is not None
    region = weakref.ref(room._open)
    room._open = None
    del arrays[1:]
    assert region() is not None
    del arrays[:]
    assert region() is None
    assert len(room._dead) >= 2  # Python 3.13 does not tell of the last one, which goes with the region
    filled(100 * KB, 1)
    assert len(room._dead) <= 1


def shelved(sizes: list[int], value: int, parts: int = 4) -> list[np.ndarray]:
    """Arrays of so many bytes in all, each shelf's in some parts of odd sizes, filled."""
    arrays = []
    for shelf, size in zip(shelves(sizes) or (), sizes, strict=True):
        cuts = np.linspace(0, size, parts + 1).astype(int)
        for start, end in pairwise(cuts.tolist()):
            one = shelf.room(end - start)
            np.frombuffer(one.into, np.uint8)[:] = value
            arrays.append(np.frombuffer(one.lent(), np.uint8))
    return arrays


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


@pytest.mark.parametrize("held", [None, 0, 3, 4, 11])
def test_shelves_of_a_batch_are_the_next_ones(held: int | None) -> None:
    """Where nobody has a view of any, however small; else the next ones are new, and what is held stays as it is."""
    sizes = [3 * KB * KB, 10_000, 1 * KB * KB]  # the second has parts that share pages with others
    first = shelved(sizes, 1)
    was = address(first[0])
    kept = None if held is None else first[held][5:10]
    del first
    again = shelved(sizes, 2)
    assert (address(again[0]) == was) == (held is None)
    assert all((array == 2).all() for array in again)
    assert kept is None or (kept == 1).all()
    del again
    assert address(shelved(sizes, 3)[0]) == was or held is not None
    assert kept is None or (kept == 1).all()


def test_a_shelf_that_was_filled_is_not_said_to_be_zero() -> None:
    """What decodes into it fills it first."""
    said = []
    for _ in range(2):
        made = shelves([KB * KB])
        assert made is not None
        one = made[0].room(100)
        said.append((one.is_new, one.part(0, 50).is_new))
        one.into[:] = b"\xff" * 100
        del made, one
    assert said == [(True, True), (False, False)]


def test_shelves_that_are_being_filled_are_nobody_elses() -> None:
    """Between rooms of theirs there may be none that is lent."""
    mine, others = shelves([KB * KB]), shelves([KB * KB])
    assert mine is not None
    assert others is not None
    one, other = (np.frombuffer(shelf.room(KB).lent(), np.uint8) for shelf in (mine[0], others[0]))
    assert not np.shares_memory(one, other)


@pytest.mark.parametrize("then", ["tidy", "larger"])
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells what is resident")
def test_shelves_that_are_kept_go_back(then: str) -> None:
    """When a page is held in memory, or the next batch is of another size."""
    before = resident()
    arrays = shelved([16 * KB * KB] * 2, 1)
    small = arrays[0][:3]
    assert resident() - before > 30 * KB * KB
    del arrays
    if then == "tidy":
        room.tidy()
    else:
        shelved([64 * KB], 1)
    assert resident() - before < 8 * KB * KB
    assert (small == 1).all()


def test_threads_that_take_turns_with_shelves() -> None:
    """What is held is never written to, whoever takes shelves, holds rooms of them, and lets go, meanwhile."""
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        held: list[tuple[np.ndarray, int]] = []
        for turn in range(300):
            value = (seed * 31 + turn) % 251 + 1
            held += [(array, value) for array in shelved([200 * KB, 5000], value, parts=3) if rng.random() < 0.3]
            if rng.random() < 0.3:
                held += [(filled(40 * KB, value), value)]
            if rng.random() < 0.1:
                room.tidy()
            wrong.extend(turn for array, was in held if not (array == was).all())
            held = [each for each in held if rng.random() < 0.5]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
