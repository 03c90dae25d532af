"""Claims of packages: each key is one process's at a time, and nobody's once its holder is gone, however it went."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tests.storage.samples import assert_found, environment, key_of, keys_of, page_of, sql
from whiteboard.errors import StoreError
from whiteboard.storage import Stores, open_store
from whiteboard.storage.base import Claim, PackageStore
from whiteboard.storage.sqlite import claim_locks
from whiteboard.storage.upkeep.verify import verify

HOLDER = """
import os, sys, time
from tests.storage.samples import keys_of, page_of
from whiteboard.storage import open_store

path, first, last, way = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
stores = open_store(path)
claim = stores.packages.claim()
claim.take(keys_of(range(first, last)), 100, seconds=2.0)
if way == "fork":
    if not os.fork():
        time.sleep(60)
        os._exit(0)
print(len(claim.mine), flush=True)
sys.stdin.readline()
stores.packages.settle([page_of(range(first, last))], claim)
print("settled", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Return an open store."""
    with open_store(tmp_path / "a.db", memory_bytes=0) as opened:
        yield opened


@contextmanager
def holder(stores: Stores, first: int, last: int, way: str = "") -> Iterator[subprocess.Popen[str]]:
    """Begin a process that has claimed some packages, and puts them when it is told."""
    command = [sys.executable, "-c", HOLDER, str(stores.path), str(first), str(last), way]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, env=environment(), start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"{last - first}\n"
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def taken(store: PackageStore, numbers: Sequence[int], most: int = 100, **options: object) -> Claim:
    """Claim some packages."""
    claim = store.claim()
    assert claim is not None
    claim.take(keys_of(numbers), most, **options)  # type: ignore[arg-type]
    return claim


def parts(claim: Claim) -> list[list[int]]:
    """What became of the keys: found, held, mine, left."""
    return [each.tolist() for each in (claim.found, claim.held, claim.mine, claim.left)]


def rows(stores: Stores) -> int:
    """How many rows the table has."""
    ((n,),) = sql(stores.path or "", "SELECT count(*) FROM claim")
    return int(n)


def test_each_key_is_in_one_part(stores: Stores) -> None:
    """Found, held by another of the same process, mine as many as wanted, and the others; all from one moment."""
    stores.packages.put(page_of([0, 1]))
    stores.packages.flush()
    first = taken(stores.packages, range(6), 2)
    assert parts(first) == [[0, 1], [], [2, 3], [4, 5]]
    second = taken(stores.packages, [5, 3, 2, 1, 0])
    assert parts(second) == [[3, 4], [1, 2], [0], []]
    assert rows(stores) == 2
    first.release()
    first.release()
    assert rows(stores) == 1
    assert parts(taken(stores.packages, [2, 5])) == [[], [1], [0], []]


def test_who_holds_is_told(stores: Stores) -> None:
    """One holder a claim, with the keys of it that were asked for and what they were expected to take."""
    claim = taken(stores.packages, range(4), seconds=2.5)
    (held,) = stores.packages.holders(keys_of([9, 3, 1]))
    assert (held.rows.tolist(), held.stopped, held.seconds) == ([1, 2], False, 2.5)
    assert stores.packages.holders(keys_of([7])) == []
    claim.release()
    assert stores.packages.holders(keys_of(range(4))) == []


def test_what_is_settled_is_on_disk_and_nobodys(stores: Stores) -> None:
    """Packages and claim change places in one transaction; a part of them leaves the claim, and the rest ends it."""
    claim = taken(stores.packages, range(4))
    stores.packages.settle([page_of([0, 1, 2])], claim)
    with open_store(stores.path or "", readonly=True) as other:
        assert_found(other.packages.find(keys_of(range(4))), range(4), lambda i: i < 3)
        assert other.info()["claims"] == 1
        stores.packages.settle([page_of([3])], claim)
        assert_found(other.packages.find(keys_of(range(4))), range(4), lambda _: True)
        assert other.info()["claims"] == 0


def test_settled_by_parts_that_are_too_large_to_keep(stores: Stores) -> None:
    """A claim ends with its release where nothing of it was put."""
    claim = taken(stores.packages, range(4))
    stores.packages.settle([], claim)
    assert rows(stores) == 1
    claim.release()
    assert rows(stores) == 0


@pytest.mark.parametrize("way", ["", "fork"])
def test_a_killed_holder_holds_nothing(stores: Stores, way: str) -> None:
    """After kill -9 the next who looks has the keys, also where a forked child of the holder goes on."""
    with holder(stores, 0, 8, way) as process:
        assert parts(taken(stores.packages, range(10))) == [[], list(range(8)), [8, 9], []]
        process.kill()
        process.wait()
        again = taken(stores.packages, range(8))
        assert parts(again) == [[], [], list(range(8)), []]
        assert rows(stores) == 1  # those of the dead are gone, and so is the one that nobody refers to
        again.release()


def _inherit(claim: Claim, path: str) -> None:
    """Release what a parent has claimed, in a child."""
    claim.release()
    with open_store(path) as mine:
        other = taken(mine.packages, range(3))
        assert parts(other) == [[], [0, 1, 2], [], []]


def test_a_forked_child_inherits_nothing(stores: Stores) -> None:
    """It cannot release what its parent has claimed, and sees it held as all others do."""
    claim = taken(stores.packages, range(3))
    child = multiprocessing.get_context("fork").Process(target=_inherit, args=(claim, str(stores.path)))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert parts(taken(stores.packages, range(3)))[1] == [0, 1, 2]
    claim.release()


def _live(begun: Event) -> None:
    """Be there, and do nothing."""
    begun.set()
    time.sleep(60)


def test_a_forked_child_does_not_keep_its_parents_claims(stores: Stores) -> None:
    """Once the parent has given them back they are free, whatever children live on."""
    claim = taken(stores.packages, range(3))
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    child = context.Process(target=_live, args=(begun,))
    child.start()
    try:
        assert begun.wait(30)
        claim._let_go()  # type: ignore[attr-defined]  # as if killed: the row stays
        assert rows(stores) == 1
        assert parts(taken(stores.packages, range(3)))[2] == [0, 1, 2]
    finally:
        child.kill()
        child.join()


def test_a_stopped_holder(stores: Stores) -> None:
    """It is known as one; another takes its keys on demand, and what it puts afterwards changes nothing."""
    with holder(stores, 0, 4) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.send_signal(signal.SIGSTOP)
        while not (held := stores.packages.holders(keys_of(range(4))))[0].stopped:
            time.sleep(0.01)
        assert held[0].seconds == 2.0
        claim = taken(stores.packages, range(4), instead=[held[0].number])
        assert parts(claim)[2] == [0, 1, 2, 3]
        stores.packages.settle([page_of(range(4))], claim)
        process.send_signal(signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "settled\n"
        assert_found(stores.packages.find(keys_of(range(4))), range(4), lambda _: True)
        assert sql(stores.path or "", "SELECT count(*) FROM page") == [(1,)]
        assert rows(stores) == 0
    assert verify(stores.database).ok


def test_a_dropped_claim_is_dead(stores: Stores) -> None:
    """One that nobody refers to any more, as an interrupt leaves it, keeps no key."""
    taken(stores.packages, range(3))
    assert rows(stores) == 1
    assert parts(taken(stores.packages, range(3)))[2] == [0, 1, 2]


ODD = {
    "text": "UPDATE claim SET hashes = 'text'",
    "half a hash": "UPDATE claim SET hashes = substr(hashes, 5)",
    "no process": "UPDATE claim SET pid = 'x'",
    "pids that none has": "UPDATE claim SET pid = 9223372036854775807",
    "large": "UPDATE claim SET hashes = zeroblob(40000000)",
    "a negative number": "UPDATE claim SET id = -5",
    "another number": "UPDATE claim SET id = 9223372036854775807",
}


@pytest.mark.parametrize("statement", ODD.values(), ids=ODD)
def test_damaged_rows_hold_nothing_for_long(stores: Stores, statement: str) -> None:
    """Whatever a row says, no key is lost by it: it is nobody's, or goes with its holder."""
    claim = taken(stores.packages, range(3))
    with closing(sqlite3.connect(stores.path or "")) as connection:
        connection.execute(statement)
        connection.commit()
    stores.packages.holders(keys_of(range(3)))
    claim.release()
    again = taken(stores.packages, range(3))
    assert parts(again)[2] == [0, 1, 2]
    again.release()
    assert rows(stores) == 0


@pytest.mark.parametrize("how", ["gc", "forget"])
def test_dead_rows_are_swept(stores: Stores, how: str) -> None:
    """`gc` and `forget` delete what dead holders have left, and leave what the living hold; `info` counts them."""
    stores.packages.put(page_of([0]))
    stores.packages.flush()
    living = taken(stores.packages, [1, 2])
    taken(stores.packages, [3])._let_go()  # type: ignore[attr-defined]
    assert stores.info()["claims"] == 2
    stores.gc() if how == "gc" else stores.forget(op="op", older_than=0)
    assert stores.info()["claims"] == 1
    assert stores.packages.holders(keys_of([1]))
    living.release()
    assert verify(stores.database).ok


@pytest.mark.parametrize("way", ["memory", "readonly", "never"])
def test_where_nobody_else_can_put(tmp_path: Path, way: str) -> None:
    """In memory, for reading alone, with persist="never" nothing is claimed: only threads share what they compute."""
    path = tmp_path / "a.db"
    open_store(path).close()
    where = ":memory:" if way == "memory" else path
    with open_store(where, readonly=way == "readonly", persist="never" if way == "never" else "always") as stores:
        assert stores.packages.claim() is None
        assert stores.packages.holders([key_of(1)]) == []


def test_systems_without_such_locks(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no locks of open files nothing is claimed, and `gc` works."""
    monkeypatch.setattr("whiteboard.storage.sqlite.claim_locks.supported", lambda: False)
    assert stores.packages.claim() is None
    assert stores.packages.holders([key_of(1)]) == []
    stores.gc()


def test_a_lock_file_that_is_removed(stores: Stores) -> None:
    """Who has claimed in the old one is not seen in the new one: its keys are computed twice, and found once."""
    claim = taken(stores.packages, range(3))
    Path(f"{stores.path}.lock").unlink()
    again = taken(stores.packages, range(3))
    assert parts(again)[2] == [0, 1, 2]
    for each in (claim, again):
        stores.packages.settle([page_of(range(3))], each)
    assert rows(stores) == 0
    assert_found(stores.packages.find(keys_of(range(3))), range(3), lambda _: True)
    assert verify(stores.database).ok


@pytest.mark.skipif(not claim_locks.supported(), reason="this system has no locks of open files")
@pytest.mark.parametrize("others", [False, True])
def test_a_file_system_that_refuses_locks(stores: Stores, others: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, in one line, and once it has them again all is as before."""
    if others:
        held = taken(stores.packages, [0])
    refused = fcntl.F_OFD_GETLK if others else fcntl.F_OFD_SETLK
    real = fcntl.fcntl

    def fail(fd: int, what: int, *rest: bytes) -> object:
        if what == refused:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return real(fd, what, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "fcntl", fail)
        with pytest.raises(StoreError, match=rf"{stores.path}.*its lock file .* cannot be locked: No locks available$"):
            taken(stores.packages, range(3))
    assert parts(taken(stores.packages, range(3))) == [[], [0] if others else [], [1, 2] if others else [0, 1, 2], []]
    if others:
        held.release()
