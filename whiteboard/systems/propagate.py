"""Propagate: from a batch of jobs over nodes to its results and to the impulses they send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import DtypeError, NonFiniteError, ParamError, ShapeError, UnknownNodeError
from whiteboard.evaluation import jacobians
from whiteboard.evaluation.columns import check_dtype
from whiteboard.evaluation.contents import is_diagonal
from whiteboard.evaluation.pipeline import Evaluated, Pipeline
from whiteboard.evaluation.sources import Sources, StackedSources
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

    Raises
    ------
    UnknownOpError, UnknownNodeError, ShapeError, DtypeError, ParamError, NonFiniteError
        The message names the op, the job, the slot, and expected against got.
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
    impulses = [
        _impulses(nodes, batch, slot, grads, done.weights[:, slot], done.keys, index, int(arena[0, slot]), rows)
        for slot, grads in enumerate(done.pulled)
    ]
    return Propagated(done.result, impulses, done.measures)


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What a batch gives, whatever its sources are.

    Parameters
    ----------
    result : BatchResult
    keys : ndarray of uint8, shape (n, 16)
    pulled : list of ndarray, each (n, *shape)
        Jᵢᵀ · residual, one a source; none where the batch has neither residual nor target.
    weights : ndarray of float64, shape (n, k)
        What an impulse is multiplied with, with the sign turned.
    measures : list of Measure
        Of the residuals: one, or none.
    """

    result: BatchResult
    keys: NDArray[np.uint8]
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
        evaluated = pipeline.evaluate(spec, batch.params, sources)
    except (ShapeError, DtypeError, ParamError) as error:
        msg = f"{batch.name(error.row or 0)}: {error}"
        raise type(error)(msg) from error
    job_ids = range(len(batch)) if batch.job_ids is None else batch.job_ids
    out_ids = None if batch.out_ids is None else np.asarray(batch.out_ids)
    result = BatchResult(
        job_ids, out_ids, evaluated.y, _apart(batch, evaluated.grads), evaluated.hit, src_ids, versions
    )
    if (driven := residual(batch, evaluated.y)) is None:
        pipeline.counts.without_residual += len(batch)
        return Answered(result, evaluated.keys, [], np.empty((len(batch), 0)), [])
    drive, measure = driven
    pulled = pull(pipeline, spec, batch.params, sources, evaluated, drive)
    return Answered(result, evaluated.keys, list(_apart(batch, pulled)), job_weights(batch, look), [measure])


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
    pipeline: Pipeline, spec: OpSpec, params: Params | None, sources: Sources, evaluated: Evaluated, drive: Residual
) -> list[Array]:
    """Return Jᵢᵀ · residual for each source, (n, *shape).

    A constant residual c is c · VJP(1), and an elementwise Jacobian is diagonal: both come from the packages that
    are there, and so does everything where these hold the Jacobians. What is left needs packages of its own, keyed by
    the cotangent.
    """
    y = evaluated.y
    if is_diagonal(spec, sources.shapes, y.shape[1:]):
        return [drive.values * grad for grad in evaluated.grads]
    first = drive.first
    pulled = [first.reshape(len(y), *(1,) * (grad.ndim - 1)) * grad for grad in evaluated.grads]
    if (rest := np.flatnonzero(~drive.constant)).size:
        cotangent = np.ascontiguousarray(drive.values[rest])
        parts = _pulled(pipeline, spec, params, sources, evaluated, rest, cotangent)
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
) -> tuple[Array, ...]:
    """Return Jᵢᵀ · cotangent of some of the jobs: from the Jacobians where they are there."""
    if evaluated.jacobians is not None:
        return jacobians.pulled(cotangent, [each[rest] for each in evaluated.jacobians], cotangent)
    others = pipeline.evaluate(spec, params, sources.take(rest), cotangent)
    pipeline.needed_too(evaluated, rest, others.hit)
    return others.grads


def _impulses(
    nodes: Nodes,
    batch: JobBatch,
    slot: int,
    pulled: Array,
    weights: NDArray[np.float64],
    keys: NDArray[np.uint8],
    index: Ids,
    arena: int,
    rows: Ids,
) -> Impulses:
    """Return the impulses −w · Jᵀ · residual of one slot onto the nodes that take them."""
    free = np.flatnonzero(~nodes.fixed[index[:, slot]])
    vectors = weighted(batch, free, slot, pulled[free], weights[free])
    return Impulses(arena, rows[free, slot], keys[free], np.full(len(free), slot, np.int64), weights[free], vectors)


def weighted(batch: JobBatch, rows: Ids, slot: int, pulled: Array, weights: NDArray[np.float64]) -> Array:
    """Return −w · Jᵀ · residual for some rows of a batch.

    Raises
    ------
    NonFiniteError
        Names the op, the job, the slot and the node.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # refused below, with the job's name
        vectors: Array = pulled * -weights.astype(pulled.dtype).reshape(len(rows), *(1,) * (pulled.ndim - 1))
    finite = np.isfinite(vectors).all(axis=tuple(range(1, vectors.ndim))) & np.isfinite(weights)
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        raise NonFiniteError(reason(batch, int(rows[first]), slot, weights[first]))
    return vectors
