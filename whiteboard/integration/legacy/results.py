"""Results of an older cache into a store, under the keys that a later call of the op will ask for."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from whiteboard import board as boards
from whiteboard import ops
from whiteboard.errors import ParamError, WhiteboardError
from whiteboard.evaluation import validation
from whiteboard.evaluation.pipeline import Pipeline
from whiteboard.evaluation.sources import ArraySources
from whiteboard.integration.legacy.entries import NoResult, Reader, Result
from whiteboard.integration.legacy.old_caches import Entry
from whiteboard.integration.legacy.verify import Compared, compare
from whiteboard.ops.spec import OpSpec
from whiteboard.records.reports import Progress
from whiteboard.types import Array

LEAST_SAMPLE: Final = 10
"""A sample has at least so many results, where there are so many."""

_EXAMPLES = 20
_GROUP_ROWS, _GROUP_BYTES, _ALL_BYTES = 1024, 2**20, 32 * 2**20


class NotWhatTheOpComputesError(WhiteboardError, ArithmeticError):
    """A sample of the results differs from what the op computes: nothing was written."""


@dataclass(frozen=True, slots=True)
class Check:
    """How results are compared with what the op computes.

    Parameters
    ----------
    which : {"sample", "all", "none"}
    part : float
        Part of the entries that a sample has.
    rtol : float or None
        See `verify.compare`.
    """

    which: str = "sample"
    part: float = 0.01
    rtol: float | None = None


@dataclass(slots=True)
class Taken:
    """What became of the entries.

    `left` were left out on purpose; `failed` cannot be read, or do not fit the op; `different` are not what the op
    computes. `verified` results were computed again, and the largest distance of one was `largest_ulps`.
    """

    entries: int
    added: int = 0
    present: int = 0
    left: int = 0
    failed: int = 0
    different: int = 0
    verified: int = 0
    largest_ulps: int = 0
    bytes: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    def without(self, name: str, why: str, *, failed: bool = True) -> None:
        """Count an entry that gives no package."""
        if failed:
            self.failed += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(f"{name}: {why}")
        else:
            self.left += 1
            self.reasons[why] = self.reasons.get(why, 0) + 1

    def compared(self, names: Sequence[str], found: Compared) -> None:
        """Count results that were computed again."""
        self.verified += len(names)
        self.largest_ulps = max([self.largest_ulps, *map(int, found.ulps)])
        self.different += int((~found.good).sum())
        for row in np.flatnonzero(~found.good).tolist():
            if len(self.examples) < _EXAMPLES:
                self.examples.append(f"{names[row]}: {int(found.ulps[row]):,} ulps from what the op computes")


@dataclass(slots=True)
class _Group:
    """Results of one signature, waiting to be stacked."""

    params: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    nbytes: int = 0

    def stacked(self) -> tuple[list[Array], Array, list[Array]]:
        sources = [np.stack(each) for each in zip(*(one.sources for one in self.results), strict=True)]
        grads = [np.stack(each) for each in zip(*(one.grads for one in self.results), strict=True)]
        return sources, np.stack([one.y for one in self.results]), grads


def import_results(
    reader: Reader,
    entries: Sequence[Entry],
    opened: Callable[[], boards.Board],
    op: str,
    check: Check,
    *,
    progress: Progress | None = None,
) -> Taken:
    """Bring the results into a store; what it has stays, so that a call after a kill adds the rest.

    Parameters
    ----------
    reader : Reader
    entries : sequence of Entry
    opened : callable
        Opens the store, once a sample is what the op computes.
    op : str
    check : Check
    progress : callable, optional
        ``progress(done, total)``, in entries.

    Raises
    ------
    NotWhatTheOpComputesError
        Of the sample. Nothing is written then.
    UnknownOpError, ParamError, StoreError
    """
    spec = ops.get(op)
    if spec.fingerprint is None:
        msg = f"op {op!r} has no fingerprint, so that nothing of it is stored: {spec.opaque}"
        raise ParamError(msg)
    taken = Taken(len(entries))
    if check.which == "sample":
        _sample(reader, entries, spec, check, taken)
    with opened() as board:
        pipeline = board.pipeline
        for group in _groups(spec, reader, entries, taken, progress):
            _store(pipeline, spec, group, check, taken)
    return taken


def _sample(reader: Reader, entries: Sequence[Entry], spec: OpSpec, check: Check, taken: Taken) -> None:
    """Compute some of the results again, before anything is written."""
    wanted = max(LEAST_SAMPLE, math.ceil(check.part * len(entries)))
    shuffled = random.Random(0).sample(entries, len(entries))
    seen = Taken(len(entries))
    for result in _fitting(spec, reader, shuffled, seen, None):
        group = _Group(result.params, [result])
        sources, y, grads = group.stacked()
        seen.compared([result.name], compare(spec, result.params, sources, [y, *grads], check.rtol))
        if seen.verified == wanted:
            break
    taken.verified, taken.largest_ulps = seen.verified, seen.largest_ulps
    if seen.different:
        examples = [line for line in seen.examples if "ulps from" in line][:3]
        msg = (
            f"{seen.different} of {seen.verified} results that were computed again are not what op {spec.name!r} "
            f"computes; {'; '.join(examples)}. Nothing was written: --verify all takes those that are, "
            "--rtol takes what is near enough, --verify none takes everything on your word"
        )
        raise NotWhatTheOpComputesError(msg)


def _groups(
    spec: OpSpec, reader: Reader, entries: Sequence[Entry], taken: Taken, progress: Progress | None
) -> Iterator[_Group]:
    """Yield results of equal signature together, as many as make a page."""
    waiting: dict[Any, _Group] = {}
    total = 0
    for result in _fitting(spec, reader, entries, taken, progress):
        signature, size = _signature(result), result.nbytes
        group = waiting.setdefault(signature, _Group(result.params))
        group.results.append(result)
        group.nbytes += size
        total += size
        if len(group.results) == _GROUP_ROWS or group.nbytes >= _GROUP_BYTES:
            total -= group.nbytes
            yield waiting.pop(signature)
        elif total >= _ALL_BYTES:
            yield from waiting.values()
            waiting, total = {}, 0
    yield from waiting.values()


def _signature(result: Result) -> Any:
    shapes = tuple((source.dtype.str, source.shape) for source in result.sources)
    return json.dumps(result.params, sort_keys=True), shapes


def _fitting(
    spec: OpSpec, reader: Reader, entries: Sequence[Entry], taken: Taken, progress: Progress | None
) -> Iterator[Result]:
    """Yield results whose arrays have the shapes and dtypes that the op gives; count the others."""
    for done, got in enumerate(reader.read(entries), 1):
        if isinstance(got, NoResult):
            taken.without(got.name, got.why, failed=got.failed)
        elif why := _misfit(spec, got):
            taken.without(got.name, why)
        else:
            yield got
        if progress:
            progress(done, len(entries))


def _misfit(spec: OpSpec, result: Result) -> str:
    """Say why a result is none of the op's, or nothing."""
    try:
        sources = ArraySources(spec.name, [source[None] for source in result.sources])
        validation.check(spec, spec.bind(result.params), sources, result.y[None], [grad[None] for grad in result.grads])
    except WhiteboardError as error:
        return str(error)
    return ""


def _store(pipeline: Pipeline, spec: OpSpec, group: _Group, check: Check, taken: Taken) -> None:
    sources, y, grads = group.stacked()
    if check.which == "all":
        names = [result.name for result in group.results]
        found = compare(spec, group.params, sources, [y, *grads], check.rtol)
        taken.compared(names, found)
        sources, y, grads = [x[found.good] for x in sources], y[found.good], [grad[found.good] for grad in grads]
    if not len(y):
        return
    added = pipeline.adopt(spec, group.params, ArraySources(spec.name, sources), y, grads)
    taken.added += int(added.sum())
    taken.present += int((~added).sum())
    taken.bytes += sum(array[added].nbytes for array in (y, *grads))
