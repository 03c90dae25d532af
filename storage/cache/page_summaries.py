"""Packages of one op with what their pages say of how they came about: what a job is compared with to explain it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

import numpy as np

from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import PageSummary
from whiteboard.storage.page.format import unpack
from whiteboard.storage.sql.backend import Database
from whiteboard.storage.sql.page_row import hashes_of
from whiteboard.storage.sql.rows import select_index, select_pages

_COLUMNS: Final = ("keys", "src_ids", "versions", "tokens")


def summaries(database: Database, op: str) -> Iterator[PageSummary]:
    """Every readable page of an op, the newest first; one is in memory at a time."""
    with database.read() as connection:
        ids = list(connection.exec_driver_sql("SELECT id FROM page WHERE op = ? ORDER BY id DESC", (op,)).scalars())
    for page_id in ids:
        found = _page(database, page_id)
        if found is not None:
            yield found


def holder(database: Database, key: bytes) -> tuple[PageSummary, int] | None:
    """The page that a key's package lies in, and its row there; None where there is none."""
    wanted = np.frombuffer(key, np.uint8).reshape(1, 16)
    with database.read() as connection:
        index = select_index(connection, hashes_of(wanted))
    for _, page_id, slot in index.tolist():
        found = _page(database, page_id)
        if found is not None and 0 <= slot < len(found.keys) and found.keys[slot].tobytes() == key:
            return found, slot
    return None


def _page(database: Database, page_id: int) -> PageSummary | None:
    with database.read() as connection:
        blob = select_pages(connection, [page_id]).get(page_id)
    if blob is None:
        return None
    try:
        meta, columns = unpack(blob, only=_COLUMNS)
        entries = json.loads(blob.header)["arrays"]
        arrays = {str(e[0]).removeprefix("a:"): (str(e[1]), tuple(e[2][1:])) for e in entries if e[0][:2] == "a:"}
        said = json.loads(meta.get("lineage") or "{}")
        return PageSummary(
            page_id,
            str(meta["op"]),
            columns["keys"],
            arrays,
            said if isinstance(said, dict) else {},
            columns.get("src_ids"),
            columns.get("versions"),
            columns.get("tokens"),
        )
    except (CorruptPackageError, KeyError, ValueError, TypeError, IndexError):
        return None
