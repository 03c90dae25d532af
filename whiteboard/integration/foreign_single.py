"""One foreign call whose package lies in memory, answered without columns: the bits, results and counts are theirs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from whiteboard import ops
from whiteboard.errors import UnknownNodeError
from whiteboard.evaluation.pipeline import Pipeline
from whiteboard.evaluation.single import taken
from whiteboard.integration.foreign_calls import Call
from whiteboard.integration.foreign_nodes import HasNodes, attribute_of, node_of
from whiteboard.systems.jobs import OpResult
from whiteboard.types import Array


def at_once(sys: HasNodes, pipeline: Pipeline, call: Call) -> tuple[OpResult, tuple[Array, ...]] | None:
    """Return the result of a call and its impulses, or None where columns have to answer it.

    These answer whatever is out of the ordinary: a miss, an error, a weight, a stack, a residual that is no float,
    values that are no arrays or are read by a function.
    """
    job = call.job
    if job.stack or job.weight not in (None, "none"):
        return None
    residual, scale = job.residual, job.scale
    if not (residual is None or type(residual) is float) or type(scale) is not float:
        return None
    sources: list[Any] = []
    for node_id, read in zip(job.src_ids, call.reads, strict=True):
        if type(node_id) is not int or not isinstance(read, str):
            return None
        try:
            value = attribute_of(node_of(sys, node_id, call.op_name), read)
        except UnknownNodeError:
            return None
        if type(value) is not np.ndarray:
            return None
        sources.append(value)
    spec = ops.get(job.op)
    if spec.gradient == "none" or (place := pipeline.held(spec, job.params, sources)) is None:
        return None
    y, grads = taken(*place)
    vectors: tuple[Array, ...] = ()
    if residual is not None:
        dtype = y.dtype.type
        driving, scaling = dtype(residual), -dtype(scale)
        with np.errstate(all="ignore"):  # refused below
            vectors = tuple([(driving * grad) * scaling for grad in grads])
        squares = [np.vdot(vector, vector) for vector in vectors]
        if not y.size or not all(map(math.isfinite, squares)):  # no sum of squares of what is not finite is
            return None
    pipeline.count(place[0], drives=residual is not None)
    return OpResult(job.job_id, job.out_id, y, grads, "memory"), vectors
