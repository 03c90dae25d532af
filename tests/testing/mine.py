"""A backend of dicts: the least that passes the suites. Two stores of one folder are views of the same data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import (
    ClosedError,
    ConflictError,
    DtypeError,
    ShapeError,
    SpecError,
    UnknownCommitError,
    UnknownSystemError,
)
from whiteboard.records.packages import DISK, Found, Page
from whiteboard.records.systems import CommitRecord, NodeColumns, State, SystemRecord
from whiteboard.storage.base import PackageStore, VersionStore

PACKAGES: dict[Path, dict[bytes, tuple[Page, int]]] = {}
SYSTEMS: dict[Path, dict[str, tuple[SystemRecord, list[State]]]] = {}


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy that nobody can change."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy


class MyPackages(PackageStore):
    """Packages in a dict."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = PACKAGES.setdefault(folder, {})
        self.puts = 0
        self.closed = False

    def find(self, keys: Sequence[bytes]) -> Found:
        """Look up keys."""
        self.check_open()
        n = len(keys)
        found = Found([], np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.uint8))
        numbers: dict[int, int] = {}
        for i, key in enumerate(keys):
            found.page[i] = -1
            if key in self.held:
                page, row = self.held[key]
                if id(page) not in numbers:
                    numbers[id(page)] = len(found.pages)
                    found.pages.append(page)
                found.page[i], found.slot[i], found.tier[i] = numbers[id(page)], row, DISK
        return found

    def put(self, page: Page) -> None:
        """Take a page."""
        self.check_open()
        if page.keys.shape[1:] != (16,):
            raise ShapeError(f"op {page.op!r}: keys of 16 bytes, not {page.keys.shape}")
        for array in page.arrays.values():
            if array.dtype.kind not in "biufc":
                raise DtypeError(f"op {page.op!r}: {array.dtype}")
            if array.shape[:1] != (page.n,):
                raise ShapeError(f"op {page.op!r}: {array.shape} of {page.n} packages")
        self.puts += page.n
        arrays = {name: frozen(array) for name, array in page.arrays.items()}
        kept = replace(page, keys=frozen(page.keys), arrays=arrays)
        for row, key in enumerate(kept.keys):
            self.held.setdefault(key.tobytes(), (kept, row))

    def check_open(self) -> None:
        """Raise where the store is closed."""
        if self.closed:
            raise ClosedError("closed")

    def flush(self) -> None:
        """Do nothing: all is where it will stay."""

    def close(self) -> None:
        """Refuse what comes from now on."""
        self.closed = True

    def stats(self) -> dict[str, float]:
        """Count."""
        nothing = dict.fromkeys(("pages", "bytes_memory", "bytes_disk", "collisions", "corrupt"), 0.0)
        return {"puts": self.puts, "packages": len(self.held), **nothing}


class MyVersions(VersionStore):
    """Systems in a dict, every commit whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = SYSTEMS.setdefault(folder, {})

    def systems(self) -> list[SystemRecord]:
        """Return all systems."""
        return [self.held[name][0] for name in self.names()]

    def names(self) -> Iterator[str]:
        """Yield their names."""
        return iter(sorted(self.held))

    def system(self, name: str) -> SystemRecord | None:
        """Return one system."""
        return self.held[name][0] if name in self.held else None

    def append(
        self,
        system: SystemRecord,
        commit: CommitRecord,
        changed: Sequence[NodeColumns],
        everything: Callable[[], Sequence[NodeColumns]],
    ) -> None:
        """Write a commit; one that is the head already is there."""
        if system.name in self.held and self.held[system.name][0].uuid == system.uuid:
            kept = self.states(system.name)
            if kept and kept[-1].commit == commit:
                return
        if commit.parent is None:
            self.check_new(system.name)
            self.held[system.name] = (system, [])
        kept = self.states(system.name)
        if self.held[system.name][0].uuid != system.uuid:
            raise ConflictError(f"{system.name!r} is another system")
        head = kept[-1].commit.number if kept else None
        if commit.parent != head:
            raise ConflictError(f"{system.name!r} is at commit {head}, not {commit.parent}")
        if commit.number != len(kept):
            raise ConflictError(f"commit {commit.number} cannot follow {head}")
        columns = [
            NodeColumns(each.attr, *map(frozen, (each.ids, each.versions, each.fixed, each.values)))
            for each in everything()
        ]
        kept.append(State(commit, columns))

    def check_new(self, name: str) -> None:
        """Raise where a system has the name."""
        if name in self.held:
            raise SpecError(f"there is a system {name!r}")

    def states(self, name: str) -> list[State]:
        """Return the commits of a system."""
        if name not in self.held:
            raise UnknownSystemError(f"no system {name!r}")
        return self.held[name][1]

    def commits(self, name: str) -> list[CommitRecord]:
        """Return a history."""
        return [state.commit for state in self.states(name)]

    def state(self, name: str, number: int | None = None) -> State:
        """Return a commit's nodes."""
        kept = self.states(name)
        number = len(kept) - 1 if number is None else number
        if not 0 <= number < len(kept):
            raise UnknownCommitError(f"{name!r} has no commit {number}")
        return kept[number]

    def fork(self, system: SystemRecord) -> None:
        """Begin a system at a commit of another."""
        self.check_new(system.name)
        assert system.origin is not None
        name, number = system.origin
        self.state(name, number)
        self.held[system.name] = (system, self.states(name)[: number + 1])
