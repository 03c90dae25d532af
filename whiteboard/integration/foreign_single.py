"""One foreign call whose package lies in memory, answered without columns: the bits, results and counts are theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from whiteboard import ops
from whiteboard.errors import UnknownNodeError
from whiteboard.evaluation.pipeline import Pipeline
from whiteboard.evaluation.single import taken
from whiteboard.integration.foreign_nodes import HasNodes, Read, attribute_of, node_of
from whiteboard.systems.jobs import OpResult
from whiteboard.types import Array, ResultSink


def at_once(
    sys: HasNodes,
    pipeline: Pipeline,
    spec: Sequence[Any],
    scale: float,
    read: Read,
    sink: ResultSink | None,
    job_ids: Sequence[Any],
) -> Array | None:
    """Answer a call, push its impulses and return y, or do nothing and return None where columns have to.

    These answer whatever is out of the ordinary: a miss, an error, parameters, a function, a residual that is no float,
    values that are no arrays or are read by a function. For the other parameters see
    `bridge_v2.push_impulses_from_ops_batched`.
    """
    op_name, src_ids, out_id, op_args, op_kwargs, residual = (*spec, None)[:6] if 5 <= len(spec) <= 6 else _NONE
    if type(op_name) is not str or type(src_ids) not in (tuple, list) or len(job_ids) != 1:
        return None
    if type(read) is not str or op_kwargs is not None or not (op_args is None or op_args == ()):
        return None
    if type(scale) is not float or not (residual is None or type(residual) is float):
        return None
    impulse: Callable[..., object] | None = getattr(sys, "impulse", None)
    if residual is not None and not callable(impulse):
        return None
    sources: list[Any] = []
    for node_id in src_ids:
        if type(node_id) is not int:
            return None
        try:
            value = attribute_of(node_of(sys, node_id, op_name), read)
        except UnknownNodeError:
            return None
        if type(value) is not np.ndarray:
            return None
        sources.append(value)
    op = ops.get(op_name)
    if op.gradient == "none" or (place := pipeline.held(op, None, sources)) is None:
        return None
    y, grads = taken(*place)
    vectors: Sequence[Array] = ()
    if residual is not None:
        vectors = _driven(y.dtype.type, residual, scale, grads)
        squares = [np.vdot(vector, vector) for vector in vectors]
        if not y.size or not all(map(math.isfinite, squares)):  # no sum of squares of what is not finite is
            return None
    pipeline.counts.hit(place[0], drives=residual is not None)
    if sink is not None:
        sink.publish(OpResult(job_ids[0], out_id, y, grads, "memory"))
    for source, vector in zip(src_ids, vectors):  # noqa: B905 - without a residual there are none
        impulse(source, out_id, op_name, vector)  # type: ignore[misc] # looked at above
    return y


_NONE = (None,) * 6


@np.errstate(all="ignore")  # what is not finite is refused
def _driven(kind: Callable[[float], Any], residual: float, scale: float, grads: Sequence[Array]) -> Sequence[Array]:
    """Return the impulses of a residual."""
    driving, scaling = kind(residual), -kind(scale)
    return [(driving * grad) * scaling for grad in grads]
