"""A store with packages, a system and a fork of it, and what has to be the same wherever that was moved to."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.processes import run_code
from tests.storage.samples import Model, assert_found, key_of, page_of, sql
from whiteboard.records.systems import SystemRecord
from whiteboard.storage import Stores, open_store
from whiteboard.storage.upkeep.verify import verify

OPS = ("mul", "sum")
PAGES = 6
EACH = 40


def filled(
    path: Path, first: int = 0, systems: Iterable[str] = ("a",), steps: int = 5, ops: Sequence[str] = OPS
) -> Path:
    """Make a store: `PAGES` pages from package number `first` on, and each system with a fork."""
    with open_store(path) as stores:
        fill_packages(stores, first, ops)
        for name in systems:
            fill_system(stores, name, steps)
    return path


def fill_packages(stores: Stores, first: int = 0, ops: Sequence[str] = OPS) -> None:
    """Put `PAGES` pages from package number `first` on, each on its own."""
    for page in range(PAGES):
        numbers = range(first + EACH * page, first + EACH * (page + 1))
        stores.packages.put(page_of(numbers, op=ops[(first // EACH + page) % len(ops)]))
        stores.packages.flush()


def fill_system(stores: Stores, name: str, steps: int = 5, seed: int = 0) -> Model:
    """Make a system, and a fork that goes on from its third commit."""
    model = Model(name, 12, seed)
    for step in range(steps):
        stores.versions.append(
            model.record, *model.step(slice(step % 3, None, 3) if step else slice(None)), model.columns
        )
    if steps > 3:
        fork = SystemRecord(f"{name} forked", f"uuid of a fork of {name}", model.record.spec, (name, 2))
        stores.versions.fork(fork)
        again = Model(name, 12, seed)
        for step in range(3):
            again.step(slice(step % 3, None, 3) if step else slice(None))
        stores.versions.append(fork, *again.step(slice(None, None, 2)), again.columns)
    return model


def held(path: Path) -> dict[str, Any]:
    """Everything that a store says, in a form that can be compared: packages by key, states by system and commit."""
    with open_store(path, readonly=True) as stores:
        found: dict[str, Any] = {}
        for record in stores.versions.systems():
            commits = stores.versions.commits(record.name)
            states = [stores.versions.state(record.name, commit.number).columns for commit in commits]
            flat = [
                [
                    (c.attr, c.ids.tobytes(), c.versions.tobytes(), c.fixed.tobytes(), c.values.tobytes())
                    for c in columns
                ]
                for columns in states
            ]
            found[record.name] = (record.spec, record.origin, commits, flat)
        return found


def rows(path: Path) -> list[Any]:
    """Every row of every table."""
    names = [name for (name,) in sql(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [(name, sql(path, f"SELECT * FROM {name}")) for name in names]


def numbers_held(path: Path, numbers: Iterable[int]) -> set[int]:
    """Which of the packages the store answers; each answer is the right package."""
    numbers = list(numbers)
    with open_store(path, readonly=True) as stores:
        found = stores.packages.find([key_of(number) for number in numbers])
        there = {number for number, page in zip(numbers, found.page.tolist(), strict=True) if page >= 0}
        assert_found(found, numbers, lambda number: number in there)
    return there


def assert_whole(path: Path) -> None:
    """`verify` finds nothing."""
    with open_store(path) as stores:
        report = verify(stores.database)
    assert report.ok, report


def other_bits(path: Path, numbers: Iterable[int]) -> None:
    """Put packages whose y is one unit in the last place larger than the right one."""
    page = page_of(list(numbers))
    y = np.nextafter(page.arrays["y"], np.inf)
    with open_store(path) as stores:
        stores.packages.put(type(page)(page.op, page.keys, {**page.arrays, "y": y}, 1, page.src_ids, page.versions))


def killed(code: str, at: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code that calls ``progress(done, total)`` in a process that dies of SIGKILL at the call number `at`."""
    head = (
        "import os, signal, sys; from pathlib import Path\n"
        "calls = 0\n"
        "def progress(done, total):\n"
        "    global calls\n"
        "    calls += 1\n"
        f"    if calls == {at}: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    return run_code(head + code, *arguments)
