"""The jobs of one call: cut into batches of one signature, and what these gave in the order of the jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from whiteboard.evaluation import bins
from whiteboard.evaluation.pipeline import Pipeline
from whiteboard.ops.spec import OpSpec
from whiteboard.systems.jobs import BatchResult, Job, JobBatch, OpResult, batches
from whiteboard.systems.node_sources import locate
from whiteboard.systems.nodes import Nodes
from whiteboard.systems.propagate import Propagated, propagate, raised
from whiteboard.types import Errors, OpLike, shown


def answer_batch(
    batch: JobBatch, nodes: Nodes, pipeline: Pipeline, op: Callable[[OpLike], OpSpec], errors: Errors
) -> tuple[BatchResult, list[Propagated]]:
    """Answer a batch; with ``errors="raise"`` what its jobs raised is raised once all are done."""
    done = propagate(nodes, pipeline, op(batch.op), batch)
    if errors == "raise" and done.result.errors:
        what = f"op {batch.op!r}"
        raise raised(what, len(batch), done.result.errors, batch.job)
    return done.result, [done]


def answer_list(
    jobs: Sequence[Job], nodes: Nodes, pipeline: Pipeline, op: Callable[[OpLike], OpSpec], errors: Errors, system: str
) -> tuple[list[OpResult], list[Propagated]]:
    """Answer jobs of any signatures, in their order; otherwise as `answer_batch`. `system` is named by the message."""
    placed: dict[int, OpResult] = {}
    failed: dict[int, Exception] = {}
    parts: list[Propagated] = []
    for at, batch in batches(jobs):
        spec = op(batch.op)
        _, arena, _ = locate(nodes, batch)
        for rows in bins.by_signature(arena):
            part = propagate(nodes, pipeline, spec, batch.take(rows))
            placed.update(zip(at[rows].tolist(), part.result, strict=True))
            failed |= {int(at[rows[row]]): error for row, error in part.result.errors.items()}
            parts.append(part)
    if errors == "raise" and failed:
        what = f"system {system!r}"
        raise raised(what, len(jobs), failed, lambda position: _told(position, jobs[position]))
    return [placed[position] for position in range(len(jobs))], parts


def _told(position: int, job: Job) -> str:
    return f"op {job.op!r}, job {position if job.job_id is None else shown(job.job_id)!r}"
