"""Table: the packages of an op as columns, a page at a time: parameters, sources, y, and how each came about."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import ParamError
from whiteboard.identity import lineage
from whiteboard.inspection import proof
from whiteboard.inspection.condition import parse
from whiteboard.ops.fingerprint.decoding import decode, param_items
from whiteboard.records.packages import Page, Sampled

DAMAGED: Final = "all is left out: it is damaged; look with `whiteboard verify`"
OTHER_KEY: Final = "all is left out: what the page says of their keys does not give these"
OTHER_SOURCES: Final = "the sources are left out: what the page keeps is not what their keys are made of"
UNPROVEN: Final = "the sources are left out: the page does not say all that would prove them"

_NAMED: Final = 10

LAST: Final = ("cost_seconds", "src_ids", "versions", "version", "fingerprint", "key")
"""Columns that come after parameters, sources, y and gradients, in this order."""
ALWAYS: Final = ("y", "cost_seconds", "version", "fingerprint", "key")
"""Columns that every table has."""

_OURS: Final = re.compile(rf"[xgj]\d+|y|cotangent|{'|'.join(LAST)}")

Column: TypeAlias = NDArray[Any] | list[Any]


@dataclass(frozen=True, slots=True)
class Omission:
    """What a table lacks: of so many packages of a page, and why."""

    page: int
    packages: int
    why: str


class Table(dict[str, Any]):
    """Columns by name, of one length: what ``pandas.DataFrame`` takes.

    A column of numbers is an array, (n,); one of arrays, of texts, or of what some rows lack (None) is a list.

    Attributes
    ----------
    omitted : list of Omission
        Packages that are in the store and not in the table, or not with their sources.
    """

    def __init__(self, columns: dict[str, Column], omitted: list[Omission]) -> None:
        super().__init__(columns)
        self.omitted = omitted


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of one page: columns of n values, all that the page has."""

    n: int
    columns: dict[str, Column]

    def take(self, rows: Sequence[int], names: Collection[str] | None) -> Rows:
        """Return some rows, and of these some columns, in memory of their own."""
        chosen = self.columns if names is None else {name: self.columns[name] for name in names if name in self.columns}
        return Rows(len(rows), {name: _taken(column, rows) for name, column in chosen.items()})

    def at(self, row: int) -> Callable[[str], Any]:
        """Return the lookup of one row's values; None for a column that there is not."""
        return lambda name: None if (column := self.columns.get(name)) is None else column[row]

    def each(self) -> Iterator[dict[str, Any]]:
        """Yield the rows as dicts."""
        for row in range(self.n):
            yield {name: column[row] for name, column in self.columns.items()}


class Reading:
    """One way through the pages of an op, of which a part is wanted.

    Parameters
    ----------
    op : str
    where : str, optional
        A condition: which rows.
    columns : sequence of str, optional
        Which columns; all by default.
    grads : bool
        Whether with gradients, and with packages that hold the VJP of a cotangent.
    limit : int, optional
        At most so many rows.

    Attributes
    ----------
    omitted : list of Omission
        Filled on the way.
    pages : int
        So many were read.
    grads, sources : bool
        Whether these have to be read.
    columns : sequence of str, or None

    Raises
    ------
    ParamError
        What is given cannot be.
    """

    def __init__(self, op: str, where: Any = None, columns: Any = None, grads: bool = False, limit: Any = None) -> None:
        if not (limit is None or (type(limit) is int and limit > 0)):
            msg = f"limit: expected an int from 1, got {limit!r}"
            raise ParamError(msg)
        self.op, self._limit = op, limit
        self._where = None if where is None else parse(where)
        self.columns = None if columns is None else _names(columns)
        named = {*(self.columns or ()), *(self._where.columns if self._where else ())}
        self.grads = grads or any(re.fullmatch(r"[gj]\d+|cotangent", name) for name in named)
        self.sources = columns is None or any(re.fullmatch(r"x\d+|cotangent", name) for name in named)
        self.omitted: list[Omission] = []
        self.pages = self._rows_seen = 0
        self._known = set(ALWAYS)

    def rows(self, pages: Iterable[Sampled]) -> Iterator[Rows]:
        """Yield the rows that are wanted, page by page.

        Raises
        ------
        ParamError
            A column is named that no page has, or the condition cannot be asked of a row.
        """
        left = self._limit
        for each in pages:
            self.pages += 1
            # Where a column is not known yet, the pages that are left say whether there is one.
            if left == 0 and not any(self._unknown()):
                return
            rows = self._rows(each)
            self._known |= rows.columns.keys()
            self._rows_seen += rows.n
            found = [row for row in range(rows.n) if self._where is None or self._where.holds(rows.at(row))][:left]
            if left is not None:
                left -= len(found)
            if found:
                yield rows.take(found, self.columns)
        self._expect_known()

    def _expect_known(self) -> None:
        """Raise for a column that is named and that no row has; of an empty table nothing is known."""
        for word, missing in self._unknown():
            if self._rows_seen:
                there = ", ".join(sorted(self._known, key=place))
                msg = f"{word}: the table of op {self.op!r} has no column {missing!r}; it has {there}"
                raise ParamError(msg)

    def _unknown(self) -> Iterator[tuple[str, str]]:
        """Yield the first column of each argument that was in no page so far."""
        for word, names in (("columns", self.columns or ()), ("where", self._where.columns if self._where else ())):
            if missing := sorted(set(names) - self._known):
                yield word, missing[0]

    def _rows(self, each: Sampled) -> Rows:
        """All rows of a page, as columns; what is not to be believed is left out and told."""
        page = each.page
        if page is None or "y" not in page.arrays:
            self._omit(each, each.n, DAMAGED)
            return Rows(0, {})
        said = lineage.said(page.lineage)
        if said is not None and said.gradient == "cotangent" and not self.grads:
            return Rows(0, {})  # y is in the package of ones too
        names = proof.named(page.op, said)
        right = np.ones(page.n, np.bool_)
        if names is not None and (tokens := proof.tokens_in(page, names.scheme)) is not None:
            right = names.prove(tokens, page.keys)
            self._omit(each, int((~right).sum()), OTHER_KEY)
        sources = self._sources(each, page, names, right)
        columns = {**_params(said, page.n), **sources, **_results(page, said), **_origin(page, said)}
        return Rows(page.n, columns).take(np.flatnonzero(right).tolist(), None)

    def _sources(
        self, each: Sampled, page: Page, names: proof.Names | None, right: NDArray[np.bool_]
    ) -> dict[str, Column]:
        """The sources that a page keeps, None for those that are not what their keys are made of."""
        if not page.sources:
            return {}
        if names is None:
            self._omit(each, page.n, UNPROVEN)
            return {}
        true = proof.faithful(page, names.scheme)
        self._omit(each, int((right & ~true).sum()), OTHER_SOURCES)
        slots = [f"x{slot}" for slot in range(len(page.sources))]
        if names.identity.gradient == "cotangent":
            slots[-1] = "cotangent"
        return {slot: _where(true, source) for slot, source in zip(slots, page.sources, strict=True)}

    def _omit(self, each: Sampled, packages: int, why: str) -> None:
        if packages:
            self.omitted.append(Omission(each.page_id, packages, why))


def collected(reading: Reading, pages: Iterable[Sampled]) -> Table:
    """Return the rows of a reading as one table."""
    n = 0
    parts: dict[str, list[tuple[int, Column]]] = {}
    for rows in reading.rows(pages):
        for name, column in rows.columns.items():
            parts.setdefault(name, []).append((n, column))
        n += rows.n
    names = reading.columns or sorted({*ALWAYS, *parts}, key=place)
    return Table({name: _joined(parts.get(name, ()), n) for name in names}, reading.omitted)


def place(name: str) -> tuple[int, int, str]:
    """Where a column stands: parameters, sources, y, gradients, and the rest."""
    if not _OURS.fullmatch(name):
        return 0, 0, name
    if name in LAST:
        return 5, LAST.index(name), name
    groups = {"x": 1, "y": 2, "g": 3, "j": 3, "c": 4}
    return groups[name[0]], int(name[1:]) if name[0] in "xgj" else 0, name


def told(omitted: Iterable[Omission]) -> str:
    """Return in one line what a table lacks: how many packages, where, and why."""
    by_why: dict[str, list[Omission]] = {}
    for each in omitted:
        by_why.setdefault(each.why, []).append(each)
    parts = []
    for why, alike in by_why.items():
        pages = ", ".join(str(each.page) for each in alike[:_NAMED]) + " and others" * (len(alike) > _NAMED)
        word = "page" if len(alike) == 1 else "pages"
        parts.append(f"of {sum(each.packages for each in alike):,} packages on {word} {pages} {why}")
    return "; ".join(parts)


def _names(columns: Any) -> tuple[str, ...]:
    """Check a choice of columns."""
    if isinstance(columns, str) or not isinstance(columns, Iterable):
        msg = f"columns: expected a list of names, got {columns!r}"
        raise ParamError(msg)
    names = tuple(columns)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        msg = f"columns: expected names of columns, each once, got {list(names)!r}"
        raise ParamError(msg)
    return names


def _params(said: lineage.Said | None, n: int) -> dict[str, Column]:
    """The parameters of a page's packages: values, and texts where only those are known."""
    if said is None:
        return {}
    try:
        items = param_items(said.now or b"")
    except ValueError:
        items = {}
    values = {name: _decoded(items.get(name), text) for name, text in said.texts.items()}
    return {f"params.{name}" if _OURS.fullmatch(name) else name: [value] * n for name, value in values.items()}


def _decoded(item: bytes | None, text: str) -> Any:
    try:
        return text if item is None else decode(item)
    except ValueError:
        return text


def _results(page: Page, said: lineage.Said | None) -> dict[str, Column]:
    names = [name for name in page.arrays if re.fullmatch(r"y|g\d+", name)]  # a page may say anything
    jacobian = said is not None and said.gradient == "jacobian"
    return {name.replace("g", "j") if jacobian else name: page.arrays[name] for name in sorted(names, key=place)}


def _origin(page: Page, said: lineage.Said | None) -> dict[str, Any]:
    columns: dict[str, Column] = {"cost_seconds": np.full(page.n, page.cost_ns / max(page.n, 1) / 1e9)}
    for name, column in (("src_ids", page.src_ids), ("versions", page.versions)):
        if column is not None:
            columns[name] = [tuple(row) for row in column.tolist()]
    columns["version"] = [None if said is None else said.version] * page.n
    columns["fingerprint"] = [None if said is None else said.fingerprint.hex()] * page.n
    columns["key"] = [row.tobytes().hex() for row in page.keys]
    return columns


def _where(true: NDArray[np.bool_], source: NDArray[Any]) -> Column:
    return source if true.all() else [row if good else None for good, row in zip(true.tolist(), source, strict=True)]


def _taken(column: Any, rows: Sequence[int]) -> Column:
    if isinstance(column, np.ndarray):
        return np.array(column[list(rows)])
    return [column[row] for row in rows]


def _joined(parts: Sequence[tuple[int, Column]], n: int) -> Column:
    """One column of its parts, each with the row where it begins; None where there is none."""
    whole = sum(len(part) for _, part in parts) == n
    if whole and n and all(isinstance(part, np.ndarray) and part.ndim == 1 for _, part in parts):
        dtypes = {np.asarray(part).dtype for _, part in parts}
        if len(dtypes) == 1:
            return np.concatenate([part for _, part in parts])
    values: list[Any] = [None] * n
    for start, part in parts:
        values[start : start + len(part)] = list(part)
    return _numbers(values)


def _numbers(values: list[Any]) -> Column:
    """Numbers of one type as an array, anything else as it is."""
    kinds = {type(value) for value in values}
    if len(kinds) != 1 or not issubclass(kind := kinds.pop(), bool | int | float | np.number | np.bool_):
        return values
    try:
        return np.array(values, np.int64 if kind is int else None)
    except OverflowError:
        return values
