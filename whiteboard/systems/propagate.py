"""Propagate: from a batch of jobs over nodes to its results and to the impulses they send."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import DtypeError, JobsError, NonFiniteError, ParamError, ShapeError, UnknownNodeError
from whiteboard.evaluation import jacobians
from whiteboard.evaluation.columns import check_dtype
from whiteboard.evaluation.contents import is_diagonal
from whiteboard.evaluation.pipeline import Evaluated, Pipeline
from whiteboard.evaluation.sources import Sources, StackedSources
from whiteboard.identity.keys import NO_PARAMS
from whiteboard.ops.fingerprint.encoding import encode, encode_params
from whiteboard.ops.spec import OpSpec
from whiteboard.systems.impulses import Impulses, Measure
from whiteboard.systems.jobs import BatchResult, JobBatch
from whiteboard.systems.node_sources import NodeSources, locate
from whiteboard.systems.nodes import Nodes, positions
from whiteboard.systems.residuals import Residual, residual
from whiteboard.systems.weights import Look, job_weights, reason
from whiteboard.types import Array, Ids, Params


@dataclass(frozen=True, slots=True, eq=False)
class Propagated:
    """What a batch gives: results, the impulses on its sources, and what was measured."""

    result: BatchResult
    impulses: list[Impulses]
    measures: list[Measure]


def propagate(nodes: Nodes, pipeline: Pipeline, spec: OpSpec, batch: JobBatch) -> Propagated:
    """Answer a batch whose sources have, slot by slot, one shape and dtype.

    Jobs that fail, or whose impulse is not finite, send none and count in no measure; the result says what they raised.

    Raises
    ------
    UnknownOpError, UnknownNodeError, ShapeError, DtypeError, ParamError
        Of all jobs; the message names the op, the job, the slot, and expected against got.
    """
    index, arena, rows = locate(nodes, batch)
    if not len(batch):
        nothing, nobody = np.empty(0), np.empty(index.shape, np.int64)
        none = BatchResult([], None, nothing, (nothing,) * index.shape[1], np.empty(0, np.uint8), nobody, nobody)
        return Propagated(none, [], [])
    _check_out(nodes, batch)
    sources = _sources(nodes, batch, index, arena, rows)
    src_ids, versions = np.asarray(batch.src_ids), nodes.versions[index]
    done = answer(
        pipeline, spec, batch, sources, src_ids, versions, Look(partial(_positions, nodes), nodes.__getitem__)
    )
    failed = dict(done.result.errors)
    free = [np.flatnonzero(~nodes.fixed[index[:, slot]]) for slot in range(len(done.pulled))]
    vectors = [
        weighted(batch, free[slot], slot, pulled[free[slot]], done.weights[free[slot], slot], failed)
        for slot, pulled in enumerate(done.pulled)
    ]
    job = encode(spec.name) + _encoded(spec, batch.params)
    sends = np.ones(len(batch), np.bool_)
    sends[list(failed)] = False
    impulses = [
        Impulses(
            int(arena[0, slot]),
            rows[jobs, slot],
            job,
            src_ids[jobs],
            np.full(len(jobs), slot, np.int64),
            done.weights[jobs, slot],
            vectors[slot],
        )
        for slot, jobs in enumerate(free)
    ]
    if failed:
        impulses = [each.take(np.flatnonzero(sends[jobs])) for each, jobs in zip(impulses, free, strict=True)]
    return Propagated(replace(done.result, errors=failed), impulses, [each.of(sends) for each in done.measures])


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What a batch gives, whatever its sources are.

    Parameters
    ----------
    result : BatchResult
    pulled : list of ndarray, each (n, *shape)
        Jᵢᵀ · residual, one a source; none where the batch has neither residual nor target.
    weights : ndarray of float64, shape (n, k)
        What an impulse is multiplied with, with the sign turned.
    measures : list of Measure
        Of the residuals: one, or none.

    What failed jobs raised is in the result.
    """

    result: BatchResult
    pulled: list[Array]
    weights: NDArray[np.float64]
    measures: list[Measure]


def answer(
    pipeline: Pipeline,
    spec: OpSpec,
    batch: JobBatch,
    sources: Sources,
    src_ids: Ids,
    versions: Ids,
    look: Look,
) -> Answered:
    """Answer a batch, and pull its residuals back to its sources.

    Parameters
    ----------
    src_ids, versions : ndarray of int64, shape (n, k), or (n, 0)
        What the results say of their sources.
    look : Look
        How the batch's weight looks at nodes.

    Raises
    ------
    ShapeError, DtypeError, ParamError
        The message names the op and the job.
    """
    _check_drive(spec, batch)
    try:
        if batch.stack:
            sources = _stacked(spec, sources)
        evaluated = pipeline.evaluate(spec, batch.params, sources, errors="collect")
    except (ShapeError, DtypeError, ParamError) as error:
        msg = f"{batch.name(error.row or 0)}: {error}"
        raise type(error)(msg) from error
    failed = {row: _named(batch, row, error) for row, error in evaluated.failed.items()}
    job_ids = range(len(batch)) if batch.job_ids is None else batch.job_ids
    out_ids = None if batch.out_ids is None else np.asarray(batch.out_ids)
    result = BatchResult(
        job_ids, out_ids, evaluated.y, _apart(batch, evaluated.grads), evaluated.hit, src_ids, versions, failed
    )
    if (driven := residual(batch, evaluated.y)) is None:
        pipeline.counts.without_residual += len(batch)
        return Answered(result, [], np.empty((len(batch), 0)), [])
    drive, measure = driven
    pulled = pull(pipeline, spec, batch.params, sources, evaluated, drive, failed)
    return Answered(result, list(_apart(batch, pulled)), job_weights(batch, look), [measure])


def _named(batch: JobBatch, row: int, error: Exception) -> Exception:
    """Return an error of a job with the job's name in it, where it has none."""
    if not isinstance(error, ShapeError | DtypeError | ParamError):
        return error
    named = type(error)(f"{batch.name(row)}: {error}")
    named.__cause__ = error
    return named


def raised(what: str, n: int, failed: Mapping[int, Exception], names: Callable[[int], str] | None = None) -> Exception:
    """Return what is raised where jobs of n failed: of one job alone what it raised; else see `JobsError.of`."""
    first = failed[min(failed)]
    if n == 1:
        return first
    if all(isinstance(error, NonFiniteError) for error in failed.values()):
        more = f"; and {len(failed) - 1} more jobs" if len(failed) > 1 else ""
        return NonFiniteError(f"{first}{more}")
    return JobsError.of(what, n, failed, names)


def _stacked(spec: OpSpec, sources: Sources) -> StackedSources:
    if spec.arity != 1:
        takes = "any number of sources" if spec.arity is None else f"{spec.arity} sources"
        msg = f"op {spec.name!r}: stack: expected an op of one source, this one takes {takes} as they are"
        raise ParamError(msg)
    return StackedSources(spec.name, sources)


def _apart(batch: JobBatch, grads: Sequence[Array]) -> tuple[Array, ...]:
    """Return one gradient a source, (n, …) each, of sources that were stacked or not."""
    return tuple(np.moveaxis(grads[0], 1, 0)) if batch.stack and grads else tuple(grads)


def _positions(nodes: Nodes, ids: Ids) -> Array:
    return positions(nodes, nodes.index(ids))


def _check_drive(spec: OpSpec, batch: JobBatch) -> None:
    """Raise where an op without gradients is given what asks for them, before anything is computed."""
    for word in ("residual", "target"):
        if spec.gradient == "none" and getattr(batch, word) is not None:
            msg = f"{batch.name(0)}: {word}: the op has no gradients: it is registered with gradient='none'"
            raise ParamError(msg)


def _check_out(nodes: Nodes, batch: JobBatch) -> None:
    if batch.out_ids is not None:
        out_ids = np.asarray(batch.out_ids)
        if (missing := np.flatnonzero(nodes.index(out_ids) < 0)).size:
            msg = f"{batch.name(missing[0])}, out_id: no node {out_ids[missing[0]]}"
            raise UnknownNodeError(msg)


def _sources(nodes: Nodes, batch: JobBatch, index: Ids, arena: Ids, rows: Ids) -> NodeSources:
    arenas = [nodes.arenas[number] for number in arena[0].tolist()]
    for slot, source in enumerate(arenas):
        check_dtype(source.dtype, f"{batch.name(0)}, slot {slot}")
        if source.dtype != arenas[0].dtype:
            msg = f"{batch.name(0)}, slot {slot}: expected dtype {arenas[0].dtype} as in slot 0, got {source.dtype}"
            raise DtypeError(msg)
    if (odd := np.argwhere(arena != arena[0])).size:
        row, slot = odd[0]
        got = nodes.arenas[arena[row, slot]]
        expected = f"{arenas[slot].shape} {arenas[slot].dtype} as in the batch's first job"
        msg = f"{batch.name(row)}, slot {slot}: expected {expected}, got {got.shape} {got.dtype}"
        raise ShapeError(msg)
    return NodeSources(nodes, index, arenas, rows)


def pull(
    pipeline: Pipeline,
    spec: OpSpec,
    params: Params | None,
    sources: Sources,
    evaluated: Evaluated,
    drive: Residual,
    failed: dict[int, Exception],
) -> list[Array]:
    """Return Jᵢᵀ · residual for each source, (n, *shape); nothing is asked for the jobs that have failed.

    A constant residual c is c · VJP(1), and an elementwise Jacobian is diagonal: both come from the packages that
    are there, and so does everything where these hold the Jacobians. What is left needs packages of its own, keyed by
    the cotangent.
    """
    y = evaluated.y
    if is_diagonal(spec, sources.shapes, y.shape[1:]):
        return [drive.values * grad for grad in evaluated.grads]
    first = drive.first
    pulled = [first.reshape(len(y), *(1,) * (grad.ndim - 1)) * grad for grad in evaluated.grads]
    varies = ~drive.constant
    varies[list(failed)] = False
    if (rest := np.flatnonzero(varies)).size:
        cotangent = np.ascontiguousarray(drive.values[rest])
        parts = _pulled(pipeline, spec, params, sources, evaluated, rest, cotangent, failed)
        for whole, part in zip(pulled, parts, strict=True):
            whole[rest] = part
    return pulled


def _pulled(
    pipeline: Pipeline,
    spec: OpSpec,
    params: Params | None,
    sources: Sources,
    evaluated: Evaluated,
    rest: Ids,
    cotangent: Array,
    failed: dict[int, Exception],
) -> tuple[Array, ...]:
    """Return Jᵢᵀ · cotangent of some of the jobs: from the Jacobians where they are there."""
    if evaluated.jacobians is not None:
        return jacobians.pulled(cotangent, [each[rest] for each in evaluated.jacobians], cotangent)
    others = pipeline.evaluate(spec, params, sources.take(rest), cotangent, errors="collect")
    failed.update({int(rest[row]): error for row, error in others.failed.items()})
    pipeline.needed_too(evaluated, rest, others.hit)
    return others.grads


def _encoded(spec: OpSpec, params: Params | None) -> bytes:
    """Return the canonical encoding of a job's parameters; that of none where they have no encoding."""
    try:
        return encode_params(spec.bind(params))
    except ParamError:
        return NO_PARAMS


def weighted(
    batch: JobBatch,
    rows: Ids,
    slot: int,
    pulled: Array,
    weights: NDArray[np.float64],
    failed: dict[int, Exception],
) -> Array:
    """Return −w · Jᵀ · residual for some rows of a batch.

    Where it is not finite, `failed` gets a `NonFiniteError` that names the op, the job, the slot and the node.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # refused below, with the job's name
        vectors: Array = pulled * -weights.astype(pulled.dtype).reshape(len(rows), *(1,) * (pulled.ndim - 1))
    finite = np.isfinite(vectors).all(axis=tuple(range(1, vectors.ndim))) & np.isfinite(weights)
    for place in np.flatnonzero(~finite).tolist():
        row = int(rows[place])
        failed.setdefault(row, NonFiniteError(reason(batch, row, slot, weights[place])))
    return vectors
