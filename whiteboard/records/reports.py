"""What looking after a store found, took or would take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None]
"""``progress(done, total)``, called between the steps of what takes long; an exception from it stops the work there."""


@dataclass(frozen=True, slots=True)
class Evicted:
    """What an eviction took, or would take."""

    pages: int = 0
    packages: int = 0
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class GcReport:
    """What a collection took (or would take), and the live bytes of the file before and after."""

    evicted: Evicted
    unreferenced: Evicted
    bytes_before: int
    bytes_after: int
    dry_run: bool


@dataclass(frozen=True, slots=True)
class DamagedPage:
    """A page that failed the gate; its packages are lost, and will be computed again."""

    page_id: int
    op: str
    packages: int
    why: str


@dataclass(frozen=True, slots=True)
class SystemReport:
    """The commits of one system; `damaged` gives number and reason of each that cannot be read."""

    name: str
    commits: int
    damaged: tuple[tuple[int, str], ...] = ()
    last_whole: int | None = None
    """The last commit whose state can be read, None where there is none."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` looked at and what it found."""

    pages: int = 0
    packages: int = 0
    damaged: tuple[DamagedPage, ...] = ()
    dangling: int = 0
    """Index rows of pages that are not there."""
    misplaced: int = 0
    """Index rows whose slot holds another key."""
    systems: tuple[SystemReport, ...] = ()
    structure: tuple[str, ...] = field(default=())
    """What SQLite's own check says, empty where it finds nothing."""
    unreadable: tuple[str, ...] = ()
    """Of rows beside pages and systems whose values are none that a store writes."""
    repaired: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        broken = any(system.damaged for system in self.systems)
        return not (self.damaged or self.dangling or self.misplaced or self.structure or self.unreadable or broken)


@dataclass(frozen=True, slots=True)
class Removed:
    """What was taken out with a system, or would be.

    `kept` commits stay, under the name `kept_as`, as the systems `forks` go on from them; they go with the last one.
    """

    name: str
    commits: int
    nbytes: int
    kept: int
    kept_as: str | None
    forks: tuple[str, ...]
    dry_run: bool
