"""The ABCs that every backend implements; the values that cross with them are `whiteboard.records`.

A store has two halves that share one file and one transaction at a commit:

* `PackageStore` keeps the cache: immutable packages, found by key, stored by page. Losing one costs a
  recompute. The memory tier is a `PackageStore` that wraps another.
* `VersionStore` keeps what must never be lost: systems, their commits and their node versions.

`Store` is both, with who may write, and with all that is asked of a store beside calls and commits.

Ownership: arrays inside a `Page` or a `NodeColumns` that was given to or returned by a store belong to the
store and are read-only; callers copy what they change. Threading: every method may be called from any
thread. Atomicity: `VersionStore.append` is all or nothing; after it returns, the commit survives ``kill -9``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

import numpy as np

from whiteboard.errors import ParamError
from whiteboard.records.claims import Holder
from whiteboard.records.packages import Found, Page, PageSummary, Sampled
from whiteboard.records.systems import CommitRecord, NodeColumns, NodeValues, State, SystemRecord

if TYPE_CHECKING:
    from whiteboard.records.reports import Evicted, GcReport, Removed, VerifyReport

Persist: TypeAlias = Literal["always", "never", "auto"]
"""Which packages are kept on disk; ``"auto"``: those that cost more to compute than to load."""

Durability: TypeAlias = Literal["normal", "full"]
"""What commits survive: ``kill -9``, or a power loss too."""


class Claim(ABC):
    """A bin that the caller computes, for all processes on one store.

    Who has claimed waits for nobody before all of it is put or released. A holder that dies, however it does, holds
    nothing any more, and nobody inherits a claim by a fork.

    Attributes
    ----------
    found, held, mine, left : ndarray of int64
        Positions of the keys that were asked for, each in one of them: those whose packages are there by now, those
        that a living other computes, those that are the caller's from now on, and those that are nobody's.
    """

    def __init__(self) -> None:
        self.found = self.held = self.mine = self.left = np.empty(0, np.int64)

    @abstractmethod
    def take(
        self, keys: Sequence[bytes], most: int, *, seconds: float | None = None, instead: Iterable[int] = ()
    ) -> None:
        """Look what is there, and claim what nobody else computes, in one transaction.

        Parameters
        ----------
        keys : sequence of bytes
            Each once, of 16 bytes.
        most : int
            How many to claim: the first ones.
        seconds : float, optional
            How long computing them will take, where that is known.
        instead : iterable of int
            Numbers of holders (`Holder.number`) that hold nothing any more, as they are stopped.
        """

    @abstractmethod
    def release(self) -> None:
        """Give back what was not put. Releasing twice is allowed."""


class PackageStore(ABC):
    """Packages by key, in pages."""

    @abstractmethod
    def find(self, keys: Sequence[bytes]) -> Found:
        """Look up 16-byte keys in one batch. A damaged page is a miss and is counted, never raised."""

    def find_one(self, key: bytes) -> tuple[Page, int] | None:  # noqa: ARG002
        """The page and row of a package that is found at once, and counted so, or None: then `find` tells. Optional."""
        return None

    def find_below(self, key: bytes) -> Found:
        """As `find`, of one key that `find_one` has just not found."""
        return self.find([key])

    @abstractmethod
    def put(self, page: Page) -> None:
        """Take a page of packages. Keys that the store holds already are left as they are."""

    def claim(self) -> Claim | None:
        """Return a claim that has claimed nothing yet; None where no other process can put anything. Optional."""
        return None

    def settle(self, pages: Sequence[Page], claim: Claim) -> None:
        """Put pages of what was claimed: they are on disk when this returns.

        Where they are all that is left of the claim, it is given back in the transaction that writes them.
        """
        for page in pages:
            self.put(page)
        self.flush()
        claim.release()

    def holders(self, keys: Sequence[bytes]) -> list[Holder]:  # noqa: ARG002
        """Who else computes some keys at this moment. Optional."""
        return []

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
        system's head any more, and `SpecError` when a first commit meets another system of that name. A commit
        that is the head already, to the bit, was written by a call that was not told so: it is there, and that is all.

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


@dataclass(frozen=True, slots=True)
class Options:
    """How a store is opened; see `whiteboard.storage.open_store`.

    Raises
    ------
    ParamError
        A field has a value that it cannot have.
    """

    memory_bytes: int = 256 * 2**20
    max_bytes: int | None = None
    persist: Persist = "always"
    durability: Durability = "normal"
    readonly: bool = False

    def __post_init__(self) -> None:
        said = {"persist": get_args(Persist), "durability": get_args(Durability), "readonly": (False, True)}
        for name, choices in said.items():
            if getattr(self, name) not in choices:
                message = f"{name} must be one of {', '.join(map(repr, choices))}, got {getattr(self, name)!r}"
                raise ParamError(message)
        for name in ("memory_bytes", "max_bytes"):
            value = getattr(self, name)
            unbounded = name == "max_bytes" and value is None
            if not unbounded and (type(value) is not int or value < 0):
                message = f"{name} must be an int of at least 0, got {value!r}"
                raise ParamError(message)


class Store(ABC):
    """One open store. Close it, or use it as a context manager.

    Attributes
    ----------
    packages : PackageStore
    versions : VersionStore
    options : Options
    """

    packages: PackageStore
    versions: VersionStore
    options: Options

    @abstractmethod
    def __str__(self) -> str:
        """Where it lies, as people write it."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """What the store is, what is in it, by op, what left it since it was made, and how this opening is set."""

    @abstractmethod
    def claim(self, name: str, *, takeover: bool = False) -> None:
        """Become the one writer of a system, or stay it, until the store is closed.

        Raises
        ------
        ConflictError
            Another writer lives, or is on another host, and `takeover` is false; the message names it.
        """

    @abstractmethod
    def claimed(self, name: str) -> AbstractContextManager[None]:
        """Be the writer of a system while a block runs, and afterwards if this store was it before."""

    @abstractmethod
    def gc(self, *, max_bytes: int | None = None, older_than: float | None = None, dry_run: bool = False) -> GcReport:
        """Evict the packages used longest ago and give the space back; see `Board.gc`."""

    @abstractmethod
    def verify(self, *, sample: float = 1.0, repair: bool = False, seed: int = 0) -> VerifyReport:
        """Read every commit and a part of the pages, and say what is damaged; see `Board.verify`."""

    @abstractmethod
    def forget(
        self,
        *,
        op: str | None = None,
        version: int | None = None,
        older_than: float | None = None,
        key: bytes | str | None = None,
        dry_run: bool = False,
    ) -> Evicted:
        """Delete the packages for which everything that is given holds; see `Board.forget`."""

    @abstractmethod
    def remove(self, name: str, *, dry_run: bool = False) -> Removed:
        """Delete a system, whose writer the caller is, with its commits; see `Board.remove`."""

    @abstractmethod
    def summaries(self, op: str) -> Iterator[PageSummary]:
        """Every readable page of an op, the newest first; one is in memory at a time."""

    @abstractmethod
    def pages(self, op: str, *, sources: bool = True, grads: bool = True) -> Iterator[Sampled]:
        """Every package of an op that is found by its key, the oldest first, with provenance; one page is in memory.

        Sources that are kept, and gradients, are left out where they are not wanted. A page that cannot be read comes
        without its packages.
        """

    @abstractmethod
    def holder(self, key: bytes) -> tuple[PageSummary, int] | None:
        """The page that a key's package lies in, and its row there; None where there is none."""

    @abstractmethod
    def sampled(self, sample: float, seed: int) -> tuple[Iterator[Sampled], list[NodeValues]]:
        """A part of all packages, 0 to 1, read as they are asked for, and the values of the nodes they came from."""

    @abstractmethod
    def close(self) -> None:
        """Flush and close both halves, and let others write the systems. Closing twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
