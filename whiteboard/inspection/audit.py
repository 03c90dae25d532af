"""Audit: packages computed again from the values that they came from, and compared in units in the last place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import DtypeError, ParamError, UnknownOpError, WhiteboardError
from whiteboard.evaluation import contents
from whiteboard.evaluation.session import Session
from whiteboard.identity import keys, lineage
from whiteboard.inspection import proof
from whiteboard.ops.fingerprint.decoding import decode_params
from whiteboard.ops.spec import OpSpec
from whiteboard.records.distance import FARTHEST, ulps
from whiteboard.records.packages import Page, Sampled
from whiteboard.records.systems import NodeValues
from whiteboard.types import Array

NO_SOURCES: Final = "their sources were no nodes, and are not kept in their page"
NO_VALUES: Final = "no commit holds the values of their sources"
NO_COTANGENT: Final = "they are VJPs of a cotangent, which is not kept in their page"
NO_PARAMS: Final = "their page does not say the values of their parameters"
NO_OP: Final = "there is no such op here"
OTHER_KEY: Final = "made with parameters or code that are not those of the op here"
OTHER_ARITHMETIC: Final = "made where the processor, NumPy or BLAS round otherwise, and their op's bits depend on that"
FAILED: Final = "the op raised an error when they were computed again"
DAMAGED: Final = "their page is damaged"
OTHER_SOURCES: Final = "what their page keeps as their sources is not what their keys are made of"
MOST_MIXTURES: Final = 256
"""So many ways are tried in which the slots of an op may have read several attributes of a system's nodes."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A package that is not what its op gives: `ulp` by name of the array (``y``, ``g0``, …) that differs.

    `src_ids` and `versions` are empty where its sources were no nodes.
    """

    op: str
    key: str
    page_id: int
    src_ids: tuple[int, ...]
    versions: tuple[int, ...]
    ulp: Mapping[str, int]


@dataclass(slots=True)
class OpAudit:
    """What was found of one op: packages sampled and computed again, how many differ, and the largest distance.

    Of those that were computed again, `kept` were from sources in their page, the others from nodes.
    """

    sampled: int = 0
    checked: int = 0
    kept: int = 0
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
        """Whether every package that was computed again is right, and every page could be read, and says the truth."""
        return not (self.differences or self.unchecked[DAMAGED] or self.unchecked[OTHER_SOURCES])


def audit(pages: Iterable[Sampled], values: Sequence[NodeValues], op: Callable[[str], OpSpec]) -> AuditReport:
    """Compute packages again and compare.

    A package is computed from the sources that its page keeps, or from the values for which its key comes out: the key
    vouches for op, code, parameters and sources, so that a difference is the package's. Packages of ``exact`` ops must
    agree in every bit, and so must those of ``portable`` ones, wherever they were made; those of ``tolerance`` ops to
    half of the digits, as their last ones depend on the bin.

    Parameters
    ----------
    pages : iterable of Sampled
        With provenance; one is in memory at a time.
    values : sequence of NodeValues
        What systems hold, one an attribute.
    op : callable
        Name to `OpSpec`, raising `UnknownOpError`.
    """
    report = AuditReport()
    for each in pages:
        report.ops[each.op].sampled += each.n
        if why := _refusal(each):
            report.unchecked[why] += each.n
        elif each.page is not None:
            _audit(each.page_id, each.page, values, op, report)
    report.unchecked += Counter()  # what counts nothing goes
    return report


def _refusal(each: Sampled) -> str:
    """Why nothing of a page can be computed again, whatever its op; empty where something may."""
    page = each.page
    if page is None or page.op != each.op:
        return DAMAGED
    if not page.sources and (page.src_ids is None or page.versions is None or not page.src_ids.shape[1]):
        return NO_SOURCES
    return ""


def _audit(
    page_id: int, page: Page, values: Sequence[NodeValues], op: Callable[[str], OpSpec], report: AuditReport
) -> None:
    try:
        made = _made(page, op(page.op))
    except UnknownOpError:
        made = NO_OP
    if isinstance(made, str):
        report.unchecked[made] += page.n
        return
    row = report.ops[page.op]
    again = _Again(page_id, page, made, report.unchecked, row)
    wrong = again.from_page(page.sources) if page.sources else again.from_nodes(values)
    row.differing += len(wrong)
    report.differences += wrong


@dataclass(frozen=True, slots=True)
class _Made:
    """How the packages of a page were made, if it was by the op as it is here.

    `names` is what the page says that its keys are made of; None for one of an early version, or of long parameters.
    """

    spec: OpSpec
    params: dict[str, Any]
    gradient: str
    names: proof.Names | None

    def of(self, xs: Sequence[Array]) -> proof.Names | str:
        """What keys of these sources are made of, or which: the op, or the machine, is another than it was."""
        try:
            spec = self.spec.at(tuple(x.shape[1:] for x in xs), xs[0].dtype, self.params)
            here = keys.Identity.of(spec, self.params, self.gradient)
        except (ParamError, DtypeError):
            return OTHER_KEY
        if self.names is None:
            return proof.Names(keys.scheme_of(x.nbytes // len(x) for x in xs), here)
        then = self.names.identity
        if (here := here._replace(params=then.params)) == then:
            return self.names
        return OTHER_ARITHMETIC if here._replace(arithmetic=then.arithmetic) == then else OTHER_KEY

    def run(self, xs: list[Array], cotangent: Array | None) -> dict[str, Array]:
        """Compute packages, by the names of their arrays."""
        try:
            spec = self.spec.at(tuple(x.shape[1:] for x in xs), xs[0].dtype, self.params)
            with Session(spec, self.params, xs) as session, np.errstate(all="ignore"):
                y, *beside = session.run(cotangent)
                return {"y": y, **{f"g{slot}": array for slot, array in enumerate(beside)}}
        except WhiteboardError:
            # An op that does not take its own sources gives none of the arrays: all of them differ.
            return {}


def _made(page: Page, spec: OpSpec) -> _Made | str:
    """How the packages of a page were made, or why they cannot be computed again."""
    said = lineage.said(page.lineage)
    names = proof.named(page.op, said)
    try:
        if said is None or names is None:
            return _Made(spec, spec.bind(None), contents.kind(spec, None), None)
        params = spec.bind(decode_params(said.now or b"", spec.params))
    except ParamError:
        return OTHER_KEY
    except ValueError:
        return NO_PARAMS
    if said.gradient == "cotangent" and not page.sources:
        return NO_COTANGENT
    return _Made(spec, params, said.gradient, names)


@dataclass(frozen=True, slots=True)
class _Again:
    """One page, computed again; `unchecked` and `row` count."""

    page_id: int
    page: Page
    made: _Made
    unchecked: Counter[str]
    row: OpAudit

    def from_page(self, sources: tuple[Array, ...]) -> list[Difference]:
        """Compute from the sources that the page keeps; what differs."""
        xs, cotangent = list(sources), None
        if self.made.gradient == "cotangent":
            *xs, cotangent = xs
        names = self.made.of(xs) if xs else OTHER_KEY
        right = self._true(names, sources)
        rows = np.flatnonzero(right)
        if isinstance(names, str):
            self.unchecked[names] += len(rows)
            return []
        before = self.row.checked
        wrong = self._compare(rows, [x[rows] for x in xs], None if cotangent is None else cotangent[rows])
        self.row.kept += self.row.checked - before
        return wrong

    def _true(self, names: proof.Names | str, sources: tuple[Array, ...]) -> NDArray[np.bool_]:
        """Which packages have the sources that their keys are made of; counts the others."""
        page, said = self.page, self.made.names or names
        if isinstance(said, str):
            return np.ones(page.n, np.bool_)
        right = said.prove(proof.tokens_of(sources, said.scheme), page.keys)
        self.unchecked[OTHER_SOURCES if self.made.names else OTHER_KEY] += int((~right).sum())
        return right

    def from_nodes(self, values: Sequence[NodeValues]) -> list[Difference]:
        """Compute from what systems hold of the nodes; what differs."""
        left, met, why = set(range(self.page.n)), set[int](), OTHER_KEY
        wrong: list[Difference] = []
        for each in _readings(values, len(self._nodes(0))):
            if not left:
                break
            for rows, xs in self._sources(each, sorted(left)):
                met.update(rows.tolist())
                if isinstance(names := self.made.of(xs), str):
                    why = names
                    continue
                right = np.flatnonzero(names.prove(proof.tokens_of(xs, names.scheme), self.page.keys[rows]))
                left.difference_update(rows[right].tolist())
                wrong += self._compare(rows[right], [x[right] for x in xs], None)
        self.unchecked[NO_VALUES] += len(left - met)
        self.unchecked[why] += len(left & met)
        return wrong

    def _sources(self, values: Sequence[NodeValues], rows: Sequence[int]) -> list[tuple[NDArray[np.intp], list[Array]]]:
        """Rows whose sources are all among the values, in groups of equal signature, with their stacked sources.

        `values` are those of each slot. An op of one source with several has got the stack of these.
        """
        groups: dict[Any, list[tuple[int, list[Array]]]] = defaultdict(list)
        for row in rows:
            places = list(zip(values, self._nodes(row), strict=True))
            xs = [value for held, place in places if (value := held.at(*place)) is not None]
            if len(xs) == len(places):
                if self.made.spec.arity == 1 and len(xs) > 1 and len({x.shape for x in xs}) == 1:
                    xs = [np.stack(xs)]
                groups[tuple((x.dtype.str, x.shape) for x in xs)].append((row, xs))
        return [
            (
                np.array([row for row, _ in group], np.intp),
                [np.stack(each) for each in zip(*(xs for _, xs in group), strict=True)],
            )
            for group in groups.values()
        ]

    def _nodes(self, row: int) -> list[tuple[int, int]]:
        """Ids and versions of the nodes that a package was computed from; none where its sources were no nodes."""
        ids, versions = self.page.src_ids, self.page.versions
        if ids is None or versions is None or not len(ids):
            return []
        return list(zip(ids[row].tolist(), versions[row].tolist(), strict=True))

    def _compare(self, rows: NDArray[np.intp], xs: list[Array], cotangent: Array | None) -> list[Difference]:
        if not len(rows):
            return []
        try:
            made = self.made.run(xs, cotangent)
        except Exception:  # a user's function may raise anything, and the others are still to be looked at
            self.unchecked[FAILED] += len(rows)
            return []
        self.row.checked += len(rows)
        stored = self.page.arrays
        apart = {
            name: _distance(stored.get(name), made.get(name), rows) for name in sorted(made.keys() | stored.keys())
        }
        self.row.max_ulp = max([self.row.max_ulp, *(int(each.max()) for each in apart.values())])
        bad = {name: each > 0 for name, each in apart.items()}
        if self.made.spec.exactness == "tolerance":
            for name, each in bad.items():
                each &= ~_close(stored.get(name), made.get(name), rows)
        wrong = np.flatnonzero(np.logical_or.reduce(list(bad.values())))
        return [
            self._difference(int(rows[i]), {name: int(each[i]) for name, each in apart.items() if bad[name][i]})
            for i in wrong.tolist()
        ]

    def _difference(self, row: int, ulp: Mapping[str, int]) -> Difference:
        nodes = self._nodes(row)
        ids, versions = tuple(node for node, _ in nodes), tuple(version for _, version in nodes)
        return Difference(self.page.op, self.page.keys[row].tobytes().hex(), self.page_id, ids, versions, ulp)


def _readings(values: Sequence[NodeValues], slots: int) -> Iterator[tuple[NodeValues, ...]]:
    """Yield which attribute of a system each slot may have read: all the same one, then some of the mixtures."""
    for each in values:
        yield (each,) * slots
    for name in dict.fromkeys(each.system for each in values):
        attrs = [each for each in values if each.system == name]
        mixed = (mixture for mixture in product(attrs, repeat=slots) if len({each.attr for each in mixture}) > 1)
        yield from islice(mixed, MOST_MIXTURES)


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
