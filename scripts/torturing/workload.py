"""What the tortures write and what must be there afterwards: systems and packages that follow from their numbers."""

from __future__ import annotations

import hashlib
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from whiteboard.records.packages import Found, Page
from whiteboard.records.systems import CommitRecord, NodeColumns, SystemRecord
from whiteboard.storage import Stores

T = TypeVar("T")

NODES = 30
CHANGED = 4
PACKAGES = 8
"""Packages that go with each commit."""


def record_of(name: str) -> SystemRecord:
    """Return the system of that name."""
    return SystemRecord(name, f"uuid of {name}", {"torture": name})


def commit_of(number: int) -> CommitRecord:
    """Return commit `number`, from 0."""
    changed = CHANGED if number else NODES
    return CommitRecord(number, number - 1 if number else None, changed, 0.5, None, f"{number:032x}")


def columns_of(name: str, number: int, *, changed: bool = False) -> list[NodeColumns]:
    """Return all rows of a system at a commit, or those that the commit changed."""
    ids = np.arange(NODES, dtype=np.int64)
    # Commit k ≥ 1 moves rows 4k … 4k + 3, around the ring.
    moved = CHANGED * number
    versions = (moved + CHANGED - 1 - ids) // NODES + 1 if number else np.zeros(NODES, np.int64)
    first = (CHANGED - 1 - ids) // NODES + 1
    versions = versions - first if number else versions
    if changed and number:
        rows = (moved + np.arange(CHANGED)) % NODES
        rows.sort()
        ids, versions = ids[rows], versions[rows]
    salt = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")
    values = np.sin(salt + 1000.0 * ids[:, None] + versions[:, None] + 0.1 * np.arange(3))
    return [NodeColumns("theta", ids, versions, ids % 5 == 0, values)]


def append(stores: Stores, name: str, number: int) -> None:
    """Write one commit."""
    changed = columns_of(name, number, changed=True)
    stores.versions.append(record_of(name), commit_of(number), changed, lambda: columns_of(name, number))


def keys_of(name: str, numbers: Sequence[int]) -> list[bytes]:
    """Return the keys of packages."""
    return [hashlib.blake2b(f"{name} {number}".encode(), digest_size=16).digest() for number in numbers]


def arrays_of(keys: Sequence[bytes], size: int) -> dict[str, NDArray[Any]]:
    """Return the packages of some keys: noise that follows from the key."""
    words = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)
    steps = np.arange(size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (words[:, :1] + steps) * np.uint64(0xBF58476D1CE4E5B9) ^ words[:, 1:]
    mixed ^= mixed >> np.uint64(29)
    y = (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53
    return {"y": y, "g0": -y, "g1": y + 1}


def page_of(name: str, numbers: Sequence[int], size: int = 64) -> Page:
    """Return a page of packages of three times `size` numbers each."""
    keys = keys_of(name, numbers)
    columns = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16).copy()
    return Page("torture", columns, arrays_of(keys, size), 1000 * len(keys))


def wrong_packages(found: Found, keys: Sequence[bytes], size: int = 64, *, missing: bool = False) -> int:
    """Count answers that are not the package of their key; with `missing`, also packages that are not there."""
    wrong = int((found.page < 0).sum()) if missing else 0
    for number, page in enumerate(found.pages):
        rows = np.flatnonzero(found.page == number)
        if not len(rows):
            continue
        expected = arrays_of([keys[row] for row in rows.tolist()], size)
        same = np.ones(len(rows), bool)
        for field, array in expected.items():
            same &= (page.arrays[field][found.slot[rows]] == array).all(axis=1)
        wrong += int((~same).sum())
    return wrong


def wrong_state(stores: Stores, name: str, least: int) -> tuple[int, int]:
    """Return the commit at which a system stands, and what is wrong with it: 0, or a count of faults."""
    if stores.versions.system(name) is None:
        return -1, int(least >= 0)
    state = stores.versions.state(name)
    number = state.commit.number
    wrong = int(number < least) + int(state.commit != commit_of(number))
    for got, want in zip(state.columns, columns_of(name, number), strict=True):
        fields = ("ids", "versions", "fixed", "values")
        wrong += sum(not np.array_equal(getattr(got, field), getattr(want, field)) for field in fields)
    return number, wrong


def apart(work: Callable[[], T], seconds: float = 60.0) -> T:
    """Run `work` in a process of its own, forked from this one, and return what it returns.

    Raises
    ------
    AssertionError
        It raised something, died, or was not done in time.
    """
    receiver, sender = get_context("fork").Pipe(duplex=False)

    def run() -> None:
        try:
            sender.send((work(), None))
        except BaseException as error:
            sender.send((None, "".join(traceback.format_exception(error))))

    process = get_context("fork").Process(target=run)
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            process.kill()
            message = f"it hangs: {seconds:g} s have passed"
            raise AssertionError(message)
        result, raised = receiver.recv()
    except EOFError:
        process.join()
        message = f"the process died with {process.exitcode}"
        raise AssertionError(message) from None
    finally:
        process.join()
        receiver.close()
    if raised is not None:
        raise AssertionError(raised)
    return cast("T", result)


def finish(kind: str, counts: dict[str, Any]) -> None:
    """Print the counts as one JSON line and end; the status is 1 where anything is wrong."""
    print(json.dumps({"torture": kind, **counts}), flush=True)
    sys.exit(int(bool(counts["wrong"])))


def log_bytes(path: Path) -> int:
    """Return the size of a store's write-ahead log."""
    log = Path(f"{path}-wal")
    return log.stat().st_size if log.exists() else 0
