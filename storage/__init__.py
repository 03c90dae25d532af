"""The store: packages and node versions in one file, a memory tier in front of it.

The rooms, from below: `page` (bytes), `sql` (what backends share), a folder a backend (`sqlite`), `opening` (any of
them), `cache` (packages), `commits` (systems), `transfer` (between stores), `upkeep`. `base` has the ABCs, `stores`
puts one store together. Imports nothing of Whiteboard but errors, records and concurrency. Adding a backend is a
folder, its line in `opening`, and its line in `BACKENDS` here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from whiteboard.errors import StoreError
from whiteboard.storage.base import Durability, Options, Persist
from whiteboard.storage.cache.admission import Admission
from whiteboard.storage.cache.memory import MemoryTier
from whiteboard.storage.cache.packages import SqlitePackages
from whiteboard.storage.cache.write_behind import WriteBehind
from whiteboard.storage.commits.versions import SqliteVersions
from whiteboard.storage.commits.writers import Writers
from whiteboard.storage.opening import open_database
from whiteboard.storage.sql.location import Location, StoreUrl, locate
from whiteboard.storage.stores import Stores

_log = logging.getLogger(__name__)

__all__ = ["BACKENDS", "Options", "Stores", "open_store"]


def open_store(
    url: StoreUrl,
    *,
    memory_bytes: int = 256 * 2**20,
    max_bytes: int | None = None,
    persist: Persist = "always",
    durability: Durability = "normal",
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
    store = backend(location, options)
    _log.info("opened %s%s", store, " to read" if readonly else "")
    return store


def _opened(location: Location, options: Options) -> Stores:
    if options.readonly and location.path is None and location.server is None:
        message = "readonly=True opens a file that exists; ':memory:' is always new"
        raise StoreError(message)
    database = open_database(location, readonly=options.readonly, durability=options.durability)
    admission = Admission() if options.persist == "auto" else None
    bounds = WriteBehind()
    if options.max_bytes is not None:
        # A flush has to find room for itself inside the bound.
        bounds = replace(bounds, nbytes=min(bounds.nbytes, max(options.max_bytes // 4, 1)))
    neighbours = options.memory_bytes > 0
    packages = SqlitePackages(database, bounds, admission=admission, max_bytes=options.max_bytes, neighbours=neighbours)
    tier = MemoryTier(packages, options.memory_bytes, keep=options.persist != "never" and not options.readonly)
    writers = Writers(database)
    return Stores(tier, SqliteVersions(database, packages, writers), database, writers, options, admission)


BACKENDS: Final[Mapping[str, Callable[[Location, Options], Stores]]] = {"sqlite": _opened, "postgresql": _opened}
"""Dialect name to opener: a new backend is one file and one line here."""
