"""One job, answered without arrays about arrays: bits, checks and counts are those of columns.

Columns answer whatever is out of the ordinary: an error, sources that are no plain arrays, ops that are known by a
program or hold Jacobians, hits that are due to be checked, and misses of what is dear, may depend on its bin, or is
being computed by another thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from whiteboard.concurrency import locks
from whiteboard.errors import ParamError
from whiteboard.evaluation import contents, kept_sources, validation
from whiteboard.evaluation.agreement import Agreement
from whiteboard.evaluation.buffers import BufferPool
from whiteboard.evaluation.elsewhere import DEAR_NS
from whiteboard.evaluation.filling import Ground
from whiteboard.evaluation.flights import computing, is_nested
from whiteboard.evaluation.session import Session
from whiteboard.evaluation.sources import one_job
from whiteboard.evaluation.triage import Form
from whiteboard.identity import keys, lineage
from whiteboard.identity.arithmetic import arithmetic_class
from whiteboard.ops.spec import OpSpec
from whiteboard.records.packages import DISK, Found, Page
from whiteboard.storage.base import PackageStore
from whiteboard.types import FLOATS, Array, Params

_log = logging.getLogger(__name__)

_FLOATS: Final = frozenset(map(id, FLOATS))
"""NumPy has one object for each dtype in the machine's byte order; an array with another one goes the longer way."""

_MOST: Final = 1000
"""Identities that are kept, each with its op, whose `id` is then no other's."""


class One(NamedTuple):
    """What one job gives: y, one gradient a source, read-only, and its hit code."""

    y: Array
    grads: tuple[Array, ...]
    hit: int


class Asked(NamedTuple):
    """One job over plain arrays, with what its key is made of."""

    spec: OpSpec
    params: dict[str, Any]
    sources: Sequence[Array]
    identity: keys.Identity
    scheme: bytes
    tokens: bytes
    key: bytes


def asked(agreement: Agreement, spec: OpSpec, params: Params | None, sources: Sequence[Any]) -> Asked | None:
    """Return one job over arrays with its key, or None where columns have to answer it."""
    if spec.program is not None or spec.fingerprint is None or spec.gradient == "jacobian" or not sources:
        return None
    dtype = getattr(sources[0], "dtype", None)
    if id(dtype) not in _FLOATS:
        return None
    for source in sources:
        if type(source) is not np.ndarray or source.dtype is not dtype:
            return None
    if spec.user and agreement.distrusts(spec):
        return None
    try:
        scheme = keys.scheme_of([source.nbytes for source in sources])
        full, identity, prefix = _identified(spec, params, len(sources), scheme)
        tokens = keys.tokens_of(sources)
        return Asked(spec, full, sources, identity, scheme, tokens, keys.key_from(prefix, tokens))
    except (ParamError, ValueError):  # parameters without canonical bytes; an array that does not lie in one piece
        return None


Identified = tuple[dict[str, Any], keys.Identity, bytes]
_known: dict[tuple[int, bytes, int, bytes], tuple[OpSpec, Identified]] = {}


def _identified(spec: OpSpec, params: Params | None, fan_in: int, scheme: bytes) -> Identified:
    """Return full parameters, and what keys begin from; of an op without parameters and settings it is made once."""
    if params or spec.params or spec.settings is not None:
        return _identify(spec, params, fan_in, scheme)
    named = id(spec), arithmetic_class(portable=spec.exactness == "portable", blas=spec.blas), fan_in, scheme
    if (known := _known.get(named)) is None:
        if len(_known) > _MOST:
            _known.clear()
        known = _known[named] = spec, _identify(spec, params, fan_in, scheme)
    return known[1]


def _identify(spec: OpSpec, params: Params | None, fan_in: int, scheme: bytes) -> Identified:
    full = spec.bind(params)
    identity = keys.Identity.of(spec, full, contents.kind(spec, None))
    return full, identity, keys.key_prefix(identity, fan_in, scheme)


def held(store: PackageStore, agreement: Agreement, job: Asked) -> tuple[Page, int] | None:
    """Return the page and row in memory of a job, or None where there is none or it is due to be checked."""
    place = store.find_one(job.key)
    if place is None or (job.spec.user and not agreement.passes(job.spec, place[0].cost_ns / place[0].n)):
        return None
    return place


class Looked(NamedTuple):
    """What a store had of the key of one job, and how many flights had landed before it was asked."""

    key: bytes
    found: Found
    since: int


def looked(ground: Ground, job: Asked) -> Looked:
    """Look the key of a job up that is not in memory."""
    since = ground.flights.landed
    return Looked(job.key, ground.store.find([job.key]), since)


def found(looked: Looked, agreement: Agreement, job: Asked) -> tuple[Page, int] | None:
    """Return the page and row of a job whose key was looked up, or None for columns to answer."""
    pages, (number,), (slot,), (tier,) = looked.found.pages, looked.found.page, looked.found.slot, looked.found.tier
    if number < 0:
        return None
    page, row, spec = pages[number], int(slot), job.spec
    if tier == DISK:
        shapes = tuple(source.shape for source in job.sources)
        y = validation.shape_of(spec, job.params, shapes)
        if not Form(spec.name, job.sources[0].dtype, y, shapes, spec.gradient).fits(page):
            return None
    if spec.user and not agreement.passes(spec, page.cost_ns / page.n):
        return None
    return page, row


def computed(ground: Ground, job: Asked, looked: Looked, count: Callable[[], None]) -> Page | None:
    """Compute a job that is cheap and was found nowhere, and put it; return its page, or None for columns to answer.

    A miss is counted when it is; what the op raises is raised.
    """
    spec = job.spec
    cost = ground.costs.of(spec)
    if looked.found.page[0] >= 0 or cost is None or cost >= DEAR_NS or spec.exactness == "tolerance":
        return None
    if (spec.user and spec.batch != "loop") or is_nested() or _log.isEnabledFor(logging.DEBUG):
        return None
    shapes = tuple(source.shape for source in job.sources)
    if spec.arity not in (None, len(shapes)):
        return None
    shape = spec.shape(spec.name, shapes, job.params)
    running = locks.lock()
    with running:
        flight, mine, _ = ground.flights.take([job.key], running)
        try:
            # Who had the key before has put its package before it was given up: then it is to be looked up again.
            if not len(mine) or ground.flights.landed != looked.since:
                return None
            if spec.batch == "loop":  # then a job that fails is a miss too
                count()
            start = time.perf_counter_ns()
            xs = [source[None] for source in job.sources]
            # non-finite results are results
            with computing(), np.errstate(all="ignore"), Session(spec, job.params, xs, shape) as session:
                y, *beside = session.run()
            cost_ns = time.perf_counter_ns() - start
            ground.costs.learn(spec, 1, cost_ns)
            page = _page(job, y, beside, cost_ns)
            _put(ground.store, page, job)
            if spec.batch != "loop":
                count()
            flight.places[job.key] = page, 0
        finally:
            ground.flights.end(flight)
    return page


def _page(job: Asked, y: Array, beside: Sequence[Array], cost_ns: int) -> Page:
    arrays = {"y": y, **{f"g{slot}": grad for slot, grad in enumerate(beside)}}
    tokens = np.frombuffer(job.tokens, np.uint8).reshape(1, len(job.sources), keys.DIGEST_BYTES)
    key = np.frombuffer(job.key, np.uint8)[None]
    record = lineage.record(job.identity, job.params, job.scheme)
    return Page(job.spec.name, key, arrays, cost_ns, lineage=record, tokens=tokens)


def _put(store: PackageStore, page: Page, job: Asked) -> None:
    """Store a page, with its sources where these are to be kept."""
    if job.spec.keep_sources or page.cost_ns >= kept_sources.LEAST_NS:
        sources = one_job(job.spec.name, job.sources)
        for part in kept_sources.kept(page, job.spec, sources, np.zeros(1, np.int64), BufferPool()):
            store.put(part)
    else:
        store.put(page)


def taken(page: Page, row: int) -> tuple[Array, tuple[Array, ...]]:
    """Return y and what lies beside it of one package, read-only, in memory that keeps no more alive than itself."""
    alone = page.n == 1
    taken = []
    for name in ("y", *(f"g{slot}" for slot in range(len(page.arrays) - 1))):
        value = page.arrays[name][row]
        if value.ndim:  # else it is a number, which nobody can write to
            if not alone:
                value = value.copy()
            value.flags.writeable = False
        taken.append(value)
    return taken[0], tuple(taken[1:])
