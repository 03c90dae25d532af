"""Verify: every page through the gate, every key at its place, every commit behind its seal; and the repair."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError, ParamError
from whiteboard.records.reports import DamagedPage, SystemReport, VerifyReport
from whiteboard.storage.cache.eviction import STEP_PAGES
from whiteboard.storage.commits.log import (
    BY_ID,
    Span,
    check_head,
    is_name,
    log_of,
    node_pages,
    opened,
    record_of,
    spans_of,
)
from whiteboard.storage.page import page_checks, row_checks
from whiteboard.storage.page.digests import Laid
from whiteboard.storage.page.format import Blob, decode_page
from whiteboard.storage.sql import tables as t
from whiteboard.storage.sql.backend import Connection, Database
from whiteboard.storage.sql.page_row import hashes_of
from whiteboard.storage.sql.rows import delete_index, delete_pages, index_parts, laid, lately
from whiteboard.storage.transfer.compare import LARGE
from whiteboard.storage.upkeep.unreadable import (
    Unreadable,
    any_name,
    delete_unreadable,
    give_row,
    unreadable,
    without_row,
)

_REPAIR_ROWS = 4096

_GONE = "system: row {} is gone, and its commits are there; a repair gives them another"
_SELECT_PAGE = "SELECT id, op, n, nbytes, cost_ns FROM page WHERE id = ?"


def verify(database: Database, *, sample: float = 1.0, repair: bool = False, seed: int = 0) -> VerifyReport:
    """Send pages through the gate, compare them with the index, and read every commit.

    Parameters
    ----------
    database : Database
    sample : float
        Part of the package pages to decode, 0 to 1; commits are always read.
    repair : bool
        Drop damaged pages, wrong index rows, and what nobody can read. Node versions are reported, never changed; a
        system whose name is no text, or whose row is gone, gets another, by which it can be read or removed.
    seed : int
        Of the sample.

    Raises
    ------
    ParamError
        `sample` is not between 0 and 1.
    ReadOnlyError
        Something has to be repaired, and the store was opened for reading.
    """
    if not 0 <= sample <= 1:
        message = f"sample must lie between 0 and 1, got {sample}"
        raise ParamError(message)
    structure = database.structure()
    try:
        with database.read() as connection:
            pages = list(connection.exec_driver_sql("SELECT id FROM page ORDER BY id").scalars())
            chosen = pages if sample == 1 else random.Random(seed).sample(pages, math.ceil(sample * len(pages)))
            dangling, order = _index(connection, np.array(pages, np.int64), np.sort(np.array(chosen, np.int64)))
        odd = unreadable(database)
        lost = without_row(database)
    except CorruptPackageError as error:
        return VerifyReport(systems=_systems(database), structure=(*structure, str(error)))
    damaged: list[DamagedPage] = []
    misplaced: list[NDArray[np.int64]] = []
    packages = 0
    for page_id in chosen:
        found = _looked_at(database, page_id)
        if isinstance(found, DamagedPage):
            damaged.append(found)
            packages += found.packages
        elif found is not None:
            low, high = np.searchsorted(order[:, 1], page_id), np.searchsorted(order[:, 1], page_id, side="right")
            misplaced.append(_misplaced(found, order[low:high]))
            packages += len(found)
    wrong = np.concatenate([dangling, *misplaced])
    systems = _systems(database)
    if repair:
        _repair(database, [page.page_id for page in damaged], wrong, odd)
    return VerifyReport(
        pages=len(chosen),
        packages=packages,
        damaged=tuple(damaged),
        dangling=len(dangling),
        misplaced=len(wrong) - len(dangling),
        systems=systems,
        structure=structure,
        unreadable=(*(rows.why for rows in odd), *map(_GONE.format, lost)),
        repaired=repair,
    )


def _index(
    connection: Connection, pages: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index rows of pages that are not there, and those of some pages, by page: of the others nothing is kept."""
    dangling, found = [np.empty((0, 3), np.int64)], [np.empty((0, 3), np.int64)]
    for rows in chain(index_parts(connection), [lately(connection)]):
        dangling.append(rows[~_among(rows[:, 1], pages)])
        found.append(rows[_among(rows[:, 1], chosen)])
    index = np.concatenate(found)
    found.clear()
    return np.concatenate(dangling), index[np.argsort(index[:, 1], kind="stable")]


def _among(values: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    found: NDArray[np.bool_] = ascending[np.searchsorted(ascending, values).clip(max=len(ascending) - 1)] == values
    return found


def _looked_at(database: Database, page_id: int) -> NDArray[np.uint8] | DamagedPage | None:
    """The keys of a page once its row was read and all of it was decoded; None where it is gone."""
    op, packages = "?", 0
    try:
        with database.read() as connection:
            found = connection.exec_driver_sql(_SELECT_PAGE, (page_id,)).one_or_none()
            if found is None:
                return None
            row = row_checks.row(t.page, found)
            op, packages = row.op, row.n
            with laid(connection, page_id) as page:
                return None if page is None else _keys(page)
    except CorruptPackageError as error:
        return DamagedPage(page_id, op, packages, str(error))


def _keys(page: Laid) -> NDArray[np.uint8]:
    _, arrays = page_checks.entries(page)
    if max(len(page.data), sum(entry.nbytes for entry in arrays.values())) <= LARGE:
        return decode_page(Blob(page.header, page.digest, page.data[:]), provenance=True).keys
    n = page_checks.checked(page)
    return arrays["keys"].rows(0, n)


def _misplaced(keys: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    inside = (rows[:, 2] >= 0) & (rows[:, 2] < len(keys))
    right = inside.copy()
    right[inside] = hashes_of(keys[rows[inside, 2]]) == rows[inside, 0]
    return rows[~right]


def _repair(database: Database, damaged: Sequence[int], wrong: NDArray[np.int64], odd: Sequence[Unreadable]) -> None:
    for start in range(0, len(damaged), STEP_PAGES):
        database.write(partial(delete_pages, ids=damaged[start : start + STEP_PAGES], reason="damaged"))
    for start in range(0, len(wrong), _REPAIR_ROWS):
        part = [(row[0], row[1]) for row in wrong[start : start + _REPAIR_ROWS].tolist()]
        database.write(partial(delete_index, rows=part))
    for rows in odd:
        database.write(partial(delete_unreadable, rows=rows))
    for system_id in without_row(database):
        database.write(partial(give_row, system_id=system_id))
    for system_id in _system_ids(database):
        if _named(database, system_id) is None:
            database.write(partial(_name, system_id=system_id))


def _systems(database: Database) -> tuple[SystemReport, ...]:
    try:
        ids = _system_ids(database)
    except CorruptPackageError:
        return ()
    return tuple(sorted((_system(database, system_id) for system_id in ids), key=lambda report: report.name))


def _system_ids(database: Database) -> Sequence[int]:
    with database.read() as connection:
        return list(connection.exec_driver_sql("SELECT id FROM system").scalars())


def _name(connection: Connection, system_id: int) -> None:
    connection.exec_driver_sql("UPDATE system SET name = ? WHERE id = ?", (any_name(system_id), system_id))


def _named(database: Database, system_id: int) -> str | None:
    """The name of a system; None where it has none that can be asked for."""
    try:
        with database.read() as connection:
            found = connection.exec_driver_sql("SELECT name FROM system WHERE id = ?", (system_id,)).one()
            name = str(row_checks.row(t.system, found).name)
            return name if is_name(name) else None
    except CorruptPackageError:
        return None


def _system(database: Database, system_id: int) -> SystemReport:
    """Read every commit of a history: a state is whole if its keyframe and all commits since are."""
    damaged: list[tuple[int, str]] = []
    last_whole, number, whole = None, -1, False
    name = _named(database, system_id) or f"(row {system_id})"
    try:
        with database.read() as connection:
            record_of(connection.exec_driver_sql(BY_ID, (system_id,)).one())
            spans = spans_of(connection, name)
            log = [(span, row) for span in spans for row in log_of(connection, span)]
        for span, row in log:
            if row.number != number + 1:
                damaged.append((number + 1, "the commit is missing"))
                whole = False
            number = row.number
            why = _commit_damage(database, name, span, row)
            if why:
                damaged.append((number, why))
            whole = not why and (whole or bool(row.keyframe))
            if whole:
                last_whole = number
        check_head(name, spans, number)
    except CorruptPackageError as error:
        damaged.append((number + 1, str(error)))
    return SystemReport(name, number + 1, tuple(damaged), last_whole)


def _commit_damage(database: Database, name: str, span: Span, row: Any) -> str | None:
    try:
        with database.read() as connection:
            blobs = node_pages(connection, [(span, row)])
        opened(name, span, row, blobs[span.system_id, row.number])
    except CorruptPackageError as error:
        return str(error)
    return None
