"""The package cache in SQLite: found by integer hash, checked by full key, written behind in large transactions."""

from __future__ import annotations

import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import ClosedError, CorruptPackageError, ReadOnlyError, StoreError
from whiteboard.storage.admission import Admission
from whiteboard.storage.ahead import EncodeAhead
from whiteboard.storage.base import DISK, MEMORY, Found, PackageStore, Page
from whiteboard.storage.engine import Database
from whiteboard.storage.eviction import evict, live_bytes
from whiteboard.storage.fork import watch
from whiteboard.storage.index import PageIndex
from whiteboard.storage.overlap import overlapped
from whiteboard.storage.pages import check_page, encode_page, fits, merged, owned, take
from whiteboard.storage.reading import Gathering, decoded
from whiteboard.storage.rows import HASH_BITS, Batch, Broken, PageRow, hashes_of, is_empty, select_index

# From so many keys on, to ask first whether there is any package at all costs nothing.
_MANY = 32

# Evicting to a little less than the bound makes room for several flushes at a time.
_EVICT_TO = 0.9


@dataclass(frozen=True, slots=True)
class WriteBehind:
    """When pending packages are written: at so many of them, so many bytes, or so many seconds after the first."""

    rows: int = 32_768
    nbytes: int = 32 * 2**20
    seconds: float = 5.0


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
    """Packages in the tables ``page`` and ``package`` of one database.

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
    ) -> None:
        self.database = database
        self.bounds = bounds or WriteBehind()
        self.admission = admission
        self.max_bytes = max_bytes
        self.counters = Counters()
        self._bits = hash_bits
        self._lock = threading.Lock()
        self._flushing = threading.RLock()
        self._pending = PageIndex()
        self._ahead = EncodeAhead(self._row)
        self._used: Counter[int] = Counter()
        self._touched: Counter[bytes] = Counter()
        self._broken_pages: set[int] = set()
        self._broken_hashes: set[int] = set()
        self._timer: threading.Timer | None = None
        self._retry_at = 0.0
        self._closed = False
        watch(self)

    # -- reading

    def find(self, keys: Sequence[bytes]) -> Found:
        found = Gathering(len(keys))
        with self._lock:
            places = self._pending.places(keys)
            held = np.flatnonzero(places >= 0)
            if len(held):
                numbers, rows = self._pending.split(places[held])
                for number in np.unique(numbers).tolist():
                    mine = numbers == number
                    found.add(self._pending.pages[number], held[mine], rows[mine], MEMORY)
        missing = np.flatnonzero(places < 0)
        if len(missing):
            try:
                self._find_on_disk(keys, missing, found)
            except CorruptPackageError:
                # SQLite's own structure is damaged: everything not found yet is a miss.
                self._count(corrupt=1)
        return found.done()

    def _find_on_disk(self, keys: Sequence[bytes], missing: NDArray[np.intp], found: Gathering) -> None:
        wanted = np.frombuffer(b"".join([keys[i] for i in missing.tolist()]), np.uint8).reshape(-1, 16)
        hashes = hashes_of(wanted, self._bits)
        started = time.perf_counter_ns()
        with self.database.read() as connection:
            if len(missing) >= _MANY and is_empty(connection):
                return  # nothing to look for, at the cost of one question
            index = select_index(connection, np.unique(hashes))
            if not len(index):
                return
            at = np.searchsorted(index[:, 0], hashes).clip(max=len(index) - 1)
            there = np.flatnonzero(index[at, 0] == hashes)
            page_of, slot_of = index[at[there], 1], index[at[there], 2]
            ids = np.unique(page_of).tolist()
            read_ns = (time.perf_counter_ns() - started) / len(there)
            # No lock is taken in here: a fork takes them first, and then waits for those who read.
            pages, page_ns = decoded(self.database, connection, ids)
        for page_id in ids:
            page, mine = pages.get(page_id), page_of == page_id
            if page is None:
                with self._lock:
                    self._broken_pages.add(page_id)
                self._count(corrupt=1)
                continue
            started = time.perf_counter_ns()
            rows, slots = there[mine], slot_of[mine]
            right = self._right(page, slots, wanted[rows], hashes[rows])
            if self.admission is not None:
                decode_ns = (page_ns + time.perf_counter_ns() - started) / len(rows)
                self.admission.loaded(page, read_ns + decode_ns)
            if right.any():
                found.add(page, missing[rows[right]], slots[right], DISK)
                with self._lock:
                    self._used[page_id] += int(right.sum())

    def _right(
        self, page: Page, slots: NDArray[np.int64], wanted: NDArray[np.uint8], hashes: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which slots hold the full key that is wanted; the others are collisions, or wrong index rows."""
        inside = (slots >= 0) & (slots < page.n)
        stored = page.keys[np.where(inside, slots, 0)] if page.n else np.zeros_like(wanted)
        right: NDArray[np.bool_] = inside & (stored == wanted).all(axis=1)
        if not right.all():
            collided = inside & ~right & (hashes_of(stored, self._bits) == hashes)
            wrong = ~right & ~collided
            with self._lock:
                self._broken_hashes.update(hashes[wrong].tolist())
            self._count(collisions=int(collided.sum()), corrupt=int(wrong.sum()))
        return right

    # -- writing

    def put(self, page: Page) -> None:
        if self.database.readonly:
            message = f"the store {self.database.location} was opened with readonly=True: nothing can be put"
            raise ReadOnlyError(message)
        check_page(page)
        self.database.check_open()
        if not fits(page):
            self._count(oversized=page.n)
            message = f"a package of op {page.op!r} is larger than SQLite can hold; such packages are not stored"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            return
        if self.admission is not None and not self.admission.admits(page):
            self._count(refused=page.n)
            return
        with self._lock:
            if self._pending.nbytes > 2 * self.bounds.nbytes:
                self.counters.dropped += page.n
            else:
                self.counters.puts += page.n
                if (number := self._pending.add(mine := owned(page))) is not None:
                    self._ahead.start(number, mine)
            full = len(self._pending) >= self.bounds.rows or self._pending.nbytes >= self.bounds.nbytes
            if not full and self._timer is None and len(self._pending):
                self._timer = threading.Timer(self.bounds.seconds, self._flush_when_due)
                self._timer.daemon = True
                self._timer.start()
        if full:
            self._flush_when_due()

    def touch(self, keys: Sequence[bytes], counts: Sequence[int]) -> None:
        with self._lock:
            for key, count in zip(keys, counts, strict=True):
                self._touched[key] += count

    def flush(self) -> None:
        if self.database.readonly:
            return
        with self.batch() as batch:
            if batch:
                with self.database.write(batch.nbytes) as connection:
                    batch.write(connection)

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """All that is pending, encoded; it is forgotten here when the block ends, and kept when the block raises."""
        with self._flushing:
            with self._lock:
                self._cancel_timer()
                pages = dict(self._pending.pages)
                used, touched = self._used.copy(), self._touched.copy()
                broken = Broken(frozenset(self._broken_pages), frozenset(self._broken_hashes))
            batch = self._encoded(pages, broken, used, touched)
            self._make_room(batch.nbytes)
            yield batch
            with self._lock:
                for number in pages:
                    self._pending.remove(number)
                    self._ahead.forget(number)
                self._used -= used
                self._touched -= touched
                self._broken_pages -= broken.pages
                self._broken_hashes -= broken.hashes
            self._measure_loads(pages.values())

    @property
    def pending(self) -> int:
        """Packages, and counts of use, that wait to be written."""
        return len(self._pending) + len(self._used) + len(self._touched)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
        finally:
            with self._lock:
                self._cancel_timer()
                self._pending.clear()
                self._ahead.close()
            self.database.close()

    def stats(self) -> dict[str, float]:
        with self.database.read() as connection:
            (packages,) = connection.exec_driver_sql("SELECT count(*) FROM package").one()
            (pages,) = connection.exec_driver_sql("SELECT count(*) FROM page").one()
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
        self._flushing.acquire()
        self._lock.acquire()
        self._ahead.wait()

    def after_fork(self, *, child: bool) -> None:
        if child:
            # They are the parent's to write.
            self._pending.clear()
            self._ahead.forked()
            self._used.clear()
            self._touched.clear()
            self._timer = None
        self._lock.release()
        self._flushing.release()

    def _encoded(self, pages: dict[int, Page], broken: Broken, used: Counter[int], touched: Counter[bytes]) -> Batch:
        """Drop what is stored already, join the rest into pages and encode them: all of it outside the write lock."""
        rows: list[PageRow] = []
        if pages:
            hashes = [hashes_of(page.keys, self._bits) for page in pages.values()]
            with self.database.read() as connection:
                index = select_index(connection, np.unique(np.concatenate(hashes)))
            good = [h for h, page_id, _ in index.tolist() if page_id not in broken.pages and h not in broken.hashes]
            stored = np.array(good, np.int64)
            rest = []
            for (number, page), mine in zip(pages.items(), hashes, strict=True):
                if not (new := ~np.isin(mine, stored)).all():
                    rest.append(take(page, np.flatnonzero(new)))
                elif ahead := self._ahead.take(number):
                    rows += [row.result() for row in ahead]
                else:
                    rest.append(page)
            rows += overlapped(self._row, merged(rest))
        uses = Counter(used)
        if touched:
            keys = np.frombuffer(b"".join(touched), np.uint8).reshape(-1, 16)
            counts = dict(zip(hashes_of(keys, self._bits).tolist(), touched.values(), strict=True))
            with self.database.read() as connection:
                for hashed, page_id, _ in select_index(connection, np.array(list(counts), np.int64)).tolist():
                    uses[page_id] += counts[hashed]
        return Batch(rows, broken, uses)

    def _row(self, page: Page) -> PageRow:
        return PageRow(page.op, page.n, page.cost_ns, hashes_of(page.keys, self._bits), encode_page(page))

    def _make_room(self, nbytes: int) -> None:
        """Evict before the file would grow beyond its bound."""
        if self.max_bytes is None or live_bytes(self.database) + nbytes <= self.max_bytes:
            return
        evicted = evict(self.database, max(0, int(_EVICT_TO * self.max_bytes) - nbytes))
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

    def _flush_when_due(self) -> None:
        """Flush for a caller who did not ask for it: a failure is told once and tried again later."""
        if time.monotonic() < self._retry_at:
            return
        try:
            self.flush()
        except ClosedError:
            # The store was closed, and flushed, while the timer ran.
            return
        except StoreError as error:
            self._retry_at = time.monotonic() + self.bounds.seconds
            message = f"packages are kept in memory, as they cannot be written: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=3)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, count in more.items():
                setattr(self.counters, name, getattr(self.counters, name) + count)
