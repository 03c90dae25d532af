"""The seams of the store: the values that cross it and the two ABCs that every backend implements.

A store has two halves that share one file and one transaction at a commit:

* `PackageStore` keeps the cache: immutable packages, found by key, stored by page. Losing one costs a
  recompute. The memory tier is a `PackageStore` that wraps another.
* `VersionStore` keeps what must never be lost: systems, their commits and their node versions.

Ownership: arrays inside a `Page` or a `NodeColumns` that was given to or returned by a store belong to the
store and are read-only; callers copy what they change. Threading: every method may be called from any
thread. Atomicity: `VersionStore.append` is all or nothing; after it returns, the commit survives ``kill -9``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

MISS, MEMORY, DISK = 0, 1, 2
"""What `Found.tier` says of each key."""


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """The packages of one bin, stacked: row i of every column is package i.

    Parameters
    ----------
    op : str
        Name of the op that computed the packages.
    keys : ndarray of uint8, shape (n, 16)
        The packages' keys.
    arrays : mapping of str to ndarray, each of shape (n, …)
        ``"y"`` and one ``"g<i>"`` a source; C-contiguous, dtype kind in ``biufc``.
    cost_ns : int
        Measured cost in nanoseconds of computing all n packages.
    src_ids, versions : ndarray of int64, shape (n, k), or None
        Node ids and versions of the sources, where they were nodes: provenance for audits, never identity.
    lineage : str or None
        JSON of what the keys were made of beside the sources: the op's version, code, parameters, arithmetic.
    tokens : ndarray of uint8, shape (n, k, 16), or None
        Each source's token, and the cotangent's where it is in the key: with `lineage`, all that the keys are made of.
        Pages of earlier versions have their first 32 bits, uint32 of shape (n, k).
    """

    op: str
    keys: NDArray[np.uint8]
    arrays: Mapping[str, NDArray[Any]]
    cost_ns: int = 0
    src_ids: NDArray[np.int64] | None = None
    versions: NDArray[np.int64] | None = None
    lineage: str | None = None
    tokens: NDArray[np.uint8] | NDArray[np.uint32] | None = None

    @property
    def n(self) -> int:
        """Number of packages in the page."""
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        """Bytes of all columns, as they lie in memory."""
        extra = sum(a.nbytes for a in (self.src_ids, self.versions, self.tokens) if a is not None)
        return self.keys.nbytes + extra + sum(a.nbytes for a in self.arrays.values())


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Where each of n keys was found: columns, so that a caller gathers page by page.

    ``page[i]`` indexes `pages`, or is -1 for a miss; ``slot[i]`` is the row in that page; ``tier[i]`` is
    `MISS`, `MEMORY` or `DISK`.
    """

    pages: list[Page]
    page: NDArray[np.int64]
    slot: NDArray[np.int64]
    tier: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Renamed:
    """Other keys for some packages of a page.

    Parameters
    ----------
    rows : ndarray of int, shape (m,)
        Which of them, ascending.
    keys : ndarray of uint8, shape (m, 16)
    tokens : ndarray of uint8, shape (m, k, 16)
    lineage : str
        What the page of these packages says from then on.
    kept : mapping of str to int
        Why the others keep their keys, and how many.
    """

    rows: NDArray[np.intp]
    keys: NDArray[np.uint8]
    tokens: NDArray[np.uint8]
    lineage: str
    kept: Mapping[str, int]


class PackageStore(ABC):
    """Packages by key, in pages."""

    @abstractmethod
    def find(self, keys: Sequence[bytes]) -> Found:
        """Look up 16-byte keys in one batch. A damaged page is a miss and is counted, never raised."""

    @abstractmethod
    def put(self, page: Page) -> None:
        """Take a page of packages. Keys that the store holds already are left as they are."""

    def touch(self, keys: Sequence[bytes], counts: Sequence[int]) -> None:  # noqa: B027
        """Hear that packages were used so often in a tier above: eviction goes by it. Optional."""

    def reject(self, page: Page) -> None:  # noqa: B027
        """Hear that a page it found is not what an op gives: what is put for its keys now replaces it. Optional."""

    def forget(self) -> None:  # noqa: B027
        """Hold nothing in memory that the store may not have any more."""

    @abstractmethod
    def flush(self) -> None:
        """Return when everything put so far is on disk (where there is one)."""

    @abstractmethod
    def close(self) -> None:
        """Flush, and release everything. Closing twice is allowed."""

    @abstractmethod
    def stats(self) -> dict[str, float]:
        """Counters since opening, and sizes now.

        puts, packages, pages, bytes_memory, bytes_disk, collisions, corrupt, and whatever else the store counts.
        """


@dataclass(frozen=True, slots=True)
class SystemRecord:
    """A system as the store knows it. `spec` is JSON-able; `origin` is (name, commit number) for a fork."""

    name: str
    uuid: str
    spec: Mapping[str, Any] | None = None
    origin: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """One commit of a system. `number` counts from 0 within the system's history; `parent` is None for the first.

    `stress` and `residual_norm` are of the state that the commit consumed (its parent's), or None where no
    job measured them. `digest` is the hex digest of the state that the commit made. `changed` counts nodes.
    """

    number: int
    parent: int | None
    changed: int
    stress: float | None
    residual_norm: float | None
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class NodeColumns:
    """Rows of one arena: n nodes that share attribute, shape and dtype.

    Parameters
    ----------
    attr : str
        Attribute name (``"theta"`` or ``"p"``).
    ids, versions : ndarray of int64, shape (n,)
    fixed : ndarray of bool, shape (n,)
    values : ndarray, shape (n, …)
    """

    attr: str
    ids: NDArray[np.int64]
    versions: NDArray[np.int64]
    fixed: NDArray[np.bool_]
    values: NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """All nodes of a system at one commit, one `NodeColumns` an arena, rows by ascending id."""

    commit: CommitRecord
    columns: list[NodeColumns] = field(default_factory=list)


class VersionStore(ABC):
    """Systems, their commits, and every version of every node."""

    @abstractmethod
    def systems(self) -> list[SystemRecord]:
        """All systems, by name."""

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Names of all systems, in order, read some at a time: nothing is held between two, and there may be many.

        Of systems that come or go meanwhile some are left out.
        """

    @abstractmethod
    def system(self, name: str) -> SystemRecord | None:
        """The system of that name, or None."""

    @abstractmethod
    def append(
        self,
        system: SystemRecord,
        commit: CommitRecord,
        changed: Sequence[NodeColumns],
        everything: Callable[[], Sequence[NodeColumns]],
    ) -> None:
        """Write one commit and its changed rows in one transaction, with all packages put so far.

        The first commit of a system creates it. Raises `ConflictError` when `commit.parent` is not the
        system's head any more, and `SpecError` when a first commit meets a system of that name.

        `everything` returns all rows of the system at this commit; the store calls it when it wants a
        keyframe, so that `state` never reads more than a bounded number of commits.
        """

    @abstractmethod
    def commits(self, name: str) -> list[CommitRecord]:
        """The history of a system, oldest first, its origin's commits included for a fork."""

    @abstractmethod
    def state(self, name: str, number: int | None = None) -> State:
        """All nodes at a commit (the last one by default). Raises `UnknownSystemError`, `UnknownCommitError`."""

    @abstractmethod
    def fork(self, system: SystemRecord) -> None:
        """Create a system whose history is `system.origin`'s up to that commit; no page is copied."""
