"""One job, answered without arrays about arrays: bits, checks and counts are those of columns.

Columns answer whatever is out of the ordinary: an error, sources that are no plain arrays, ops that are known by a
program or hold Jacobians, hits that are due to be checked, and misses of what is dear, may depend on its bin, or is
being computed by another thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from whiteboard.concurrency.lazy import lazy
from whiteboard.errors import ParamError, ShapeError
from whiteboard.evaluation import contents, kept_sources, session, validation
from whiteboard.evaluation.agreement import Agreement
from whiteboard.evaluation.buffers import BufferPool
from whiteboard.evaluation.elsewhere import DEAR_NS
from whiteboard.evaluation.filling import Ground
from whiteboard.evaluation.flights import computing, is_nested
from whiteboard.evaluation.results import copies
from whiteboard.evaluation.sources import one_job
from whiteboard.evaluation.triage import Form
from whiteboard.identity import keys, lineage
from whiteboard.identity.arithmetic import blas_settings, float_mode
from whiteboard.ops.spec import OpSpec
from whiteboard.records.packages import DISK, Found, Page
from whiteboard.storage.base import PackageStore
from whiteboard.types import FLOATS, Array, Params, Shape

_log = logging.getLogger(__name__)

_FLOATS: Final = frozenset(map(id, FLOATS))
"""NumPy has one object for each dtype in the machine's byte order; an array with another one goes the longer way."""

_PLAIN: Final = frozenset((int, float, bool, str, type(None)))

_MOST: Final = 1000
"""So many kinds of jobs are kept, each with its op, whose `id` is then no other's."""


@dataclass(frozen=True, eq=False)
class Known:
    """What all jobs of an op have in common whose parameters are the same, and whose sources have the same shapes."""

    spec: OpSpec
    params: dict[str, Any]
    identity: keys.Identity
    recipe: keys.Recipe
    form: Form

    @lazy
    def lineage(self) -> str:
        """What the pages of these jobs say of their keys."""
        return lineage.record(self.identity, self.params, self.recipe.scheme)


Asked: TypeAlias = tuple[Known, bytes, bytes]
"""One job over plain arrays: what it is one of, its tokens one after another, and its key."""

One: TypeAlias = tuple[Array, tuple[Array, ...], int]
"""What one job gives: y, one gradient a source, read-only, and its hit code."""


def asked(agreement: Agreement, spec: OpSpec, params: Params | None, sources: Sequence[Any]) -> Asked | None:
    """Return one job over arrays with its key, or None where columns have to answer it."""
    dtype = getattr(sources[0], "dtype", None) if sources else None
    if id(dtype) not in _FLOATS or (spec.user and agreement.distrusts(spec)):
        return None
    shapes = []
    for source in sources:
        if type(source) is not np.ndarray or source.dtype is not dtype:
            return None
        shapes.append(source.shape)
    try:
        known = _known(spec, params, dtype, shapes)
        if known is None:
            return None
        recipe = known.recipe
        tokens = recipe.tokens(sources)
        return known, tokens, recipe.key(tokens)
    except (ParamError, ValueError):  # parameters without canonical bytes; an array that does not lie in one piece
        return None


_kept: dict[tuple[Any, ...], Known] = {}


def _known(spec: OpSpec, params: Params | None, dtype: Any, shapes: Sequence[Shape]) -> Known | None:
    """Return what the job is one of; where parameters are plain numbers and texts it is kept."""
    given = _given(params) if params else ()
    if given is None or spec.settings is not None:
        return _made(spec, params, dtype, shapes)
    settings = blas_settings(spec.blas) if spec.blas else None
    named = (id(spec), float_mode(), settings, id(dtype), given, *shapes)
    if (kept := _kept.get(named)) is not None:
        return kept
    made = _made(spec, params, dtype, shapes)
    if made is not None and _given(made.params) is not None:  # so are those that were not given
        if len(_kept) > _MOST:
            _kept.clear()
        _kept[named] = made
    return made


def _given(params: Params) -> tuple[Any, ...] | None:
    """Return parameters as what is equal only where they are the same; None where they are not all plain."""
    given: list[Any] = []
    try:
        for name, value in params.items():
            kind = type(value)
            if type(name) is not str or kind not in _PLAIN or (kind is float and not value):  # -0.0 equals 0.0
                return None
            given += name, kind, value
    except AttributeError:  # no mapping: `OpSpec.bind` says so
        return None
    return tuple(given)


def _made(spec: OpSpec, params: Params | None, dtype: Any, shapes: Sequence[Shape]) -> Known | None:
    """Return it made anew; None of an op that columns have to answer."""
    if spec.program is not None or spec.fingerprint is None or spec.gradient == "jacobian":
        return None
    full = spec.bind(params)
    try:
        y = validation.shape_of(spec, full, tuple(shapes))
    except ShapeError:
        return None
    identity = keys.Identity.of(spec, full, contents.kind(spec, None))
    form = Form(spec.name, dtype, y, tuple(shapes), spec.gradient)
    return Known(spec, full, identity, keys.Recipe.of(identity, dtype, shapes), form)


def held(store: PackageStore, agreement: Agreement, spec: OpSpec, key: bytes) -> tuple[Page, int] | None:
    """Return the page and row in memory of a job, or None where there is none or it is due to be checked."""
    place = store.find_one(key)
    return None if place is None or (spec.user and not passes(agreement, spec, place[0])) else place


def passes(agreement: Agreement, spec: OpSpec, page: Page) -> bool:
    """Whether no check of a hit of a user's op is due."""
    return agreement.passes(spec, page.cost_ns / page.n)


class Looked(NamedTuple):
    """What a store had of the key of one job, and how many flights had landed before it was first asked."""

    key: bytes
    found: Found
    since: int


def looked(ground: Ground, key: bytes, since: int) -> Looked:
    """Look the key of a job up that was not in memory, since so many flights had landed."""
    return Looked(key, ground.store.find_below(key), since)


def found(looked: Looked, agreement: Agreement, known: Known) -> tuple[Page, int, int] | None:
    """Return the page, row and hit code of a job whose key was looked up, or None for columns to answer."""
    found = looked.found
    number: int = found.page.item()
    if number < 0:
        return None
    page, hit = found.pages[number], found.tier.item()
    if hit == DISK and not known.form.fits(page):
        return None
    if known.spec.user and not passes(agreement, known.spec, page):
        return None
    return page, found.slot.item(), hit


def computed(
    ground: Ground, job: Asked, sources: Sequence[Array], looked: Looked, count: Callable[[], None]
) -> Page | None:
    """Compute a job that is cheap and was found nowhere, and put it; return its page, or None for columns to answer.

    A miss is counted when it is; what the op raises is raised.
    """
    known, _, key = job
    spec = known.spec
    cost = ground.costs.of(spec)
    if looked.found.pages or cost is None or cost >= DEAR_NS or spec.exactness == "tolerance":
        return None
    if (spec.user and spec.batch != "loop") or is_nested() or _log.isEnabledFor(logging.DEBUG):
        return None
    running = threading.Lock()
    with running:
        flight = ground.flights.begin(key, running)
        if flight is None:
            return None
        try:
            # Who had the key before has put its package before it was given up: then it is to be looked up again.
            if ground.flights.landed != looked.since:
                return None
            if spec.batch == "loop":  # then a job that fails is a miss too
                count()
            start = time.perf_counter_ns()
            with computing():
                results = _run(known, sources)
            cost_ns = time.perf_counter_ns() - start
            ground.costs.learn(spec, 1, cost_ns)
            page = _page(job, results, cost_ns)
            still = spec.holds is None or spec.holds()  # else it was edited while it ran, and its key is another's
            if still:
                _put(ground.store, page, spec, sources)
            if spec.batch != "loop":
                count()
            if still:
                flight.places[key] = page, 0
        finally:
            ground.flights.end(flight)
    return page


@np.errstate(all="ignore")  # non-finite results are results
def _run(known: Known, sources: Sequence[Array]) -> tuple[Array, ...]:
    """Return what a package of a job holds, in memory of its own."""
    spec, params, shape = known.spec, known.params, known.form.y
    results = session.alone(spec, params, sources, shape)
    if results is None:
        with session.Session(spec, params, [source[None] for source in sources], shape) as one:
            results = one.run()
    return results


def _page(job: Asked, results: Sequence[Array], cost_ns: int) -> Page:
    """Return the page of one job; what a session gives is in memory of its own."""
    known, digests, key = job
    arrays = dict(zip(_names(len(results)), results, strict=True))
    alive = len(key) + len(digests)
    for array in results:
        array.setflags(write=False)
        alive += array.nbytes
    tokens = np.ndarray((1, len(digests) // keys.DIGEST_BYTES, keys.DIGEST_BYTES), np.uint8, digests)
    named = np.ndarray((1, keys.DIGEST_BYTES), np.uint8, key)
    return Page(known.spec.name, named, arrays, cost_ns, lineage=known.lineage, tokens=tokens, alive=alive)


def _put(store: PackageStore, page: Page, spec: OpSpec, sources: Sequence[Array]) -> None:
    """Store a page, with its sources where these are to be kept."""
    if spec.keep_sources or page.cost_ns >= kept_sources.LEAST_NS:
        columns = one_job(spec.name, sources)
        for part in kept_sources.kept(page, spec, columns, np.zeros(1, np.int64), BufferPool()):
            store.put(part)
    else:
        store.put(page)


def taken(page: Page, row: int) -> tuple[Array, tuple[Array, ...]]:
    """Return y and what lies beside it of one package, read-only, in memory that keeps no more alive than itself."""
    arrays = page.arrays
    columns = _by_name(len(arrays))(arrays)
    if len(page.keys) == 1 and page.alive is not None:  # then they are views of what is read-only
        y, *beside = map(_first, columns)
        return y, tuple(beside)
    values = [column[row] for column in columns]
    if len(page.keys) > 1:
        values = copies(values)
    for value in values:
        if value.ndim:  # else it is a number, which nobody can write to
            value.setflags(write=False)
    return values[0], tuple(values[1:])


_first: Final = itemgetter(0)


@lru_cache(maxsize=64)
def _by_name(count: int) -> Callable[[Mapping[str, Array]], tuple[Array, ...]]:
    """Return what takes so many arrays of packages, in order."""
    names = _names(count)
    return itemgetter(*names) if count > 1 else lambda arrays: (arrays[names[0]],)


@lru_cache(maxsize=64)
def _names(count: int) -> tuple[str, ...]:
    """Return the names of so many arrays of a package, in order."""
    return ("y", *(f"g{slot}" for slot in range(count - 1)))
