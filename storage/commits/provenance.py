"""Where packages came from: a sample of them with their sources' ids and versions, and the values of those sources."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError, ParamError
from whiteboard.records.packages import Page
from whiteboard.records.systems import NodeColumns, NodeValues
from whiteboard.storage.commits.log import log_of, node_pages, opened, spans_of
from whiteboard.storage.page import row_checks
from whiteboard.storage.page.format import decode_page, keeps_sources, unpack
from whiteboard.storage.page.grouping import take
from whiteboard.storage.sql import tables as t
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.rows import select_pages


@dataclass(frozen=True, slots=True)
class Part:
    """Some packages of one page: their rows, in order."""

    page_id: int
    op: str
    rows: NDArray[np.intp]


def sampled(database: Database, sample: float, seed: int) -> list[Part]:
    """A part of all packages: of √sample of the pages √sample of their rows, so that few pages have to be read.

    Raises
    ------
    ParamError
        `sample` is not between 0 and 1.
    """
    if not 0 <= sample <= 1:
        message = f"sample must lie between 0 and 1, got {sample}"
        raise ParamError(message)
    with database.read() as connection:
        found = connection.exec_driver_sql("SELECT id, op, n FROM page WHERE n > 0 ORDER BY id")
        pages = list(row_checks.rows(t.page, found))
    if not sample or not pages:
        return []
    chance = random.Random(seed)
    chosen = sorted(chance.sample(range(len(pages)), math.ceil(math.sqrt(sample) * len(pages))))
    share = sample * len(pages) / len(chosen)
    parts = []
    for page_id, op, n in (pages[number] for number in chosen):
        rows = sorted(chance.sample(range(n), min(n, math.ceil(share * n))))
        parts.append(Part(page_id, op, np.array(rows, np.intp)))
    return parts


def read(database: Database, part: Part) -> Page | None:
    """The packages of a part, with their provenance; None where the page cannot be read."""
    try:
        with database.read() as connection:
            blob = select_pages(connection, [part.page_id])[part.page_id]
        return take(decode_page(blob, provenance=True), part.rows)
    except (CorruptPackageError, KeyError, IndexError):
        return None


def wanted(database: Database, parts: Iterable[Part]) -> dict[int, list[int]]:
    """The versions of each node that packages were computed from, ascending.

    Damaged pages want none, nor do those that keep their sources.
    """
    pairs = [np.empty((0, 2), np.int64)]
    for part in parts:
        try:
            with database.read() as connection:
                blob = select_pages(connection, [part.page_id])[part.page_id]
            if keeps_sources(blob.header):
                continue
            _, arrays = unpack(blob, only=("src_ids", "versions"))
            columns = [arrays[name][part.rows].reshape(-1) for name in ("src_ids", "versions")]
            pairs.append(np.unique(np.stack(columns, axis=1), axis=0))
        except (CorruptPackageError, KeyError, IndexError, ValueError, TypeError, RecursionError):
            continue
    versions: dict[int, list[int]] = defaultdict(list)
    for node_id, version in np.unique(np.concatenate(pairs), axis=0).tolist():
        versions[node_id].append(version)
    return versions


def node_values(database: Database, wanted: Mapping[int, Sequence[int]]) -> list[NodeValues]:
    """The values at the wanted versions, one `NodeValues` a system and attribute; damaged commits are left out."""
    with database.read() as connection:
        rows = connection.exec_driver_sql("SELECT name FROM system ORDER BY name")
        names = [row.name for row in row_checks.rows(t.system, rows)]
    ids = np.array(sorted(wanted), np.int64)
    found: dict[tuple[str, str], NodeValues] = {}
    for name in names if len(ids) else ():
        for columns in _history(database, name):
            values = found.setdefault((name, columns.attr), NodeValues(name, columns.attr))
            for row in np.flatnonzero(np.isin(columns.ids, ids)).tolist():
                node_id = int(columns.ids[row])
                # A copy: a view would keep the whole page of the commit alive.
                values.keep(node_id, int(columns.versions[row]), columns.values[row].copy(), wanted[node_id])
    return list(found.values())


def _history(database: Database, name: str) -> Iterator[NodeColumns]:
    """Every node row of a system's history, oldest commit first."""
    try:
        with database.read() as connection:
            log = [(span, row) for span in spans_of(connection, name) for row in log_of(connection, span)]
    except CorruptPackageError:
        return
    for span, row in log:
        try:
            with database.read() as connection:
                blobs = node_pages(connection, [(span, row)])
            columns = opened(name, span, row, blobs[span.system_id, row.number])
        except CorruptPackageError:
            continue
        yield from columns
