"""The package cache in SQLite: found by integer hash, checked by full key, written behind in large transactions."""

from __future__ import annotations

import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from whiteboard.errors import CorruptPackageError, DtypeError, ReadOnlyError, ShapeError, StoreError
from whiteboard.storage.base import DISK, MEMORY, MISS, Found, PackageStore, Page
from whiteboard.storage.engine import Database
from whiteboard.storage.fork import watch
from whiteboard.storage.index import PageIndex
from whiteboard.storage.pages import Blob, decode_page, encode_page, fits, merged, owned, take

LIST: Final = 900
"""Most values in one SQL list: longer ones are slower, and older SQLite refuses them."""

_PAGES_A_READ = 64


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


class SqlitePackages(PackageStore):
    """Packages in the tables ``page`` and ``package`` of one database.

    Parameters
    ----------
    database : Database
    bounds : WriteBehind
    hash_bits : int
        Bits of a key that the index holds; tests shorten it to force collisions.
    """

    fork_rank = 1

    def __init__(self, database: Database, bounds: WriteBehind | None = None, *, hash_bits: int = 63) -> None:
        self.database = database
        self.bounds = bounds or WriteBehind()
        self.counters = Counters()
        self._shift = np.uint64(64 - hash_bits)
        self._lock = threading.Lock()
        self._flushing = threading.RLock()
        self._pending = PageIndex()
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
        found = _Gathering(len(keys))
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

    def _find_on_disk(self, keys: Sequence[bytes], missing: NDArray[np.intp], found: _Gathering) -> None:
        wanted = np.frombuffer(b"".join([keys[i] for i in missing.tolist()]), np.uint8).reshape(-1, 16)
        hashes = self._hashes(wanted)
        with self.database.read() as connection:
            index = select_index(connection, np.unique(hashes))
            if not len(index):
                return
            at = np.searchsorted(index[:, 0], hashes).clip(max=len(index) - 1)
            there = np.flatnonzero(index[at, 0] == hashes)
            page_of, slot_of = index[at[there], 1], index[at[there], 2]
            blobs = _select_pages(connection, np.unique(page_of).tolist())
        for page_id in np.unique(page_of).tolist():
            mine = page_of == page_id
            page = self._decoded(page_id, blobs.pop(page_id, None))
            if page is None:
                continue
            rows, slots = there[mine], slot_of[mine]
            right = self._right(page, slots, wanted[rows], hashes[rows])
            if right.any():
                found.add(page, missing[rows[right]], slots[right], DISK)
                with self._lock:
                    self._used[page_id] += int(right.sum())

    def _decoded(self, page_id: int, blob: Blob | None) -> Page | None:
        # No blob: the index names a page that is not there.
        if blob is not None:
            try:
                return decode_page(blob)
            except CorruptPackageError:
                pass
        with self._lock:
            self._broken_pages.add(page_id)
        self._count(corrupt=1)
        return None

    def _right(
        self, page: Page, slots: NDArray[np.int64], wanted: NDArray[np.uint8], hashes: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which slots hold the full key that is wanted; the others are collisions, or wrong index rows."""
        inside = (slots >= 0) & (slots < page.n)
        stored = page.keys[np.where(inside, slots, 0)] if page.n else np.zeros_like(wanted)
        right: NDArray[np.bool_] = inside & (stored == wanted).all(axis=1)
        if not right.all():
            collided = inside & ~right & (self._hashes(stored) == hashes)
            wrong = ~right & ~collided
            with self._lock:
                self._broken_hashes.update(hashes[wrong].tolist())
            self._count(collisions=int(collided.sum()), corrupt=int(wrong.sum()))
        return right

    def _hashes(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        words = np.ascontiguousarray(keys).view(">u8")[:, 0].astype(np.uint64)
        return (words >> self._shift).astype(np.int64)

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
        with self._lock:
            if self._pending.nbytes > 2 * self.bounds.nbytes:
                self.counters.dropped += page.n
            else:
                self.counters.puts += page.n
                self._pending.add(owned(page))
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
                with self.database.write() as connection:
                    batch.write(connection)

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """All that is pending, encoded; it is forgotten here when the block ends, and kept when the block raises."""
        with self._flushing:
            with self._lock:
                self._cancel_timer()
                numbers = list(self._pending.pages)
                pages = list(self._pending.pages.values())
                used, touched = self._used.copy(), self._touched.copy()
                broken = Broken(frozenset(self._broken_pages), frozenset(self._broken_hashes))
            batch = self._encoded(pages, broken, used, touched)
            yield batch
            with self._lock:
                for number in numbers:
                    self._pending.remove(number)
                self._used -= used
                self._touched -= touched
                self._broken_pages -= broken.pages
                self._broken_hashes -= broken.hashes

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
            self.database.close()

    def stats(self) -> dict[str, float]:
        with self.database.read() as connection:
            (packages,) = connection.exec_driver_sql("SELECT count(*) FROM package").one()
            (pages,) = connection.exec_driver_sql("SELECT count(*) FROM page").one()
        with self._lock:
            counters = self.counters
            return {
                "puts": counters.puts,
                "packages": packages + len(self._pending),
                "pages": pages + len(self._pending.pages),
                "bytes_memory": self._pending.nbytes,
                "bytes_disk": self.database.bytes_on_disk(),
                "collisions": counters.collisions,
                "corrupt": counters.corrupt,
                "oversized": counters.oversized,
                "dropped": counters.dropped,
            }

    def before_fork(self) -> None:
        self._flushing.acquire()
        self._lock.acquire()

    def after_fork(self, *, child: bool) -> None:
        if child:
            # They are the parent's to write.
            self._pending.clear()
            self._used.clear()
            self._touched.clear()
            self._timer = None
        self._lock.release()
        self._flushing.release()

    def _encoded(self, pages: list[Page], broken: Broken, used: Counter[int], touched: Counter[bytes]) -> Batch:
        """Drop what is stored already, join the rest into pages and encode them: all of it outside the write lock."""
        rows: list[tuple[Page, NDArray[np.int64], Blob]] = []
        if pages:
            hashes = [self._hashes(page.keys) for page in pages]
            with self.database.read() as connection:
                index = select_index(connection, np.unique(np.concatenate(hashes)))
            good = [h for h, page_id, _ in index.tolist() if page_id not in broken.pages and h not in broken.hashes]
            stored = np.array(good, np.int64)
            fresh = [
                page if (new := ~np.isin(mine, stored)).all() else take(page, np.flatnonzero(new))
                for page, mine in zip(pages, hashes, strict=True)
            ]
            rows = [(page, self._hashes(page.keys), encode_page(page)) for page in merged(fresh) if page.n]
        uses = Counter(used)
        if touched:
            at = dict(zip(self._hashes(_as_keys(touched)).tolist(), touched.values(), strict=True))
            with self.database.read() as connection:
                for hashed, page_id, _ in select_index(connection, np.sort(np.array(list(at), np.int64))).tolist():
                    uses[page_id] += at[hashed]
        return Batch(rows, broken, uses)

    def _flush_when_due(self) -> None:
        """Flush for a caller who did not ask for it: a failure is told once and tried again later."""
        if time.monotonic() < self._retry_at:
            return
        try:
            self.flush()
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


@dataclass(frozen=True, slots=True)
class Broken:
    """Pages and hashes that were found damaged: what is put for them again replaces them."""

    pages: frozenset[int]
    hashes: frozenset[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Encoded pages, ready for the transaction of whoever writes them."""

    rows: list[tuple[Page, NDArray[np.int64], Blob]]
    broken: Broken
    uses: Counter[int]

    def __bool__(self) -> bool:
        return bool(self.rows or self.uses)

    def write(self, connection: Connection) -> None:
        """Insert the pages, then all their index rows in the order of the index, then the access counts."""
        now = int(time.time())
        ids = [_insert_page(connection, page, blob) for page, _, blob in self.rows]
        if ids:
            hashes = np.concatenate([mine for _, mine, _ in self.rows])
            page_of = np.repeat(ids, [len(mine) for _, mine, _ in self.rows])
            slots = np.concatenate([np.arange(len(mine)) for _, mine, _ in self.rows])
            # Neighbours in the index are written together, whatever order the keys came in.
            order = np.argsort(hashes)
            rows = list(zip(*(column[order].tolist() for column in (hashes, page_of, slots)), strict=True))
            self._drop_broken(connection, hashes)
            connection.exec_driver_sql("INSERT OR IGNORE INTO package VALUES (?, ?, ?)", rows)
        uses = [(page_id, now, count) for page_id, count in self.uses.items()] + [(page_id, now, 0) for page_id in ids]
        if uses:
            connection.exec_driver_sql(_UPSERT_ACCESS, uses)

    def _drop_broken(self, connection: Connection, hashes: NDArray[np.int64]) -> None:
        if self.broken.pages or self.broken.hashes:
            dead = [
                (hashed, page_id)
                for hashed, page_id, _ in select_index(connection, np.unique(hashes)).tolist()
                if page_id in self.broken.pages or hashed in self.broken.hashes
            ]
            if dead:
                connection.exec_driver_sql("DELETE FROM package WHERE hash = ? AND page_id = ?", dead)


_UPSERT_ACCESS = (
    "INSERT INTO page_access VALUES (?, ?, ?) ON CONFLICT(page_id) DO UPDATE SET "
    "last_use = max(last_use, excluded.last_use), hits = hits + excluded.hits"
)
_INSERT_PAGE = "INSERT INTO page (op, n, nbytes, cost_ns, header, digest, data) VALUES (?, ?, ?, ?, ?, ?, ?)"


class _Gathering:
    """A `Found` in the making."""

    def __init__(self, n: int) -> None:
        self._pages: list[Page] = []
        self._page = np.full(n, -1, np.int64)
        self._slot = np.zeros(n, np.int64)
        self._tier = np.full(n, MISS, np.uint8)

    def add(self, page: Page, rows: NDArray[np.intp], slots: NDArray[np.int64], tier: int) -> None:
        self._page[rows] = len(self._pages)
        self._slot[rows] = slots
        self._tier[rows] = tier
        self._pages.append(page)

    def done(self) -> Found:
        return Found(self._pages, self._page, self._slot, self._tier)


def check_page(page: Page) -> None:
    """Raise `ShapeError` or `DtypeError` where a page is not what a store takes."""
    if page.keys.dtype != np.uint8 or page.keys.shape != (page.n, 16):
        message = f"page of op {page.op!r}: expected keys of dtype uint8 and shape (n, 16), got {page.keys.shape}"
        raise ShapeError(message)
    for name, array in page.arrays.items():
        if array.dtype.kind not in "biufc":
            message = f"page of op {page.op!r}, array {name!r}: dtype {array.dtype} cannot be stored"
            raise DtypeError(message)
        if not array.ndim or len(array) != page.n:
            message = f"page of op {page.op!r}, array {name!r}: expected {page.n} rows, got shape {array.shape}"
            raise ShapeError(message)


def select_index(connection: Connection, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index rows (hash, page_id, slot) of the given hashes, by ascending hash."""
    found: list[tuple[int, int, int]] = []
    wanted = hashes.tolist()
    # The driver's cursor gives plain tuples: a row object for each of 10,000 keys would be half the cost.
    cursor = driver_cursor(connection)
    for start in range(0, len(wanted), LIST):
        part = wanted[start : start + LIST]
        marks = ",".join("?" * len(part))
        found += cursor.execute(f"SELECT hash, page_id, slot FROM package WHERE hash IN ({marks})", part).fetchall()
    rows = np.array(found, np.int64).reshape(-1, 3)
    return rows[np.argsort(rows[:, 0])]


def driver_cursor(connection: Connection) -> Any:
    """A cursor of the driver, inside the connection's transaction."""
    return connection.connection.cursor()


def _select_pages(connection: Connection, ids: list[int]) -> dict[int, Blob]:
    blobs: dict[int, Blob] = {}
    cursor = driver_cursor(connection)
    for start in range(0, len(ids), _PAGES_A_READ):
        part = ids[start : start + _PAGES_A_READ]
        marks = ",".join("?" * len(part))
        sql = f"SELECT id, header, digest, data FROM page WHERE id IN ({marks})"
        blobs.update((row[0], Blob(*row[1:])) for row in cursor.execute(sql, part))
    return blobs


def _insert_page(connection: Connection, page: Page, blob: Blob) -> int:
    values = (page.op, page.n, len(blob.header) + len(blob.data), page.cost_ns, blob.header, blob.digest, blob.data)
    return int(connection.exec_driver_sql(_INSERT_PAGE, values).lastrowid)


def _as_keys(keys: Any) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)
