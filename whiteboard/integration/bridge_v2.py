"""Push the impulses of ops into any system.

It has ``nodes[i].theta`` and a method ``impulse(src_id, out_id, op_name, vector)``.
A `whiteboard.System` is such an object; so is a legacy system that counts epochs and edits `theta` in place. What a
foreign node holds is told by its value's digest alone, never by an epoch or a version of its own, so it cannot be
answered with what it held before, and shares its packages with everybody.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from whiteboard import board as boards
from whiteboard import ops
from whiteboard.board import Board
from whiteboard.errors import DtypeError, ParamError, ShapeError, UnknownNodeError
from whiteboard.evaluation.columns import check_dtype, plain
from whiteboard.evaluation.pipeline import Pipeline
from whiteboard.evaluation.sources import ArraySources
from whiteboard.ops import name_of
from whiteboard.systems.jobs import BatchResult, Job, JobBatch, OpResult, Weight, batches
from whiteboard.systems.propagate import answer, weighted
from whiteboard.systems.system import System
from whiteboard.systems.weights import Look
from whiteboard.types import Array, Ids, ResultSink

Push = tuple[int, Any, str, Array]


class ForeignSystem(Protocol):
    """Nodes by id, and a method that takes impulses."""

    @property
    def nodes(self) -> Any: ...
    def impulse(self, src_id: int, out_id: Any, op_name: str, vector: Array, /) -> object: ...


def push_impulses_from_op_v2(
    sys: ForeignSystem,
    op_name: str,
    src_ids: Sequence[int],
    out_id: int | None,
    *,
    residual: ArrayLike | None = None,
    scale: float = 1.0,
    weight: Weight | None = None,
    cache: Board | None = None,
    result_sink: ResultSink | None = None,
    op_args: Sequence[Any] = (),
    op_kwargs: Mapping[str, Any] | None = None,
) -> Array:
    """Apply an op to nodes, push ``−scale · Jᵢᵀ · residual`` onto each source, and return y.

    Parameters
    ----------
    sys : System or any object with ``nodes`` and ``impulse``
        ``nodes[i].theta`` is float32 or float64 of any shape; ``nodes[i].p`` is read for ``inv_length``.
    residual : array_like, optional
        A scalar, or of y's shape; None pushes nothing, and is counted in ``stats()["without_residual"]``.
    weight : {None, "none", "inv_length"}
    cache : Board, optional
        What answers for a foreign system; one in memory for the process where it is None. A `System` answers from its
        own board.
    result_sink : ResultSink, optional
        Gets the `OpResult`, before anything is pushed.
    op_args, op_kwargs
        Parameters of the op, by position in its list of parameters and by name.

    Raises
    ------
    UnknownOpError, UnknownNodeError, ShapeError, DtypeError, ParamError, NonFiniteError
        Nothing is pushed then.
    """
    spec = (op_name, src_ids, out_id, op_args, op_kwargs, residual)
    return push_impulses_from_ops_batched(
        sys, [spec], weight=weight, scale=scale, cache=cache, result_sink=result_sink
    )[0]


def push_impulses_from_ops_batched(
    sys: ForeignSystem,
    specs: Sequence[Sequence[Any]],
    *,
    weight: Weight | None = None,
    scale: float = 1.0,
    cache: Board | None = None,
    result_sink: ResultSink | None = None,
) -> list[Array]:
    """Do what `push_impulses_from_op_v2` does for many ops at once; return their y in order.

    Parameters
    ----------
    specs : sequence of (op_name, src_ids, out_id, op_args, op_kwargs[, residual])
    """
    jobs = [_job(number, spec, scale, weight) for number, spec in enumerate(specs)]
    if isinstance(sys, System):
        return [result.y for result in sys.process(jobs, result_sink)]
    results, pushes = _answer(sys, (cache or default_cache()).pipeline, jobs)
    if result_sink is not None:
        for result in results:
            result_sink.publish(result)
    for push in pushes:
        sys.impulse(*push)
    return [result.y for result in results]


@functools.cache
def default_cache() -> Board:
    """Return the board in memory that answers where no cache is given; one a process."""
    return boards.open(":memory:")


def _job(number: int, spec: Sequence[Any], scale: float, weight: Weight | None) -> Job:
    if not 5 <= len(spec) <= 6:
        msg = (
            f"spec {number}: expected (op_name, src_ids, out_id, op_args, op_kwargs[, residual]), got {len(spec)} items"
        )
        raise ParamError(msg)
    op_name, src_ids, out_id, op_args, op_kwargs = spec[:5]
    names = list(ops.get(op_name).params)
    if len(op_args) > len(names):
        msg = f"op {op_name!r}, job {number}: expected at most {len(names)} op_args, got {len(op_args)}"
        raise ParamError(msg)
    given = dict(zip(names, op_args, strict=False))
    if twice := sorted(given.keys() & (op_kwargs or {}).keys()):
        msg = f"op {op_name!r}, job {number}: parameter {twice[0]!r} is in op_args and in op_kwargs"
        raise ParamError(msg)
    return Job(
        op_name,
        tuple(src_ids),
        out_id,
        residual=spec[5] if len(spec) == 6 else None,
        scale=scale,
        weight=weight,
        params={**given, **(op_kwargs or {})},
        job_id=number,
    )


def _answer(sys: ForeignSystem, pipeline: Pipeline, jobs: Sequence[Job]) -> tuple[list[OpResult], list[Push]]:
    """Answer jobs over foreign nodes; return results and impulses in the order of the jobs, nothing pushed yet."""
    results: dict[int, OpResult] = {}
    pushes: dict[int, list[Push]] = {}
    for at, batch in batches(jobs):
        groups: dict[tuple[Any, ...], list[int]] = {}
        thetas = [_thetas(sys, batch, row) for row in range(len(batch))]
        for row, theta in enumerate(thetas):
            groups.setdefault(tuple((x.shape, x.dtype) for x in theta), []).append(row)
        for rows in groups.values():
            stacked = [np.stack(column) for column in zip(*(thetas[row] for row in rows), strict=True)]
            result, vectors = _evaluate(sys, pipeline, batch.take(np.array(rows, np.int64)), stacked)
            for number, (row, one) in enumerate(zip(rows, result, strict=True)):
                job = jobs[int(at[row])]
                results[int(at[row])] = one
                pushes[int(at[row])] = [
                    (src, job.out_id, name_of(job.op), vector[number])
                    for src, vector in zip(job.src_ids, vectors, strict=False)
                ]
    return [results[i] for i in range(len(jobs))], [push for i in range(len(jobs)) for push in pushes[i]]


def _thetas(sys: ForeignSystem, batch: JobBatch, row: int) -> list[Array]:
    found = []
    for slot, node_id in enumerate(np.asarray(batch.src_ids)[row].tolist()):
        where = f"{batch.name(row)}, slot {slot}"
        theta = plain(getattr(_node(sys, node_id, where), "theta", None), f"{where}: theta of node {node_id}")
        check_dtype(theta.dtype, f"{where}: theta of node {node_id}")
        found.append(theta)
    return found


def _node(sys: ForeignSystem, node_id: int, where: str) -> Any:
    try:
        return sys.nodes[node_id]
    except (KeyError, IndexError) as error:
        msg = f"{where}: no node {node_id}"
        raise UnknownNodeError(msg) from error


def _evaluate(
    sys: ForeignSystem, pipeline: Pipeline, batch: JobBatch, stacked: list[Array]
) -> tuple[BatchResult, list[Array]]:
    """Answer a batch of one signature; return its results and, with a residual, the impulse vectors of each slot."""
    spec = ops.get(batch.op)
    try:
        sources = ArraySources(name_of(batch.op), stacked)
    except DtypeError as error:
        msg = f"{batch.name(0)}: {error}"
        raise DtypeError(msg) from error
    unversioned = np.empty((len(batch), 0), np.int64)
    done = answer(
        pipeline,
        spec,
        batch,
        sources,
        unversioned,
        unversioned,
        Look(lambda ids: _positions(sys, batch, ids), lambda i: _node(sys, i, batch.name(0))),
    )
    rows = np.arange(len(batch), dtype=np.int64)
    return done.result, [
        weighted(batch, rows, slot, each, done.weights[:, slot]) for slot, each in enumerate(done.pulled)
    ]


def _positions(sys: ForeignSystem, batch: JobBatch, ids: Ids) -> Array:
    """Return the positions of nodes by id, (*ids.shape, d), one row a job."""
    found = np.empty((0,))
    for at, node_id in np.ndenumerate(ids):
        p = _position(sys, int(node_id), batch, at[0])
        if not found.size:
            found = np.empty((*ids.shape, *p.shape))
        if p.ndim != 1 or p.shape != found.shape[ids.ndim :]:
            got = f"of shape {p.shape}, others of {found.shape[ids.ndim :]}"
            msg = f"{batch.name(at[0])}: weight 'inv_length': node {node_id} has a position {got}"
            raise ShapeError(msg)
        found[at] = p
    return found


def _position(sys: ForeignSystem, node_id: int, batch: JobBatch, row: int) -> Array:
    p = getattr(_node(sys, node_id, batch.name(row)), "p", None)
    if p is None:
        msg = f"{batch.name(row)}: weight 'inv_length': node {node_id} has no position p"
        raise ParamError(msg)
    return np.asarray(p, np.float64)
