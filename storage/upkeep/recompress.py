"""Package pages rewritten with another codec, level or size, a bounded transaction at a time that others write between.

What is found is the same before, between and after: the packages, their bits, provenance, lineage, tokens and costs.
A page that stays one page keeps its id and its rows; a joined one lies where the last of its parts lay, whose rows stay
first; of a cut one the first part stays. So most index rows stay as they are.

Node pages stay: a commit's seal covers their digests, and a digest covers the bytes as they are written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError, ParamError
from whiteboard.records.packages import Page
from whiteboard.records.reports import Progress
from whiteboard.storage.opening import open_database
from whiteboard.storage.page import row_checks
from whiteboard.storage.page.codec import Encoding
from whiteboard.storage.page.format import Blob, decode_page
from whiteboard.storage.page.grouping import cuts, joined, take
from whiteboard.storage.sql.backend import Connection, Database
from whiteboard.storage.sql.location import StoreUrl, locate_lasting
from whiteboard.storage.sql.page_row import PageRow
from whiteboard.storage.sql.rows import insert_page, ops_of, select_in, select_pages, settle, update_page
from whiteboard.storage.upkeep.recompress_plan import Form, Lying, Plan, Step, plan

BATCH_BYTES: Final = 2 * 2**20
"""Bytes of encoded pages that one transaction writes at most, but for what one step makes alone."""

SAMPLE: Final = 64
"""So many steps are measured by a forecast."""

_MOVE = "UPDATE package SET page_id = ?, slot = ? WHERE hash = ? AND page_id = ? AND slot = ?"


@dataclass(slots=True)
class Recompressed:
    """What was done, or would be.

    Attributes
    ----------
    pages, pages_after : int
        Package pages before and after, of the ops that were asked for.
    packages : int
        In them, rows that no key leads to included.
    rewritten, right : int
        Pages that were rewritten, and pages that had the form already.
    damaged : int
        Pages that fail the gate, left as they are.
    changed : int
        Pages that others evicted or rewrote meanwhile.
    bytes_before, bytes_after : int
        Of all these pages' rows.
    node_pages_left : int
        Pages of systems, which always stay as they are.
    measured : str
        What a forecast was measured on; empty for what was done.
    """

    pages: int = 0
    pages_after: int = 0
    packages: int = 0
    rewritten: int = 0
    right: int = 0
    damaged: int = 0
    changed: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    node_pages_left: int = 0
    measured: str = ""


@dataclass(frozen=True, slots=True)
class _Made:
    """A step done in memory: the pages that go, the rows that come, and for each row of them where it lay."""

    step: Step
    sources: tuple[Lying, ...]
    rows: tuple[PageRow, ...]
    was: tuple[NDArray[np.int64], ...]

    @property
    def nbytes(self) -> int:
        return sum(row.nbytes for row in self.rows)


def recompress(
    url: StoreUrl, form: Form, *, ops: Collection[str] | None = None, progress: Progress | None = None
) -> Recompressed:
    """Bring a store's package pages into a form; those that have it are left alone, so that twice is once.

    A call that was killed is made again: it finds what is done and goes on.

    Parameters
    ----------
    url : str or path
        The store; others may go on using it.
    form : Form
    ops : collection of str, optional
        Only packages of these ops.
    progress : callable, optional
        In pages.

    Raises
    ------
    StoreError, SchemaError
    ParamError
        The store has no package of an op.
    """
    database = _opened(url, readonly=False)
    try:
        todo, said = _planned(database, form, ops)
        total = said.pages
        done = total - sum(len(step.pages) for step in todo.steps)
        batch: list[_Made] = []
        for step in todo.steps:
            made = _make(database, step, form.encoding, said)
            done += len(step.pages)
            if made is not None:
                batch.append(made)
            if sum(each.nbytes for each in batch) >= BATCH_BYTES:
                _write(database, batch, said)
                batch = []
            if progress:
                progress(done, total)
        _write(database, batch, said)
        database.give_back()
    finally:
        database.close()
    return said


def forecast(url: StoreUrl, form: Form, *, ops: Collection[str] | None = None) -> Recompressed:
    """Say what `recompress` would do; nothing is written. Bytes are measured on some steps, if there are many."""
    database = _opened(url, readonly=True)
    try:
        todo, said = _planned(database, form, ops)
        steps = todo.steps
        if len(steps) > SAMPLE:
            steps = [steps[i * len(todo.steps) // SAMPLE] for i in range(SAMPLE)]
        before = after = 0
        for step in steps:
            made = _make(database, step, form.encoding, said)
            if made is not None:
                before += sum(page.nbytes for page in made.sources)
                after += made.nbytes
    finally:
        database.close()
    whole = sum(step.nbytes for step in todo.steps)
    said.rewritten = sum(len(step.pages) for step in todo.steps) - (said.damaged - len(todo.damaged))
    said.pages_after += sum(step.made - len(step.pages) for step in todo.steps)
    said.bytes_after += round(whole * after / before) - whole if before else 0
    pages = sum(len(step.pages) for step in steps)
    total = sum(len(step.pages) for step in todo.steps)
    said.measured = "all pages" if len(steps) == len(todo.steps) else f"{pages:,} of {total:,} pages"
    return said


def _opened(url: StoreUrl, *, readonly: bool) -> Database:
    return open_database(locate_lasting(url), readonly=readonly, moves=True, makes=False)


def _planned(database: Database, form: Form, ops: Collection[str] | None) -> tuple[Plan, Recompressed]:
    form = replace(form, page_bytes=form.page_bytes or database.page_bytes)
    with database.read() as connection:
        known = ops_of(connection)
        for op in ops or ():
            if op not in known:
                message = f"the store has no packages of op {op!r}; it has {', '.join(known) or 'none'}"
                raise ParamError(message)
        made = plan(connection, form, ops)
        node_pages = connection.exec_driver_sql("SELECT count(*) FROM node_page WHERE id >= 0").scalar_one()
    lying = [*made.right, *(page for step in made.steps for page in step.pages)]
    pages, nbytes = len(lying) + len(made.damaged), sum(page.nbytes for page in lying)
    return made, Recompressed(
        pages=pages,
        pages_after=pages,
        packages=sum(page.n for page in lying),
        right=len(made.right),
        damaged=len(made.damaged),
        bytes_before=nbytes,
        bytes_after=nbytes,
        node_pages_left=node_pages,
    )


def _make(database: Database, step: Step, encoding: Encoding, said: Recompressed) -> _Made | None:
    """Do a step in memory, without the pages of it that are damaged; None where nothing is left to do."""
    with database.read() as connection:
        blobs = select_pages(connection, [page.page_id for page in step.pages])
    sources: list[Lying] = []
    pages: list[Page] = []
    for lying in step.pages[::-1]:
        blob = blobs.pop(lying.page_id, None)
        if blob is None or blob.digest != lying.digest:
            said.changed += 1
        elif (page := _decoded(blob)) is None:
            said.damaged += 1
        else:
            sources.append(lying)
            pages.append(page)
    if not pages:
        return None
    whole = joined(pages)
    edges = (len(pages) == 1 and cuts(whole.n, step.limit)) or [0, whole.n]
    if len(pages) == 1 and len(edges) == 2 and sources[0].encoding == str(encoding):
        return None
    ids = np.repeat([page.page_id for page in sources], [page.n for page in pages])
    was = np.stack([ids, np.concatenate([np.arange(page.n) for page in pages])], axis=1)
    spans = list(pairwise(edges))
    rows = tuple(PageRow.of(_part(whole, *span), encoding) for span in spans)
    return _Made(step, tuple(sources), rows, tuple(was[low:high] for low, high in spans))


def _decoded(blob: Blob) -> Page | None:
    try:
        return decode_page(blob, provenance=True)
    except CorruptPackageError:
        return None


def _part(page: Page, low: int, high: int) -> Page:
    """Some rows of a page, with their share of its cost; the shares of all parts are the whole."""
    if high - low == page.n:
        return page
    return replace(take(page, slice(low, high)), cost_ns=page.cost_ns * high // page.n - page.cost_ns * low // page.n)


def _write(database: Database, batch: Sequence[_Made], said: Recompressed) -> None:
    """Put what was made in the place of what it was made of, in one transaction."""
    if not batch:
        return
    written = database.write(partial(_replaced, batch))
    for made in written:
        said.rewritten += len(made.sources)
        said.pages_after += len(made.rows) - len(made.sources)
        said.bytes_after += made.nbytes - sum(page.nbytes for page in made.sources)
    said.changed += sum(len(made.sources) for made in batch) - sum(len(made.sources) for made in written)


def _replaced(batch: Sequence[_Made], connection: Connection) -> list[_Made]:
    settle(connection)  # packages are moved by their rows
    written = [made for made in batch if _stands(connection, made.sources)]
    for made in written:
        _replace(connection, made)
    return written


def _stands(connection: Connection, pages: Sequence[Lying]) -> bool:
    """Whether pages still are what was read of them."""
    found = select_in(connection, "SELECT id, digest FROM page WHERE id IN", [page.page_id for page in pages])
    return dict(found) == {page.page_id: page.digest for page in pages}


def _replace(connection: Connection, made: _Made) -> None:
    host, *guests = (page.page_id for page in made.sources)
    update_page(connection, host, made.rows[0])
    ids = [host, *(insert_page(connection, row) for row in made.rows[1:])]
    moves = list(_moves(made, ids))
    if moves:
        connection.exec_driver_sql(_MOVE, sorted(moves, key=lambda move: move[2]))
    _move_access(connection, made, ids)
    if guests:
        connection.exec_driver_sql("DELETE FROM page WHERE id = ?", [(page_id,) for page_id in guests])


def _moves(made: _Made, ids: Sequence[int]) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (page, slot, hash, page that was, slot that was) of each package that does not stay in its place."""
    for page_id, row, was in zip(ids, made.rows, made.was, strict=True):
        for slot, (hashed, (old_page, old_slot)) in enumerate(zip(row.hashes.tolist(), was.tolist(), strict=True)):
            if (page_id, slot) != (old_page, old_slot):
                yield page_id, slot, hashed, old_page, old_slot


def _move_access(connection: Connection, made: _Made, ids: Sequence[int]) -> None:
    """Give the new pages the last use and the hits of the old ones, each its share."""
    sql = "SELECT page_id, last_use, hits FROM page_access WHERE page_id IN"
    rows_of = select_in(connection, sql, [page.page_id for page in made.sources])
    found = [tuple(map(row_checks.count, row)) for row in rows_of]
    if not found:
        return
    last, hits = max(row[1] for row in found), sum(row[2] for row in found)
    rows = np.cumsum([0, *(row.n for row in made.rows)]).tolist()
    shares = [hits * high // rows[-1] - hits * low // rows[-1] for low, high in pairwise(rows)]
    connection.exec_driver_sql("DELETE FROM page_access WHERE page_id = ?", [(row[0],) for row in found])
    connection.exec_driver_sql(
        "INSERT INTO page_access VALUES (?, ?, ?)",
        [(each, last, share) for each, share in zip(ids, shares, strict=True)],
    )
