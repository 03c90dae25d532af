"""Which package pages have another form than is wanted: codec, level, size. Read off their headers, nothing decoded."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from whiteboard.errors import CorruptPackageError, ParamError
from whiteboard.storage.page import row_checks
from whiteboard.storage.page.codec import DEFAULT, MAX_BYTES, Encoding
from whiteboard.storage.page.grouping import PAGE_BYTES, cuts, most_rows
from whiteboard.storage.sql import tables as t
from whiteboard.storage.sql.backend import Connection
from whiteboard.storage.sql.rows import indexed


@dataclass(frozen=True, slots=True)
class Form:
    """What pages are to be like.

    Parameters
    ----------
    encoding : Encoding
    page_bytes : int, optional
        Bytes of a page's arrays: smaller pages of one signature are joined, larger ones cut. As the store makes them,
        where none is given.

    Raises
    ------
    ParamError
    """

    encoding: Encoding = DEFAULT
    page_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.page_bytes is not None and not 0 < self.page_bytes <= MAX_BYTES // 2:
            message = f"page bytes: expected 1 to {MAX_BYTES // 2}, got {self.page_bytes}"
            raise ParamError(message)


@dataclass(frozen=True, slots=True)
class Lying:
    """A page as it lies in the store; `digest` tells whether it still does. `encoding` is the text of its encoding."""

    page_id: int
    n: int
    nbytes: int
    digest: bytes
    encoding: str


@dataclass(frozen=True, slots=True)
class Step:
    """Pages to be made into others: several into one, or one into so many as `limit` says."""

    pages: tuple[Lying, ...]
    limit: int

    @property
    def made(self) -> int:
        """How many pages come out."""
        return max(1, len(cuts(self.pages[0].n, self.limit)) - 1) if len(self.pages) == 1 else 1

    @property
    def nbytes(self) -> int:
        """Bytes of the rows that go in."""
        return sum(page.nbytes for page in self.pages)


@dataclass(slots=True)
class Plan:
    """What has to be done, what has the form already, and pages whose header cannot be read."""

    steps: list[Step] = field(default_factory=list)
    right: list[Lying] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)


def plan(connection: Connection, form: Form, ops: Collection[str] | None) -> Plan:
    """See what has to be done for some ops, or for all (None). Pages that no package is found in are left to `gc`."""
    made = Plan()
    wanted, page_bytes = str(form.encoding), form.page_bytes or PAGE_BYTES
    groups: dict[Any, list[Lying]] = defaultdict(list)
    found = connection.exec_driver_sql(
        f"SELECT id, op, n, nbytes, digest, header FROM page WHERE id IN ({indexed(connection)}) ORDER BY id"
    )
    for row in found:
        if ops is not None and row.op not in ops:
            continue
        try:
            page_id, _, n, nbytes, digest, header = row_checks.row(t.page, row)
            signature, row_bytes, encoding = _described(header)
        except (CorruptPackageError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            made.damaged.append(row.id)
            continue
        groups[signature, most_rows(row_bytes, page_bytes)].append(Lying(page_id, n, nbytes, digest, encoding))
    for (_, limit), group in groups.items():
        for pages in _together(group, limit):
            step = Step(pages, limit)
            if len(pages) == step.made == 1 and pages[0].encoding == wanted:
                made.right += pages
            else:
                made.steps.append(step)
    return made


def _described(header: bytes) -> tuple[Any, int, str]:
    """What pages must have in common to be joined, bytes of one package, and the encoding."""
    meta = json.loads(header)
    arrays = tuple((entry[0], entry[1], tuple(entry[2][1:])) for entry in meta["arrays"])
    row_bytes = sum(int(dtype[2:]) * math.prod(shape) for _, dtype, shape in arrays)
    return (meta["op"], arrays, meta.get("lineage")), row_bytes, meta.get("encoding", str(DEFAULT))


def _together(group: Sequence[Lying], limit: int) -> Iterator[tuple[Lying, ...]]:
    """Pages of one signature: large ones alone, small ones as many as make a page."""
    waiting: list[Lying] = []
    rows = 0
    for page in group:
        if cuts(page.n, limit):
            yield (page,)
            continue
        if rows + page.n > limit:
            yield tuple(waiting)
            waiting, rows = [], 0
        waiting.append(page)
        rows += page.n
    if waiting:
        yield tuple(waiting)
