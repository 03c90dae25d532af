"""One open store: packages and systems over one database, with everything that is asked of them."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import multiprocessing.util
import os
import warnings
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whiteboard.errors import ClosedError, StoreError, WhiteboardError
from whiteboard.records.packages import PageSummary, Sampled
from whiteboard.records.systems import NodeValues
from whiteboard.storage.base import Options, PackageStore, Store, VersionStore
from whiteboard.storage.cache import page_listing, page_summaries
from whiteboard.storage.cache.admission import Admission
from whiteboard.storage.commits import provenance
from whiteboard.storage.commits.writers import Writers
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.rows import by_op, evicted
from whiteboard.storage.sqlite import schema

if TYPE_CHECKING:
    from whiteboard.records.reports import Evicted, GcReport, Removed, VerifyReport

_log = logging.getLogger(__name__)


class Stores(Store):
    """A `Store` over one database. What looks after it is imported where it is asked for, not when it is opened.

    Attributes
    ----------
    packages : PackageStore
    versions : VersionStore
    writers : Writers
        Who may write which system.
    database : Database
    options : Options
    pid : int
        The process that opened it.
    told : bool
        Whether a close has raised: what it said is not said again at the end of the process.
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
        self.told = False
        _OPEN.add(self)

    def __str__(self) -> str:
        return str(self.database.location)

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
            claims = connection.exec_driver_sql("SELECT count(*) FROM claim").scalar_one()
        return {
            "path": str(self.database.location),
            "schema": schema.HEAD,
            **self.database.version(),
            "readonly": self.options.readonly,
            "persist": self.options.persist,
            "durability": self.options.durability,
            "memory_bytes": self.options.memory_bytes,
            "max_bytes": self.options.max_bytes,
            "systems": sum(1 for _ in self.versions.names()),
            "ops": ops,
            "evicted": gone,
            "claims": claims,
            "admission": [] if self._admission is None else self._admission.info(),
            **self.packages.stats(),
        }

    def claim(self, name: str, *, takeover: bool = False) -> None:
        self.writers.claim(name, takeover=takeover)

    def claimed(self, name: str) -> AbstractContextManager[None]:
        return self.writers.claimed(name)

    def gc(self, *, max_bytes: int | None = None, older_than: float | None = None, dry_run: bool = False) -> GcReport:
        from whiteboard.storage.upkeep.gc import gc

        return gc(self.database, max_bytes=max_bytes, older_than=older_than, dry_run=dry_run)

    def verify(self, *, sample: float = 1.0, repair: bool = False, seed: int = 0) -> VerifyReport:
        from whiteboard.storage.upkeep.verify import verify

        return verify(self.database, sample=sample, repair=repair, seed=seed)

    def forget(
        self,
        *,
        op: str | None = None,
        version: int | None = None,
        older_than: float | None = None,
        key: bytes | str | None = None,
        dry_run: bool = False,
    ) -> Evicted:
        from whiteboard.storage.upkeep.remove import forget

        return forget(self.database, op=op, version=version, older_than=older_than, key=key, dry_run=dry_run)

    def remove(self, name: str, *, dry_run: bool = False) -> Removed:
        from whiteboard.storage.upkeep.remove import remove

        return remove(self.database, name, dry_run=dry_run)

    def summaries(self, op: str) -> Iterator[PageSummary]:
        return page_summaries.summaries(self.database, op)

    def pages(self, op: str, *, sources: bool = True, grads: bool = True) -> Iterator[Sampled]:
        return page_listing.pages(self.database, op, sources=sources, grads=grads)

    def holder(self, key: bytes) -> tuple[PageSummary, int] | None:
        return page_summaries.holder(self.database, key)

    def sampled(self, sample: float, seed: int) -> tuple[Iterator[Sampled], list[NodeValues]]:
        parts = provenance.sampled(self.database, sample, seed)
        values = provenance.node_values(self.database, provenance.wanted(self.database, parts))
        pages = (Sampled(part.page_id, part.op, len(part.rows), provenance.read(self.database, part)) for part in parts)
        return pages, values

    def close(self) -> None:
        """Flush and close both halves, and let others write the systems. Closing twice is allowed.

        Where nothing can be written for now, as on a full disk, what waits is kept, for another call or the end of
        the process.
        """
        try:
            if not self.database.closed:
                try:
                    with suppress(ClosedError):  # of an earlier call, which could not close everything
                        self.writers.release()
                finally:
                    self.packages.close()
        except WhiteboardError:
            self.told = True
            if self.database.closed:
                _OPEN.discard(self)
            raise
        _OPEN.discard(self)


_OPEN: weakref.WeakSet[Stores] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Keep what this process put and never flushed; a store that was inherited is its parent's to close."""
    for stores in list(_OPEN):
        told = stores.told  # by a close that raised what may be in the way still
        try:
            if stores.pid == os.getpid():
                stores.close()
            else:
                stores.packages.flush()
        except StoreError as error:
            message = f"packages that were not flushed are lost: {error}"
            _log.warning(message)
            if not told:
                warnings.warn(message, RuntimeWarning, stacklevel=1)


def _close_all_of_a_worker(_: object = None) -> None:
    """Close at the end of a child of `multiprocessing`, which ends by ``os._exit`` and so calls no `atexit`."""
    multiprocessing.util.Finalize(None, _close_all, exitpriority=0)


# Finalizers are forgotten at a fork, and then these are called; what is spawned imports this file by itself.
multiprocessing.util.register_after_fork(_OPEN, _close_all_of_a_worker)
if multiprocessing.parent_process() is not None:
    _close_all_of_a_worker()
