"""The store: packages and node versions in one file, a memory tier in front of it."""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.util
import os
import sqlite3
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from whiteboard.errors import ClosedError, ParamError, StoreError, WhiteboardError
from whiteboard.storage.base import PackageStore, VersionStore
from whiteboard.storage.cache.admission import Admission
from whiteboard.storage.cache.memory import MemoryTier
from whiteboard.storage.cache.packages import SqlitePackages
from whiteboard.storage.cache.write_behind import WriteBehind
from whiteboard.storage.commits.claims import Writers
from whiteboard.storage.commits.versions import SqliteVersions
from whiteboard.storage.sqlite import schema
from whiteboard.storage.sqlite.database import Database
from whiteboard.storage.sqlite.location import Location, StoreUrl, locate
from whiteboard.storage.sqlite.rows import by_op, evicted

__all__ = ["BACKENDS", "Options", "Stores", "open_store"]

_CHOICES: Final = {"persist": ("always", "never", "auto"), "durability": ("normal", "full")}


@dataclass(frozen=True, slots=True)
class Options:
    """How a store is opened; see `open_store`."""

    memory_bytes: int = 256 * 2**20
    max_bytes: int | None = None
    persist: str = "always"
    durability: str = "normal"
    readonly: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                message = f"{name} must be one of {', '.join(map(repr, choices))}, got {getattr(self, name)!r}"
                raise ParamError(message)
        for name in ("memory_bytes", "max_bytes"):
            value = getattr(self, name)
            unbounded = name == "max_bytes" and value is None
            if not unbounded and (type(value) is not int or value < 0):
                message = f"{name} must be an int of at least 0, got {value!r}"
                raise ParamError(message)


class Stores:
    """The two halves of one open store. Close it, or use it as a context manager.

    Attributes
    ----------
    packages : PackageStore
    versions : VersionStore
    writers : Writers
        Who may write which system.
    database : Database
        For `whiteboard.storage.upkeep.maintenance`.
    pid : int
        The process that opened it.
    """

    def __init__(
        self,
        packages: PackageStore,
        versions: VersionStore,
        database: Database,
        writers: Writers,
        options: Options,
        admission: Admission | None = None,
    ) -> None:
        self._admission = admission
        self.packages = packages
        self.versions = versions
        self.database = database
        self.writers = writers
        self.options = options
        self.pid = os.getpid()
        _OPEN.add(self)

    @property
    def path(self) -> Path | None:
        """The file, None for ``:memory:``."""
        return self.database.location.path

    @property
    def url(self) -> str:
        """The SQLAlchemy URL."""
        return self.database.location.url

    def info(self) -> dict[str, Any]:
        """What the store is, what is in it, by op, what left it since it was made, and how this opening is set."""
        with self.database.read() as connection:
            ops, gone = by_op(connection), evicted(connection)
        return {
            "path": str(self.database.location),
            "schema": schema.HEAD,
            "sqlite": sqlite3.sqlite_version,
            "readonly": self.options.readonly,
            "persist": self.options.persist,
            "durability": self.options.durability,
            "memory_bytes": self.options.memory_bytes,
            "max_bytes": self.options.max_bytes,
            "systems": sum(1 for _ in self.versions.names()),
            "ops": ops,
            "evicted": gone,
            "admission": [] if self._admission is None else self._admission.info(),
            **self.packages.stats(),
        }

    def close(self) -> None:
        """Flush and close both halves, and let others write the systems. Closing twice is allowed."""
        try:
            if not self.database.closed:
                try:
                    with suppress(ClosedError):  # of an earlier call, which could not close everything
                        self.writers.release()
                finally:
                    self.packages.close()
        except WhiteboardError:
            _OPEN.discard(self)
            raise
        _OPEN.discard(self)

    def __enter__(self) -> Stores:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_OPEN: weakref.WeakSet[Stores] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Keep what this process put and never flushed; a store that was inherited is its parent's to close."""
    for stores in list(_OPEN):
        try:
            if stores.pid == os.getpid():
                stores.close()
            else:
                stores.packages.flush()
        except StoreError as error:
            warnings.warn(f"packages that were not flushed are lost: {error}", RuntimeWarning, stacklevel=1)


def _close_all_of_a_worker(_: object = None) -> None:
    """Close at the end of a child of `multiprocessing`, which ends by ``os._exit`` and so calls no `atexit`."""
    multiprocessing.util.Finalize(None, _close_all, exitpriority=0)


# Finalizers are forgotten at a fork, and then these are called; what is spawned imports this file by itself.
multiprocessing.util.register_after_fork(_OPEN, _close_all_of_a_worker)
if multiprocessing.parent_process() is not None:
    _close_all_of_a_worker()


def open_store(
    url: StoreUrl,
    *,
    memory_bytes: int = 256 * 2**20,
    max_bytes: int | None = None,
    persist: str = "always",
    durability: str = "normal",
    readonly: bool = False,
) -> Stores:
    """Open a store, and create it where there is none.

    Parameters
    ----------
    url : str or os.PathLike
        A path, ``":memory:"``, or an SQLAlchemy URL (``sqlite:///PATH``).
    memory_bytes : int
        Bound on the memory tier.
    max_bytes : int, optional
        Bound on the file; packages that were used longest ago go first, node versions never.
    persist : {"always", "never", "auto"}
        Which packages are kept on disk; ``"auto"``: those that cost more to compute than to load. Commits always are.
    durability : {"normal", "full"}
        Commits survive ``kill -9``; with ``"full"`` also a power loss.
    readonly : bool
        Write nothing and take no write lock. Packages that are put stay in memory; a commit raises `ReadOnlyError`.

    Raises
    ------
    StoreError, SchemaError, ReadOnlyError
        What lies there cannot be opened; it is left as it was.
    ParamError
        An option has a value that it cannot have.
    """
    options = Options(memory_bytes, max_bytes, persist, durability, readonly)
    location = locate(url)
    try:
        backend = BACKENDS[location.backend]
    except KeyError:
        message = f"no storage backend for {location.backend!r} URLs: there are {', '.join(sorted(BACKENDS))}"
        raise StoreError(message) from None
    return backend(location, options)


def _open_sqlite(location: Location, options: Options) -> Stores:
    if options.readonly and location.path is None:
        message = "readonly=True opens a file that exists; ':memory:' is always new"
        raise StoreError(message)
    database = Database(location, readonly=options.readonly, durability=options.durability)
    try:
        schema.ensure(database)
    except BaseException:
        database.close()
        raise
    admission = Admission() if options.persist == "auto" else None
    bounds = WriteBehind()
    if options.max_bytes is not None:
        # A flush has to find room for itself inside the bound.
        bounds = replace(bounds, nbytes=min(bounds.nbytes, max(options.max_bytes // 4, 1)))
    packages = SqlitePackages(database, bounds, admission=admission, max_bytes=options.max_bytes)
    tier = MemoryTier(packages, options.memory_bytes, keep=options.persist != "never" and not options.readonly)
    writers = Writers(database)
    return Stores(tier, SqliteVersions(database, packages, writers), database, writers, options, admission)


BACKENDS: Final[Mapping[str, Callable[[Location, Options], Stores]]] = {"sqlite": _open_sqlite}
"""Dialect name to opener: a new backend is one file and one line here."""
