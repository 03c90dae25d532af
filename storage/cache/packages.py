"""The package cache in SQLite: found by integer hash, checked by full key, written behind in large transactions."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from whiteboard.concurrency.alarm import Alarm
from whiteboard.concurrency.at_fork import watch
from whiteboard.errors import ClosedError, CorruptPackageError, ReadOnlyError, StoreError, WhiteboardError
from whiteboard.records.claims import Holder
from whiteboard.records.packages import DISK, MEMORY, NOT_FOUND, Found, Page
from whiteboard.storage.base import Claim, PackageStore
from whiteboard.storage.cache.admission import Admission
from whiteboard.storage.cache.claims import ClaimLostError, SqlClaim, holders
from whiteboard.storage.cache.encoding import encoded, uses_of
from whiteboard.storage.cache.lookup import Gathering, Lookup, Wanted
from whiteboard.storage.cache.write_behind import Pending, WriteBehind
from whiteboard.storage.page.codec import MOST_BYTES
from whiteboard.storage.page.format import check_page
from whiteboard.storage.page.grouping import fits, owned
from whiteboard.storage.sql.backend import Connection, Database
from whiteboard.storage.sql.page_row import HASH_BITS, hashes_of
from whiteboard.storage.sql.rows import Batch, Broken, count_packages, is_empty

_log = logging.getLogger(__name__)

# From so many keys on, to ask first whether there is any package at all costs nothing.
_MANY = 32

# Evicting to a little less than the bound makes room for several flushes at a time.
_EVICT_TO = 0.9

_MOST_SEEN = 1024

_FIRST_RETRY_SECONDS = 0.1


@dataclass(slots=True)
class Counters:
    """What a store counted since it was opened."""

    puts: int = 0
    collisions: int = 0
    corrupt: int = 0
    oversized: int = 0
    dropped: int = 0
    refused: int = 0
    evicted_pages: int = 0
    evicted_packages: int = 0
    evicted_bytes: int = 0


class SqlitePackages(PackageStore):
    """Packages in the tables ``page``, ``recent`` and ``package`` of one database.

    Parameters
    ----------
    database : Database
    bounds : WriteBehind
    admission : Admission, optional
        Decides which packages go to disk; without it all do.
    max_bytes : int, optional
        Bound on the file, kept by evicting before a flush.
    hash_bits : int
        Bits of a key that the index holds; tests shorten it to force collisions.
    neighbours : bool
        Whether packages that lie beside one that was asked for are worth reading: a page that a second key leads to is
        read whole, for a tier in memory to hold it.
    """

    fork_rank = 1

    def __init__(
        self,
        database: Database,
        bounds: WriteBehind | None = None,
        *,
        admission: Admission | None = None,
        max_bytes: int | None = None,
        hash_bits: int = HASH_BITS,
        neighbours: bool = True,
    ) -> None:
        self.database = database
        self.bounds = bounds or WriteBehind()
        self.admission = admission
        self.max_bytes = max_bytes
        self.counters = Counters()
        self._bits = hash_bits
        self._neighbours = neighbours
        self._seen: set[int] = set()
        self._lock = threading.RLock()
        self._flushing = threading.RLock()
        self.fork_locks = (self._flushing, self._lock)
        self._pending = Pending()
        self._used: Counter[int] = Counter()
        self._touched: Counter[bytes] = Counter()
        self._broken_pages: set[int] = set()
        self._broken_hashes: set[int] = set()
        self._timer: Alarm | None = None
        self._retry_at = self._pause = 0.0
        self._closed = False
        watch(self)

    # -- reading

    def find(self, keys: Sequence[bytes]) -> Found:
        return self.find_below(keys[0]) if len(keys) == 1 else self._find_many(keys)

    def _find_many(self, keys: Sequence[bytes]) -> Found:
        found = Gathering(len(keys))
        with self._lock:
            missing = self._pending.find(keys, found)
        if len(missing):
            try:
                self._find_on_disk(keys, missing, found)
            except CorruptPackageError:
                # SQLite's own structure is damaged: everything not found yet is a miss.
                self._count(corrupt=1)
        return found.done()

    def find_below(self, key: bytes) -> Found:
        # At the cost of a few statements, and of a block a column: what is no miss, and not what was looked for, is
        # left to a lookup of many, as is a page that was seen before.
        if self._pending.pages:
            with self._lock:
                if (here := self._pending.find_one(key)) is not None:
                    return Found.one(*here, MEMORY)
        hashed = int.from_bytes(key[:8], "big") >> (64 - self._bits)
        started = 0 if self.admission is None else time.perf_counter_ns()
        try:
            place = self.database.look(hashed, self._seen if self._neighbours else None)
        except CorruptPackageError:
            place = False
        if place is True:
            return NOT_FOUND
        if place is False:
            return self._find_many([key])
        page_id, page = place
        keys, row = page.keys.tobytes(), 0
        if keys != key:
            row, rest = divmod(keys.find(key), len(key))
            if row < 0 or rest:
                return self._find_many([key])
        if self.admission is not None:
            self.admission.loaded(page, time.perf_counter_ns() - started)
        with self._lock:
            self._used[page_id] += 1
            if self._neighbours:
                if len(self._seen) > _MOST_SEEN:
                    self._seen = set()
                self._seen.add(page_id)
        return Found.one(page, row, DISK)

    def _find_on_disk(self, keys: Sequence[bytes], missing: NDArray[np.intp], found: Gathering) -> None:
        wanted = Wanted.of([keys[i] for i in missing.tolist()], self._bits)
        started = time.perf_counter_ns()

        def look(connection: Connection) -> Lookup | None:
            # No lock is taken in here: a fork takes them first, and then waits for those who read.
            if len(missing) >= _MANY and is_empty(connection):
                return None  # nothing to look for, at the cost of one question
            return Lookup.run(connection, wanted, self._bits)

        lookup = self.database.glance(look)
        if lookup is None:
            return
        load_ns = (time.perf_counter_ns() - started) / len(missing)
        here = np.flatnonzero(lookup.page >= 0)
        found.add_all(lookup.found, lookup.page[here], missing[here], lookup.slot[here], DISK)
        if self.admission is not None:
            for page in lookup.found:
                self.admission.loaded(page, load_ns)
        if damaged := len(lookup.broken) + len(lookup.wrong):
            _log.warning("%d packages or pages of %s are damaged, and are misses", damaged, self.database.location)
        with self._lock:
            self._used.update(lookup.uses)
            self._broken_pages |= lookup.broken
            self._broken_hashes.update(wanted.hashes[lookup.wrong].tolist())
            self.counters.collisions += len(lookup.collided)
            self.counters.corrupt += len(lookup.broken) + len(lookup.wrong)

    # -- writing

    def put(self, page: Page) -> None:
        if self._add(page):
            self._flush_when_due()

    def _add(self, page: Page) -> bool:
        """Take a page, and say whether it is time to write."""
        if self.database.readonly:
            message = f"the store {self.database.location} was opened with readonly=True: nothing can be put"
            raise ReadOnlyError(message)
        check_page(page)
        self.database.check_open()
        if page.sources and not fits(page):
            page = replace(page, sources=None, alive=None)
        if not fits(page):
            self._count(oversized=page.n)
            message = f"a package of op {page.op!r} is larger than {MOST_BYTES >> 30} GB; such packages are not stored"
            _log.warning(message)
            warnings.warn(message, RuntimeWarning, stacklevel=3)
            return False
        if self.admission is not None and not self.admission.admits(page):
            self._count(refused=page.n)
            return False
        with self._lock:
            pending, bounds = self._pending, self.bounds
            if pending.nbytes > 2 * bounds.nbytes:
                self.counters.dropped += page.n
            else:
                self.counters.puts += page.n
                pending.add(owned(page))
            full = pending.full(bounds)
            if not full and self._timer is None and pending.rows:
                self._start_timer(bounds.seconds)
        return full

    # -- claims

    def claim(self) -> Claim | None:
        locks = self.database.locks
        return None if locks is None else SqlClaim(self.database, locks, self._broken, self._bits)

    def settle(self, pages: Sequence[Page], claim: Claim) -> None:
        for page in pages:
            self._add(page)
        assert isinstance(claim, SqlClaim)  # it is of this store
        self._flush_when_due(claim, sum(page.n for page in pages))

    def holders(self, keys: Sequence[bytes]) -> list[Holder]:
        locks = self.database.locks
        return [] if locks is None else holders(self.database, locks, keys, self._bits)

    def _broken(self) -> Broken:
        """Return what was found damaged."""
        with self._lock:
            return Broken(frozenset(self._broken_pages), frozenset(self._broken_hashes))

    def touch(self, keys: Sequence[bytes], counts: Sequence[int]) -> None:
        with self._lock:
            for key, count in zip(keys, counts, strict=True):
                self._touched[key] += count

    def reject(self, page: Page) -> None:
        with self._lock:
            self._broken_hashes.update(hashes_of(page.keys, self._bits).tolist())
            self.counters.corrupt += 1

    def flush(self) -> None:
        if self.database.readonly:
            return
        self.flushed(lambda batch: self.database.write(batch.write), in_parts=True)

    def flushed(self, write: Callable[[Batch], None], claim: SqlClaim | None = None, *, in_parts: bool = False) -> None:
        """Give `write` all that is pending, encoded: it is forgotten when that returns, and kept when it raises.

        What is claimed is looked for no more: nobody else computes it. In parts, `write` is called for none of nothing,
        and what comes next is encoded meanwhile.
        """
        with self._flushing:
            with self._lock:
                self._cancel_timer()
                pages = list(self._pending.pages)
                used, touched = self._used.copy(), self._touched.copy()
            broken = self._broken()
            started = time.perf_counter()
            claimed = np.empty(0, np.int64) if claim is None else claim.hashes
            uses = uses_of(self.database, self._bits, used, touched)
            with closing(encoded(self.database, self._bits, pages, broken, claimed)) as rows:
                for batch in Batch.parts(rows, broken, uses) if in_parts else (Batch(list(rows), broken, uses),):
                    self._make_room(batch.nbytes)
                    write(batch)
            if pages:
                _log.debug("wrote %d bins in %.1f ms", len(pages), 1e3 * (time.perf_counter() - started))
            with self._lock:
                self._pending.remove(len(pages))
                self._used -= used
                self._touched -= touched
                self._broken_pages -= broken.pages
                self._broken_hashes -= broken.hashes
            self._measure_loads(pages)

    @property
    def pending(self) -> int:
        """Packages, and counts of use, that wait to be written."""
        return self._pending.rows + len(self._used) + len(self._touched)

    def close(self) -> None:
        try:
            if not self._closed:
                self.flush()
        except ClosedError:
            pass
        except WhiteboardError as error:
            if not (isinstance(error, StoreError) and error.passing):
                self._release()
            raise
        self._release()

    def _release(self) -> None:
        """Let go of everything; after an interrupt `close` comes here again."""
        self._closed = True
        with self._lock:
            self._cancel_timer()
            self._pending.clear()
        self.database.close()

    def stats(self) -> dict[str, float]:
        with self.database.read() as connection:
            packages = count_packages(connection)
            (pages,) = connection.exec_driver_sql("SELECT count(*) FROM page WHERE id >= 0").one()
        with self._lock:
            return {
                **asdict(self.counters),
                "packages": packages + len(self._pending),
                "pages": pages + len(self._pending.pages),
                "bytes_memory": self._pending.nbytes,
                "bytes_pending": self._pending.nbytes,
                "bytes_disk": self.database.bytes_on_disk(),
            }

    def before_fork(self) -> None:
        """Nothing more than holding the locks."""

    def after_fork(self, *, child: bool) -> None:
        if child:
            # They are the parent's to write.
            self._pending.clear()
            self._used.clear()
            self._touched.clear()
            self._timer = None

    def _make_room(self, nbytes: int) -> None:
        """Evict before the file would grow beyond its bound."""
        if self.max_bytes is None or self.database.live_bytes() + nbytes <= self.max_bytes:
            return
        from whiteboard.storage.cache.eviction import evict  # of stores with a bound

        evicted = evict(self.database, max(0, int(_EVICT_TO * self.max_bytes) - nbytes))
        if evicted.packages:
            _log.info("evicted %d packages, %d bytes, used longest ago", evicted.packages, evicted.nbytes)
        self._count(evicted_pages=evicted.pages, evicted_packages=evicted.packages, evicted_bytes=evicted.nbytes)

    def _measure_loads(self, pages: Iterable[Page]) -> None:
        """Load one page of each kind that was never loaded, so that its cost is known."""
        if self.admission is None:
            return
        for page in pages:
            if page.n and self.admission.needs_load(page):
                keys = [row.tobytes() for row in page.keys]
                with suppress(StoreError):
                    self._find_on_disk(keys, np.arange(page.n), Gathering(page.n))

    def _flush_when_due(self, claim: SqlClaim | None = None, packages: int = 0) -> None:
        """Flush for a caller who did not ask for it: a failure is told once and tried again later."""
        if time.monotonic() < self._retry_at:
            return
        try:
            if claim is None:
                self.flush()
            else:
                try:
                    self.flushed(lambda batch: self.database.write(partial(_settled, batch, claim, packages)), claim)
                except ClaimLostError:  # then somebody may have put what it was for
                    self.flush()
                claim.done(packages)
            self._pause = 0.0
        except ClosedError:
            # The store was closed, and flushed, while the timer ran.
            return
        except StoreError as error:
            first = not self._pause
            # Soon again, and then less and less soon: a server that was started anew is there after a second.
            self._pause = min(max(_FIRST_RETRY_SECONDS, 2 * self._pause), self.bounds.seconds)
            self._retry_at = time.monotonic() + self._pause
            with self._lock:
                if self._timer is None and self._pending.rows:
                    self._start_timer(self._pause)
            message = f"packages are kept in memory, as they cannot be written: {error}"
            _log.warning(message)
            if first:
                warnings.warn(message, RuntimeWarning, stacklevel=3)

    def _start_timer(self, seconds: float) -> None:
        # While the interpreter ends no thread can be started, and the store is about to be closed.
        with suppress(RuntimeError):
            self._timer = Alarm(seconds, self._flush_when_due)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, count in more.items():
                setattr(self.counters, name, getattr(self.counters, name) + count)


def _settled(batch: Batch, claim: SqlClaim, packages: int, connection: Connection) -> None:
    claim.settle(connection, packages)
    batch.write(connection)
