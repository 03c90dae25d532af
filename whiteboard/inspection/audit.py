"""Audit: packages computed again from the values that they came from, and compared in units in the last place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import DtypeError, ParamError, UnknownOpError, WhiteboardError
from whiteboard.evaluation import contents
from whiteboard.evaluation.session import Session
from whiteboard.identity import keys
from whiteboard.ops.spec import OpSpec
from whiteboard.records.distance import FARTHEST, ulps
from whiteboard.records.packages import Page, Sampled
from whiteboard.records.systems import NodeValues
from whiteboard.types import Array, Ids

NO_SOURCES: Final = "their sources were no nodes"
NO_VALUES: Final = "no commit holds the values of their sources"
NO_OP: Final = "there is no such op here"
OTHER_KEY: Final = "made with parameters, a cotangent, code or arithmetic that are not those of the op here"
DAMAGED: Final = "their page is damaged"


@dataclass(frozen=True, slots=True)
class Difference:
    """A package that is not what its op gives: `ulp` by name of the array (``y``, ``g0``, …) that differs."""

    op: str
    key: str
    page_id: int
    src_ids: tuple[int, ...]
    versions: tuple[int, ...]
    ulp: Mapping[str, int]


@dataclass(slots=True)
class OpAudit:
    """What was found of one op: packages sampled and computed again, how many differ, and the largest distance."""

    sampled: int = 0
    checked: int = 0
    differing: int = 0
    max_ulp: int = 0


@dataclass(slots=True)
class AuditReport:
    """What an audit looked at, by op, each package that is wrong, and why others could not be computed again."""

    ops: dict[str, OpAudit] = field(default_factory=lambda: defaultdict(OpAudit))
    differences: list[Difference] = field(default_factory=list)
    unchecked: Counter[str] = field(default_factory=Counter)

    @property
    def checked(self) -> int:
        """Packages that were computed again."""
        return sum(row.checked for row in self.ops.values())

    @property
    def ok(self) -> bool:
        """Whether every package that was computed again is right, and every page could be read."""
        return not self.differences and not self.unchecked[DAMAGED]


def audit(pages: Iterable[Sampled], values: Sequence[NodeValues], op: Callable[[str], OpSpec]) -> AuditReport:
    """Compute packages again and compare.

    A package is computed from the values for which its key comes out: the key vouches for op, code, parameters and
    sources, so that a difference is the package's. Packages of ``exact`` ops must agree in every bit; those of
    ``tolerance`` ops to half of the digits, as their last ones depend on the bin.

    Parameters
    ----------
    pages : iterable of Sampled
        With provenance.
    values : sequence of NodeValues
        What systems hold, one an attribute.
    op : callable
        Name to `OpSpec`, raising `UnknownOpError`.
    """
    report = AuditReport()
    for each in pages:
        page, n = each.page, each.n
        row = report.ops[each.op]
        row.sampled += n
        if page is None:
            report.unchecked[DAMAGED] += n
            continue
        if page.src_ids is None or page.versions is None or not page.src_ids.shape[1]:
            report.unchecked[NO_SOURCES] += n
            continue
        try:
            spec = op(each.op)
        except UnknownOpError:
            report.unchecked[NO_OP] += n
            continue
        wrong = _Page(each.page_id, page, page.src_ids, page.versions, spec).check(values, report.unchecked, row)
        row.differing += len(wrong)
        report.differences += wrong
    return report


@dataclass(frozen=True, slots=True)
class _Page:
    """One page and the op that computed it."""

    page_id: int
    page: Page
    src_ids: Ids
    versions: Ids
    spec: OpSpec

    def check(self, values: Sequence[NodeValues], unchecked: Counter[str], row: OpAudit) -> list[Difference]:
        left, met = set(range(self.page.n)), set[int]()
        wrong: list[Difference] = []
        for each in values:
            for rows, xs in self._sources(each, sorted(left)):
                met.update(rows.tolist())
                right = self._keyed(rows, xs)
                if not len(right):
                    continue
                left.difference_update(rows[right].tolist())
                row.checked += len(right)
                wrong += self._compare(rows[right], [x[right] for x in xs], row)
        unchecked[NO_VALUES] += len(left - met)
        unchecked[OTHER_KEY] += len(left & met)
        return wrong

    def _sources(self, values: NodeValues, rows: Sequence[int]) -> list[tuple[NDArray[np.intp], list[Array]]]:
        """Rows whose sources are all among the values, in groups of equal signature, with their stacked sources."""
        groups: dict[Any, list[tuple[int, list[Array]]]] = defaultdict(list)
        for row in rows:
            places = zip(self.src_ids[row].tolist(), self.versions[row].tolist(), strict=True)
            xs = [value for place in places if (value := values.at(*place)) is not None]
            if len(xs) == self.src_ids.shape[1]:
                groups[tuple((x.dtype.str, x.shape) for x in xs)].append((row, xs))
        return [
            (
                np.array([row for row, _ in group], np.intp),
                [np.stack(each) for each in zip(*(xs for _, xs in group), strict=True)],
            )
            for group in groups.values()
        ]

    def _keyed(self, rows: NDArray[np.intp], xs: Sequence[Array]) -> NDArray[np.intp]:
        """Which of the rows have the key that these sources give."""
        try:
            spec = self.spec.at(tuple(x.shape[1:] for x in xs), xs[0].dtype, self.spec.bind(None))
            prefix = keys.key_prefix(keys.Identity.of(spec, spec.bind(None), contents.kind(spec, None)), len(xs))
        except (ParamError, DtypeError):
            return np.empty(0, np.intp)
        made = keys.keys(prefix, np.stack([keys.tokens(x) for x in xs], axis=1))
        there = np.frombuffer(b"".join(made), np.uint8).reshape(-1, keys.DIGEST_BYTES)
        return np.flatnonzero((there == self.page.keys[rows]).all(axis=1))

    def _compare(self, rows: NDArray[np.intp], xs: list[Array], row: OpAudit) -> list[Difference]:
        made = _computed(self.spec, xs)
        fields = made.keys() | self.page.arrays.keys()
        apart = {name: _distance(self.page.arrays.get(name), made.get(name), rows) for name in sorted(fields)}
        row.max_ulp = max([row.max_ulp, *(int(each.max()) for each in apart.values())])
        bad = {name: each > 0 for name, each in apart.items()}
        if self.spec.exactness == "tolerance":
            for name, each in bad.items():
                each &= ~_close(self.page.arrays.get(name), made.get(name), rows)
        wrong = np.flatnonzero(np.logical_or.reduce(list(bad.values())))
        return [
            Difference(
                self.page.op,
                self.page.keys[rows[i]].tobytes().hex(),
                self.page_id,
                tuple(self.src_ids[rows[i]].tolist()),
                tuple(self.versions[rows[i]].tolist()),
                {name: int(each[i]) for name, each in apart.items() if bad[name][i]},
            )
            for i in wrong.tolist()
        ]


def _computed(spec: OpSpec, xs: list[Array]) -> dict[str, Array]:
    try:
        params = spec.bind(None)
        spec = spec.at(tuple(x.shape[1:] for x in xs), xs[0].dtype, params)
        with Session(spec, params, xs) as session, np.errstate(all="ignore"):
            y, *beside = session.run()
            return {"y": y, **{f"g{slot}": array for slot, array in enumerate(beside)}}
    except WhiteboardError:
        # An op that does not take its own sources gives none of the arrays: all of them differ.
        return {}


def _distance(stored: Array | None, made: Array | None, rows: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Return the largest distance of each row in units in the last place, (n,)."""
    if stored is None or made is None or stored.dtype != made.dtype or stored.shape[1:] != made.shape[1:]:
        return np.full(len(rows), FARTHEST, np.uint64)
    apart = ulps(stored[rows], made).reshape(len(rows), -1)
    return np.asarray(apart.max(axis=1, initial=np.uint64(0)))


def _close(stored: Array | None, made: Array | None, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether rows agree to half of the digits of their largest element."""
    if stored is None or made is None or stored.dtype != made.dtype or stored.shape[1:] != made.shape[1:]:
        return np.zeros(len(rows), bool)
    a, b = stored[rows].reshape(len(rows), -1), made.reshape(len(rows), -1)
    with np.errstate(all="ignore"):
        size = np.abs(b).max(axis=1, initial=0, keepdims=True)
        near = np.abs(a - b) <= np.sqrt(np.finfo(b.dtype).eps) * size
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.asarray((near | same).all(axis=1))
