"""The way through for one batch: keys, triage, bins, sessions, store, separate."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard.concurrency import locks
from whiteboard.errors import ParamError, UncachedWarning, WhiteboardError, warn
from whiteboard.evaluation import bins, contents, jacobians, promises, separate, validation
from whiteboard.evaluation.agreement import Agreement
from whiteboard.evaluation.buffers import BufferPool
from whiteboard.evaluation.kept_sources import kept
from whiteboard.evaluation.session import Session
from whiteboard.evaluation.sources import Sources
from whiteboard.evaluation.triage import Form, Triage, compute_all, triage
from whiteboard.identity import keys, lineage
from whiteboard.ops.spec import OpSpec
from whiteboard.records.packages import DISK, MEMORY, MISS, Page
from whiteboard.storage.base import PackageStore
from whiteboard.types import Array, Ids, Params, Shape


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """Columns of n evaluated jobs: y (n, …), one gradient a source (n, …), hit codes (n,), keys (n, 16).

    `jacobians`, (n, *y_shape, *shape) a source, where the packages hold them.
    """

    y: Array
    grads: tuple[Array, ...]
    hit: NDArray[np.uint8]
    keys: NDArray[np.uint8]
    jacobians: tuple[Array, ...] | None = None


@dataclass(slots=True)
class Counts:
    """What a pipeline has answered so far."""

    hits_memory: int = 0
    hits_disk: int = 0
    misses: int = 0
    seconds_saved: float = 0.0
    without_residual: int = 0
    """Jobs over nodes that had neither residual nor target, and so sent no impulse."""


class Pipeline:
    """Evaluates batches against one store.

    One batch is evaluated at a time: a second thread waits, and then finds in the store what the first one
    computed, so that equal keys in flight are computed once.
    """

    def __init__(
        self,
        store: PackageStore,
        pool: BufferPool,
        *,
        max_bin_bytes: int = bins.MAX_BYTES,
        max_bin_jobs: int = bins.MAX_JOBS,
    ) -> None:
        self._store, self._pool = store, pool
        self._max_bytes, self._max_jobs = max_bin_bytes, max_bin_jobs
        self._lock = locks.rlock()
        self.agreement = Agreement()
        self._promises = promises.Promises()
        self._warned: set[tuple[str, str]] = set()
        self.counts = Counts()

    def evaluate(
        self, spec: OpSpec, params: Params | None, sources: Sources, cotangent: Array | None = None
    ) -> Evaluated:
        """Answer n jobs of one signature.

        Parameters
        ----------
        cotangent : ndarray, shape (n, *y_shape), optional
            Where given, the gradients are the VJPs of its rows, under keys of their own; else those of ones.
        """
        bound = spec.bind(params)
        shape = validation.shape(spec, bound, sources)
        spec = spec.at(sources.shapes, sources.dtype, bound)
        if spec.gradient == "none" and cotangent is not None:
            msg = f"op {spec.name!r} has no VJP: it is registered with gradient='none'"
            raise ParamError(msg)
        if shape is None and cotangent is not None:
            shape = cotangent.shape[1:]
        driving, cotangent = cotangent, None if spec.gradient == "jacobian" else cotangent
        with self._lock:
            names, tokens, identity = self._keys(spec, bound, sources, cotangent)
            cacheable = identity is not None and not self.agreement.distrusts(spec)
            form = partial(Form, spec.name, sources.dtype, shape, sources.shapes, spec.gradient)
            plan = triage(self._store, names, form) if cacheable else compute_all(sources.n)
            if not self.agreement.holds(spec, bound, sources, plan, cotangent, self._pool):
                plan, cacheable = compute_all(sources.n), False
            raw = np.frombuffer(b"".join(names), np.uint8).reshape(sources.n, keys.DIGEST_BYTES)
            known = len(plan.pages)
            with np.errstate(all="ignore"):  # non-finite results are allowed: they are results
                for rows in self._bins(spec, plan, shape, sources):
                    page = self._compute(
                        spec, bound, shape, sources, rows, raw[rows], tokens[rows], cotangent, identity
                    )
                    if cacheable and len(plan.pages) == known:
                        cacheable = self._is_still(spec, bound, sources)
                    plan.place(rows, page)
                    if cacheable:
                        self._put(page, spec, sources, rows, cotangent)
            plan.settle()
            self._count(plan, known, jobs=driving is None)
        one = validation.one_shape(spec, plan.pages, plan.page) if shape is None else shape
        fields = {"y": one, **_named(contents.beside(spec.gradient, one, sources.shapes))}
        y, *beside = separate.columns(fields, plan.pages, plan.page, plan.slot, sources.dtype)
        if spec.gradient != "jacobian":
            return Evaluated(y, tuple(beside), plan.hit, raw)
        return Evaluated(y, jacobians.pulled(y, beside, driving), plan.hit, raw, tuple(beside))

    def jacobian(self, spec: OpSpec, params: Params | None, sources: Sources) -> Evaluated:
        """Answer n jobs of one signature as `evaluate` does, with Jacobians for gradients.

        Of an op whose gradient is ``jacobian`` they are in its packages. Else each is made of the VJPs of y's
        components, which are packages of cotangents, but where the gradients of ones tell all: of a scalar y, and of an
        ``elementwise`` op whose sources have y's shape.

        Returns
        -------
        Evaluated
            ``grads[i]`` is ∂y/∂xᵢ, (n, *y_shape, *shape); a hit is one where nothing had to be computed.

        Raises
        ------
        ParamError
            The op has no gradients.
        ShapeError, DtypeError
        """
        if spec.gradient == "none":
            msg = f"op {spec.name!r} has no Jacobian: it is registered with gradient='none'"
            raise ParamError(msg)
        done = self.evaluate(spec, params, sources)
        if done.jacobians is not None:
            return replace(done, grads=done.jacobians)
        if prod(done.y.shape[1:]) == 1:
            return replace(done, grads=jacobians.of_scalar(done.y, done.grads))
        if contents.is_diagonal(spec, sources.shapes, done.y.shape[1:]):
            return replace(done, grads=jacobians.diagonal(done.grads))
        return replace(done, grads=self._components(spec, params, sources, done))

    def _components(self, spec: OpSpec, params: Params | None, sources: Sources, done: Evaluated) -> tuple[Array, ...]:
        """Return Jacobians from the packages of one cotangent a component of y."""
        made = jacobians.Components(done.y, sources.shapes)
        for some, rows, cotangent in made:
            with _job_of(rows):
                others = self.evaluate(spec, params, sources.take(rows), cotangent)
            made.fill(some, others.grads, others.hit)
        if done.y.size:
            self.needed_too(done, np.arange(sources.n), made.hit)
        return made.jacobians

    def _is_still(self, spec: OpSpec, params: dict[str, Any], sources: Sources) -> bool:
        """Whether an op that is known by its program has the same one after it ran."""
        if spec.at(sources.shapes, sources.dtype, params).fingerprint == spec.fingerprint:
            return True
        self._warn(spec.name, "the program that it lowers to is another after it was run")
        return False

    def adopt(
        self, spec: OpSpec, params: Params | None, sources: Sources, y: Array, grads: Sequence[Array]
    ) -> NDArray[np.bool_]:
        """Store packages that were computed elsewhere, as `evaluate` would; a key that the store has keeps what it has.

        Whether they are what the op computes is for the caller to see to.

        Parameters
        ----------
        y, grads : ndarrays, (n, *y_shape) and, one a source, (n, *shape)
            Of the sources' dtype; grads[i] is ∂(Σy)/∂xᵢ.

        Returns
        -------
        ndarray of bool, shape (n,)
            Which of them were not there.

        Raises
        ------
        ShapeError, DtypeError
        ParamError
            Of the op, or of these parameters, nothing can be stored, as they have no fingerprint.
        """
        bound = spec.bind(params)
        spec = spec.at(sources.shapes, sources.dtype, bound)
        if spec.gradient == "jacobian":
            msg = f"op {spec.name!r}: nothing of it can be stored, as its packages hold Jacobians, and not gradients"
            raise ParamError(msg)
        shape = validation.check(spec, bound, sources, y, grads)
        columns = {"y": y, **_named(grads)}
        size = bins.job_bytes(shape, contents.beside(spec.gradient, shape, sources.shapes), sources.dtype.itemsize)
        added = np.zeros(sources.n, np.bool_)
        with self._lock:
            names, tokens, identity = self._keys(spec, bound, sources, None)
            if identity is None:
                msg = f"op {spec.name!r}: nothing of it can be stored, as it, or its parameters, have no fingerprint"
                raise ParamError(msg)
            record = lineage.record(identity, bound)
            raw = np.frombuffer(b"".join(names), np.uint8).reshape(sources.n, keys.DIGEST_BYTES)
            form = partial(Form, spec.name, sources.dtype, shape, sources.shapes, spec.gradient)
            for rows in bins.cut(triage(self._store, names, form).todo, size, self._max_bytes, self._max_jobs):
                arrays = {name: validation.owned(column, rows) for name, column in columns.items()}
                src_ids, versions = sources.provenance(rows) or (None, None)
                page = Page(spec.name, raw[rows], arrays, 0, src_ids, versions, record, tokens[rows])
                self._put(page, spec, sources, rows, None)
                added[rows] = True
        return added

    def _put(self, page: Page, spec: OpSpec, sources: Sources, rows: Ids, cotangent: Array | None) -> None:
        """Store a page of the jobs at `rows`, with its sources where these are to be kept."""
        for part in kept(page, spec, sources, rows, self._pool, cotangent):
            self._store.put(part)

    def _bins(self, spec: OpSpec, plan: Triage, shape: Shape | None, sources: Sources) -> Iterator[Ids]:
        """Yield the jobs to compute in bins; each is placed before the next one is asked for."""
        todo = plan.todo
        if shape is None and len(todo):
            if not plan.pages:
                few = promises.ROWS if spec.batch == "lead_axis" else 1  # what y takes is not known yet
                yield todo[:few]
                todo = todo[few:]
            shape = plan.pages[0].arrays["y"].shape[1:]
        beside = contents.beside(spec.gradient, shape or (), sources.shapes)
        size = bins.job_bytes(shape or (), beside, sources.dtype.itemsize)
        yield from bins.cut(todo, size, self._max_bytes, self._max_jobs)

    def _keys(
        self, spec: OpSpec, params: dict[str, Any], sources: Sources, cotangent: Array | None
    ) -> tuple[list[bytes], NDArray[np.uint8], keys.Identity | None]:
        """Return the jobs' keys, the tokens in them, and their identity, None where nothing may be stored."""
        gradient = contents.kind(spec, cotangent)
        opaque = spec.opaque if spec.fingerprint is None else ""
        try:
            identity = keys.Identity.of(spec, params, gradient)
        except ParamError as error:
            opaque, identity = str(error), keys.Identity.of(spec, {}, gradient)
        if opaque:
            self._warn(spec.name, opaque)
        columns = sources.tokens()
        if cotangent is not None:
            columns = np.concatenate([columns, keys.tokens(cotangent)[:, None]], axis=1)
        names = keys.keys(keys.key_prefix(identity, len(sources.shapes)), columns)
        return names, columns, None if opaque else identity

    def _warn(self, name: str, reason: str) -> None:
        if (name, reason) not in self._warned:
            self._warned.add((name, reason))
            warn(f"op {name!r} is computed and not cached: {reason}", UncachedWarning)

    def _compute(
        self,
        spec: OpSpec,
        params: dict[str, Any],
        shape: Shape | None,
        sources: Sources,
        rows: Ids,
        names: NDArray[np.uint8],
        tokens: NDArray[np.uint8],
        cotangent: Array | None,
        identity: keys.Identity | None,
    ) -> Page:
        """Run one session over one bin and stack what it gives into a page."""
        start = time.perf_counter_ns()
        with self._pool.lend() as lend:
            xs = sources.gather(rows, lend, share=spec.exactness == "tolerance")
            given = None if cotangent is None else cotangent[rows]
            with _job_of(rows), Session(spec, params, xs, shape) as session:
                y, *beside = session.run(given)
            cost = time.perf_counter_ns() - start
            self._promises.test(spec, params, xs, (y, *beside), given)
        arrays = {"y": y, **_named(beside)}
        src_ids, versions = sources.provenance(rows) or (None, None)
        record = None if identity is None else lineage.record(identity, params)
        return Page(spec.name, names, arrays, cost, src_ids, versions, record, tokens)

    def needed_too(self, evaluated: Evaluated, rows: Ids, hit: NDArray[np.uint8]) -> None:
        """Say that some jobs needed the VJPs of cotangents too: what had to be computed for either is a miss.

        Parameters
        ----------
        rows : ndarray of int64, shape (m,)
            Which of `evaluated`, whose hit codes follow.
        hit : ndarray of uint8, shape (m,)
            The hit codes of the other packages.
        """
        before = evaluated.hit[rows]
        after = np.where((before == MISS) | (hit == MISS), np.uint8(MISS), np.maximum(before, hit))
        with self._lock:
            evaluated.hit[rows] = after
            self._tally(np.bincount(after, minlength=3) - np.bincount(before, minlength=3))

    def _tally(self, tiers: NDArray[np.int64]) -> None:
        self.counts.misses += int(tiers[MISS])
        self.counts.hits_memory += int(tiers[MEMORY])
        self.counts.hits_disk += int(tiers[DISK])

    def _count(self, plan: Triage, known: int, *, jobs: bool) -> None:
        """Count the tiers of jobs, and the time that hits of pages with a known cost have saved."""
        if jobs:
            self._tally(np.bincount(plan.hit, minlength=3))
        if not known:
            return
        hits = np.bincount(plan.page[plan.hit != MISS], minlength=len(plan.pages))
        for number in np.flatnonzero(hits[:known]):
            page = plan.pages[number]
            self.counts.seconds_saved += hits[number] * page.cost_ns / page.n / 1e9


@contextmanager
def _job_of(rows: Ids) -> Iterator[None]:
    """Say in errors of a part of the jobs which one of all it was."""
    try:
        yield
    except WhiteboardError as error:
        error.row = None if error.row is None else int(rows[error.row])
        raise


def _named(arrays: Sequence[Any]) -> dict[str, Any]:
    """Return what packages hold beside y under the names that it has in a page."""
    return {f"g{slot}": array for slot, array in enumerate(arrays)}
