"""Taking out what somebody names: packages of an op, or a system with its commits."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError, ParamError, UnknownSystemError
from whiteboard.records.packages import Page
from whiteboard.records.reports import Evicted, Removed
from whiteboard.storage.cache.claims import sweep
from whiteboard.storage.cache.eviction import STEP_PAGES, last_use
from whiteboard.storage.commits.log import by_name
from whiteboard.storage.page.format import decode_page
from whiteboard.storage.page.grouping import take
from whiteboard.storage.sql.backend import Connection, Database
from whiteboard.storage.sql.page_row import PageRow, hashes_of
from whiteboard.storage.sql.rows import Batch, Broken, delete_pages, select_in, select_index, select_pages

_KEY_BYTES: Final = 16

REASON: Final = "forget"
"""Under which the store counts packages that were forgotten."""


# -- packages


def forget(
    database: Database,
    *,
    op: str | None = None,
    version: int | None = None,
    older_than: float | None = None,
    key: bytes | str | None = None,
    dry_run: bool = False,
) -> Evicted:
    """Delete packages for which everything that is given holds, and give their space back.

    Parameters
    ----------
    database : Database
    op : str, optional
    version : int, optional
        Of the op, as the page says.
    older_than : float, optional
        Seconds: pages that were used since are kept.
    key : bytes or str, optional
        16 bytes or 32 hexadecimal digits: this one package.
    dry_run : bool
        Only count.

    Raises
    ------
    ParamError
        Nothing is given, or something that cannot be.
    """
    name = _check(op, version, older_than, key)
    with database.read() as connection:
        places = None if name is None else select_index(connection, _hashes(name))
        found = _pages(connection, op, version, older_than, None if places is None else places[:, 1].tolist())
    if name is not None and places is not None:
        slots = dict(places[:, 1:].tolist())
        return _forget_one(database, name, [(page.id, slots[page.id]) for page in found], dry_run=dry_run)
    total = Evicted(len(found), sum(page.n for page in found), sum(page.nbytes for page in found))
    if not dry_run:
        for start in range(0, len(found), STEP_PAGES):
            ids = [page.id for page in found[start : start + STEP_PAGES]]
            database.write(partial(delete_pages, ids=ids, reason=REASON))
        sweep(database)
        database.give_back()
    return total


def _check(op: object, version: object, older_than: object, key: object) -> bytes | None:
    """Check what is to be forgotten; returns the key in bytes."""
    if op is None and older_than is None and key is None:
        message = "forget: say what: op=, older_than=, or key="
    elif version is not None and op is None and key is None:
        message = "forget: version= needs the op= that it is a version of"
    elif op is not None and not isinstance(op, str):
        message = f"forget: op: expected a name, got {op!r}"
    elif version is not None and (type(version) is not int or version < 1):
        message = f"forget: version: expected an int from 1, got {version!r}"
    elif older_than is not None and not (isinstance(older_than, int | float) and older_than >= 0):
        message = f"forget: older_than: expected seconds, got {older_than!r}"
    else:
        named = key
        if isinstance(key, str):
            with suppress(ValueError):
                named = bytes.fromhex(key)
        if named is None or (isinstance(named, bytes) and len(named) == _KEY_BYTES):
            return named
        message = f"forget: key: expected {_KEY_BYTES} bytes or {2 * _KEY_BYTES} hexadecimal digits, got {key!r}"
    raise ParamError(message)


def _pages(
    connection: Connection, op: str | None, version: int | None, older_than: float | None, among: list[int] | None
) -> list[Any]:
    """The pages (id, n, nbytes) for which all of it holds; `among` limits them to some."""
    horizon = last_use(older_than)
    rows = connection.exec_driver_sql(
        f"SELECT page.id, page.n, page.nbytes{', page.header' if version is not None else ''} "
        "FROM page LEFT JOIN page_access ON page_id = page.id "
        f"WHERE {'' if op is None else 'op = ? AND '}coalesce(last_use, 0) <= ? "
        f"{'' if among is None else 'AND page.id IN (' + ','.join(map(str, among)) + ') '}ORDER BY page.id",
        (horizon,) if op is None else (op, horizon),
    )
    return [row for row in rows if version is None or _version(row.header) == version]


def _version(header: object) -> int | None:
    """The version of the op that a page's packages are of; None where it does not say."""
    try:
        found = json.loads(json.loads(header)["lineage"])["version"]  # type: ignore[arg-type]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if type(found) is int else None


def _hashes(key: bytes) -> NDArray[np.int64]:
    return hashes_of(np.frombuffer(key, np.uint8).reshape(1, -1))


def _forget_one(database: Database, key: bytes, places: list[tuple[int, int]], *, dry_run: bool) -> Evicted:
    """Take one package out of its page: the others of the page are written again without it."""
    with database.read() as connection:
        blobs = select_pages(connection, [page_id for page_id, _ in places])
    for page_id, slot in places:
        try:
            page = decode_page(blobs[page_id], provenance=True)
        except (KeyError, CorruptPackageError):
            continue
        if slot >= page.n or page.keys[slot].tobytes() != key:
            continue
        row = take(page, np.array([slot]))
        if not dry_run:
            rest = take(page, np.flatnonzero(np.arange(page.n) != slot))
            if not database.write(partial(_replace, page_id, rest)):
                continue  # evicted meanwhile, with the package
            database.give_back()
        return Evicted(int(page.n == 1), 1, row.nbytes)
    return Evicted()


def _replace(page_id: int, rest: Page, connection: Connection) -> bool:
    """Put what is left of a page in its place; returns whether it was there."""
    if not select_pages(connection, [page_id]):
        return False
    delete_pages(connection, [page_id], REASON)
    if rest.n:
        row = PageRow.of(rest)
        Batch([row], Broken(frozenset(), frozenset()), Counter()).write(connection)
    return True


# -- systems


def remove(database: Database, name: str, *, dry_run: bool = False) -> Removed:
    """Delete a system, its commits and its node pages, but for those that a fork of it goes on from.

    Raises
    ------
    UnknownSystemError
    """
    if dry_run:
        with database.read() as connection:
            return _removed(name, connection, dry_run=True)
    done = database.write(partial(_removed, name, dry_run=False), durable=True)
    database.give_back()
    return done


def _removed(name: str, connection: Connection, *, dry_run: bool) -> Removed:
    """Remove it whatever else its row and its commits hold: a damaged system has to be got rid of too."""
    row = by_name(connection, name)
    if row is None:
        message = f"the store holds no system {name!r}"
        raise UnknownSystemError(message)
    forks = _forks(connection, row.id)
    shared = max((fork.origin_number for fork in forks), default=-1)
    gone = _count(connection, row.id, "number NOT BETWEEN 0 AND ?", shared)
    kept = _count(connection, row.id, "number BETWEEN 0 AND ?", shared)
    kept_as = f"{name} (removed {str(row.uuid)[:8]})" if forks else None
    if not dry_run:
        _delete(connection, row.id, name, shared, kept_as)
    return Removed(name, gone[0], gone[1], kept[0], kept_as, tuple(str(fork.name) for fork in forks), dry_run)


def _forks(connection: Connection, system_id: int) -> list[Any]:
    """The systems that go on from one, but for those that it is said to go on from itself: they have no beginning."""
    above: set[Any] = set()
    at: Any = system_id
    while at is not None and at not in above:
        above.add(at)
        at = connection.exec_driver_sql("SELECT origin_id FROM system WHERE id = ?", (at,)).scalar()
    sql = "SELECT id, name, origin_number FROM system WHERE origin_id = ? ORDER BY name"
    found = connection.exec_driver_sql(sql, (system_id,)).all()
    return [fork for fork in found if fork.id not in above and type(fork.origin_number) is int]


def _count(connection: Connection, system_id: int, where: str, shared: int) -> tuple[int, int]:
    """How many commits of its own a system has where something holds, and the bytes of their node pages."""
    of = (system_id, shared)
    commits = connection.exec_driver_sql(
        f"SELECT count(*) FROM commit_log WHERE system_id = ? AND {where}", of
    ).scalar_one()
    nbytes = connection.exec_driver_sql(
        f"SELECT coalesce(sum(length(header) + length(data)), 0) FROM node_page WHERE system_id = ? AND {where}", of
    ).scalar_one()
    return int(commits), int(nbytes)


def _delete(connection: Connection, system_id: int, name: str, shared: int, kept_as: str | None) -> None:
    origin = connection.exec_driver_sql("SELECT origin_id FROM system WHERE id = ?", (system_id,)).scalar_one()
    for table in ("node_page", "commit_log"):
        sql = f"DELETE FROM {table} WHERE system_id = ? AND number NOT BETWEEN 0 AND ?"
        connection.exec_driver_sql(sql, (system_id, shared))
    connection.exec_driver_sql("DELETE FROM writer WHERE name = ?", (name,))
    if kept_as is not None:
        sql = "UPDATE system SET name = ?, head = (SELECT max(number) FROM commit_log WHERE system_id = ?) WHERE id = ?"
        connection.exec_driver_sql(sql, (kept_as, system_id, system_id))
        return
    # Forks of it are left only where they are damaged: one that it comes from itself, or one from no commit.
    free = "UPDATE system SET origin_id = NULL, origin_number = NULL WHERE origin_id = ?"
    connection.exec_driver_sql(free, (system_id,))
    connection.exec_driver_sql("DELETE FROM system WHERE id = ?", (system_id,))
    # What was kept for this one alone goes with it.
    origins = [] if origin is None else [origin]
    for above_id, above_name, uuid in select_in(connection, "SELECT id, name, uuid FROM system WHERE id IN", origins):
        forked = connection.exec_driver_sql("SELECT 1 FROM system WHERE origin_id = ?", (above_id,)).first()
        if forked is None and str(above_name).endswith(f" (removed {str(uuid)[:8]})"):
            _delete(connection, above_id, above_name, -1, None)
