"""The way through for one batch: keys, triage, bins, sessions, store, separate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from whiteboard.concurrency import locks
from whiteboard.errors import JobsError, ParamError, UncachedWarning, WhiteboardError, warn
from whiteboard.evaluation import bins, contents, jacobians, separate, single, validation
from whiteboard.evaluation.agreement import Agreement
from whiteboard.evaluation.buffers import BufferPool
from whiteboard.evaluation.costs import Costs
from whiteboard.evaluation.counts import Counts
from whiteboard.evaluation.elsewhere import DEAR_NS
from whiteboard.evaluation.execution import Execution, InThread, Outcome, Task
from whiteboard.evaluation.filling import Filling, Ground
from whiteboard.evaluation.flights import Flights
from whiteboard.evaluation.kept_sources import kept
from whiteboard.evaluation.progress import Meter, Reporter
from whiteboard.evaluation.promises import Promises
from whiteboard.evaluation.single import One
from whiteboard.evaluation.sources import Sources, one_job, scheme
from whiteboard.evaluation.thrift import Thrift
from whiteboard.evaluation.triage import Form, Triage, compute_all, triage
from whiteboard.identity import keys, lineage
from whiteboard.ops.spec import OpSpec
from whiteboard.records.packages import MEMORY, MISS, Page
from whiteboard.storage.base import Claim, PackageStore
from whiteboard.types import Array, Errors, Ids, Params


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """Columns of n evaluated jobs: y (n, …), one gradient a source (n, …), hit codes (n,), keys (n, 16).

    `jacobians`, (n, *y_shape, *shape) a source, where the packages hold them. `failed` says what jobs have raised:
    their results are NaN, and their hit code is a miss's.
    """

    y: Array
    grads: tuple[Array, ...]
    hit: NDArray[np.uint8]
    keys: NDArray[np.uint8]
    jacobians: tuple[Array, ...] | None = None
    failed: Mapping[int, Exception] = field(default_factory=dict)


class Pipeline:
    """Evaluates batches against one store.

    Nothing is locked while an op computes: hits are answered beside it, and what several threads want at once one of
    them computes. Only ops whose bits depend on their bin are evaluated one batch at a time.
    """

    def __init__(
        self,
        store: PackageStore,
        pool: BufferPool,
        *,
        max_bin_bytes: int = bins.MAX_BYTES,
        max_bin_jobs: int = bins.MAX_JOBS,
        thrifty: bool = False,
        execution: Callable[[InThread, Costs], Execution] = lambda inside, _: inside,
    ) -> None:
        self._store, self._pool = store, pool
        costs = Costs()
        ways = execution(InThread(pool, Promises()), costs)
        self._ground = Ground(store, ways, Flights(), costs, max_bin_bytes, max_bin_jobs)
        self._one_at_a_time = locks.rlock()
        self.agreement = Agreement()
        self.thrift = Thrift(on=thrifty)
        self._warned: set[tuple[str, str]] = set()
        self.counts = Counts()

    def evaluate(
        self,
        spec: OpSpec,
        params: Params | None,
        sources: Sources,
        cotangent: Array | None = None,
        errors: Errors = "raise",
        report: Reporter | None = None,
        looked: single.Looked | None = None,
    ) -> Evaluated:
        """Answer n jobs of one signature.

        Parameters
        ----------
        cotangent : ndarray, shape (n, *y_shape), optional
            Where given, the gradients are the VJPs of its rows, under keys of their own; else those of ones.
        errors : {"raise", "collect"}
            What becomes of jobs that fail: the first raises what one job alone raised, and a `JobsError` of several,
            once all others are done and stored; the second returns them.
        report : callable, optional
            Is told how far it is.
        looked : Looked, optional
            Of one job, where its key was looked up before.

        Raises
        ------
        JobsError
        ShapeError, DtypeError, ParamError
            Of all jobs.
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
        task = Task(spec, bound, shape, sources, cotangent)
        with self._one_at_a_time if spec.exactness == "tolerance" else nullcontext():
            plan, raw = self._filled(task, None if report is None else Meter(report), looked)
        self.counts.batch(plan, jobs=driving is None)
        failed = dict(sorted(plan.failed.items())) if plan.failed else plan.failed  # in the order of the jobs
        if failed and errors == "raise":
            raise _raised(spec, sources.n, failed)
        one = validation.one_shape(spec, plan.pages, plan.page) if shape is None else shape
        fields = {"y": one, **_named(contents.beside(spec.gradient, one, sources.shapes))}
        y, *beside = separate.columns(fields, plan.pages, plan.page, plan.slot, sources.dtype)
        if spec.gradient != "jacobian":
            return Evaluated(y, tuple(beside), plan.hit, raw, failed=failed)
        return Evaluated(y, jacobians.pulled(y, beside, driving), plan.hit, raw, tuple(beside), failed)

    def one(self, spec: OpSpec, params: Params | None, sources: Sequence[Any]) -> One:
        """Answer one job of arrays, which have no axis of jobs; otherwise as `evaluate`."""
        job, looked, tokens = single.asked(self.agreement, spec, params, sources), None, b""
        if job is not None:
            known, tokens, key = job
            since = self._ground.flights.landed
            if (place := self._store.find_one(key)) is not None:
                if not spec.user or single.passes(self.agreement, spec, place[0]):
                    self.counts.hit(place[0])
                    return *single.taken(*place), MEMORY
            elif not self.thrift.on:  # else a key may be more than the job is worth
                looked = single.looked(self._ground, key, since)
                if looked.found.pages and (hit := single.found(looked, self.agreement, known)) is not None:
                    self.counts.hit(hit[0], hit[2])
                    return *single.taken(hit[0], hit[1]), hit[2]
                if (page := single.computed(self._ground, job, sources, looked, self.counts.miss)) is not None:
                    return *single.taken(page, 0), MISS
        done = self.evaluate(spec, params, one_job(spec.name, sources, tokens), looked=looked)
        return done.y[0], tuple(grad[0] for grad in done.grads), int(done.hit[0])

    def held(self, spec: OpSpec, params: Params | None, sources: Sequence[Any]) -> tuple[Page, int] | None:
        """Return the page and row in memory of one job over arrays, or None where `evaluate` has to answer it."""
        job = single.asked(self.agreement, spec, params, sources)
        return None if job is None else single.held(self._store, self.agreement, spec, job[2])

    def _filled(
        self, task: Task, meter: Meter | None, looked: single.Looked | None
    ) -> tuple[Triage, NDArray[np.uint8]]:
        """Return where the package of each job lies, once all are there that can be, and their keys, (n, 16)."""
        if self.thrift.spares(task):
            return self._computed(task, meter)
        spec, sources = task.spec, task.sources
        started = time.perf_counter_ns()
        names, tokens, identity = self._keys(task)
        raw = np.frombuffer(b"".join(names), np.uint8).reshape(sources.n, keys.DIGEST_BYTES)
        form = partial(Form, spec.name, sources.dtype, task.shape, sources.shapes, spec.gradient)
        cacheable = identity is not None and not self.agreement.distrusts(spec)
        since, known = self._ground.flights.landed, None
        if looked is not None and names == [looked.key]:
            _, known, since = looked
        plan = triage(self._store, names, form, known) if cacheable else compute_all(sources.n)
        self.thrift.keyed(task, time.perf_counter_ns() - started)
        if not self.agreement.holds(spec, task.params, sources, plan, task.cotangent, self._pool):
            plan, cacheable = compute_all(sources.n), False
        if len(plan.todo):
            keeping = _Keeping(self, task, raw, tokens, identity, cacheable)
            Filling(self._ground, task, plan, names, form, keeping, since, cacheable, meter).fill()
        plan.settle()
        if meter is not None:
            meter.tell(plan, 0, now=True)
        return plan, raw

    def _computed(self, task: Task, meter: Meter | None) -> tuple[Triage, NDArray[np.uint8]]:
        """Compute all jobs, without keys."""
        plan, none = compute_all(task.sources.n), np.zeros((task.sources.n, keys.DIGEST_BYTES), np.uint8)
        keeping = _Keeping(self, task, none, None, None, cacheable=False)
        form = partial(Form, task.spec.name, task.sources.dtype, task.shape, task.sources.shapes, task.spec.gradient)
        Filling(self._ground, task, plan, (), form, keeping, 0, shared=False, meter=meter).fill()
        if meter is not None:
            meter.tell(plan, 0, now=True)
        return plan, none

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

    def is_still(self, task: Task) -> bool:
        """Whether an op has the code, or the program, after it ran that its key says."""
        spec, sources = task.spec, task.sources
        if spec.holds is not None and not spec.holds():
            self._warn(spec.name, "its code, or what that leads to, was edited while it ran")
            return False
        if spec.at(sources.shapes, sources.dtype, task.params).fingerprint == spec.fingerprint:
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
        task = Task(spec, bound, shape, sources, None)
        names, tokens, identity = self._keys(task)
        if identity is None:
            msg = f"op {spec.name!r}: nothing of it can be stored, as it, or its parameters, have no fingerprint"
            raise ParamError(msg)
        record = lineage.record(identity, bound, scheme(sources, None))
        raw = np.frombuffer(b"".join(names), np.uint8).reshape(sources.n, keys.DIGEST_BYTES)
        form = partial(Form, spec.name, sources.dtype, shape, sources.shapes, spec.gradient)
        todo = triage(self._store, names, form).todo
        for rows in bins.cut(todo, size, self._ground.max_bin_bytes, self._ground.max_bin_jobs):
            arrays = {name: validation.owned(column, rows) for name, column in columns.items()}
            src_ids, versions = sources.provenance(rows) or (None, None)
            page = Page(spec.name, raw[rows], arrays, 0, src_ids, versions, record, tokens[rows])
            self.put(page, task, rows)
            added[rows] = True
        return added

    def put(self, page: Page, task: Task, rows: Ids, claim: Claim | None = None) -> None:
        """Store a page of the jobs at `rows`, with its sources where these are to be kept; at once if it is claimed."""
        parts = kept(page, task.spec, task.sources, rows, self._pool, task.cotangent)
        if claim is not None:
            self._store.settle(list(parts), claim)
            return
        for part in parts:
            self._store.put(part)

    def _keys(self, task: Task) -> tuple[list[bytes], NDArray[np.uint8], keys.Identity | None]:
        """Return the jobs' keys, the tokens in them, and their identity, None where nothing may be stored."""
        spec, params, sources, cotangent = task.spec, task.params, task.sources, task.cotangent
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
        names = keys.keys(keys.key_prefix(identity, len(sources.shapes), scheme(sources, cotangent)), columns)
        return names, columns, None if opaque else identity

    def _warn(self, name: str, reason: str) -> None:
        if (name, reason) not in self._warned:
            self._warned.add((name, reason))
            warn(f"op {name!r} is computed and not cached: {reason}", UncachedWarning)

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
        with self.counts.lock:
            evaluated.hit[rows] = after
            self.counts.tally(np.bincount(after, minlength=3) - np.bincount(before, minlength=3))


@dataclass(slots=True, eq=False)
class _Keeping:
    """Makes the pages of one batch's outcomes, and puts them as long as they may be put."""

    pipeline: Pipeline
    task: Task
    names: NDArray[np.uint8]
    tokens: NDArray[np.uint8] | None
    identity: keys.Identity | None
    cacheable: bool
    seen: bool = False

    def __call__(self, outcome: Outcome, claim: Claim | None) -> Page:
        task, rows = self.task, outcome.rows
        self.pipeline.thrift.computed(task, len(rows), outcome.cost_ns)
        y, *beside = outcome.arrays
        src_ids, versions = (task.sources.provenance(rows) if self.cacheable else None) or (None, None)
        tokens = None if self.tokens is None else self.tokens[rows]
        of = scheme(task.sources, task.cotangent)
        record = None if self.identity is None else lineage.record(self.identity, task.params, of)
        arrays = {"y": y, **_named(beside)}
        page = Page(task.spec.name, self.names[rows], arrays, outcome.cost_ns, src_ids, versions, record, tokens)
        if self.cacheable and (task.spec.holds is not None or not self.seen):
            self.cacheable, self.seen = self.pipeline.is_still(task), True
        if self.cacheable:
            # What was claimed as nothing was known of it, and was cheap, is written with the rest.
            self.pipeline.put(page, task, rows, claim if outcome.cost_ns >= DEAR_NS else None)
        return page


def check_errors(errors: object, where: str) -> None:
    """Raise where `errors` is no word for what becomes of jobs that fail."""
    if errors not in get_args(Errors):
        msg = f"{where}: errors: expected {' or '.join(map(repr, get_args(Errors)))}, got {errors!r}"
        raise ParamError(msg)


def _raised(spec: OpSpec, n: int, failed: Mapping[int, Exception]) -> Exception:
    """Return what is raised where jobs failed: of one job alone what it raised."""
    return failed[0] if n == 1 else JobsError.of(f"op {spec.name!r}", n, failed)


@contextmanager
def _job_of(rows: Ids) -> Iterator[None]:
    """Say in errors of a part of the jobs which one of all it was."""
    try:
        yield
    except JobsError as error:
        raise JobsError.of(error.what, error.n, {int(rows[row]): each for row, each in error.errors.items()}) from error
    except WhiteboardError as error:
        error.row = None if error.row is None else int(rows[error.row])
        raise


def _named(arrays: Sequence[Any]) -> dict[str, Any]:
    """Return what packages hold beside y under the names that it has in a page."""
    return {f"g{slot}": array for slot, array in enumerate(arrays)}
