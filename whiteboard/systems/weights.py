"""Weights: what the impulses of a job are multiplied with beside its scale, by the nodes at both ends of an edge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import ParamError, ShapeError
from whiteboard.systems.jobs import InvLength, JobBatch
from whiteboard.types import Array, Ids


@dataclass(frozen=True, slots=True)
class Look:
    """How weights look at nodes: `positions` of ids, (*ids.shape, d), and the `node` of an id."""

    positions: Callable[[Ids], Array]
    node: Callable[[int], Any]


def job_weights(batch: JobBatch, look: Look) -> NDArray[np.float64]:
    """Return w for each job and slot, (n, k): the scale, times what the batch's weight says of source and out node.

    An infinite one, of coincident points, is refused only where an impulse has it: see `reason`.

    Raises
    ------
    ParamError, ShapeError
        The message names op, job and nodes.
    """
    src_ids = np.asarray(batch.src_ids)
    scale = np.repeat(np.asarray(batch.scale, np.float64)[:, None], src_ids.shape[1], axis=1)
    match batch.weight:
        case None | "none":
            return scale
        case "inv_length":
            return _over_lengths(scale, batch, look, 0.0)
        case InvLength(floor):
            return _over_lengths(scale, batch, look, floor)
    return scale * _called(batch.weight, batch, look)


def _over_lengths(scale: NDArray[np.float64], batch: JobBatch, look: Look, floor: float) -> NDArray[np.float64]:
    if batch.out_ids is None:
        msg = f"{batch.name(0)}: weight 'inv_length' needs out_ids"
        raise ParamError(msg)
    sources, out = look.positions(np.asarray(batch.src_ids)), look.positions(np.asarray(batch.out_ids))
    if sources.shape[-1] != out.shape[-1]:
        got = f"of dimension {sources.shape[-1]}, that of the out nodes of {out.shape[-1]}"
        msg = f"{batch.name(0)}: weight 'inv_length': the position of the sources is {got}"
        raise ShapeError(msg)
    with np.errstate(all="ignore"):
        lengths = np.sqrt(np.square(sources - out[:, None], dtype=np.float64).sum(-1))
        return np.asarray(scale / np.maximum(lengths, floor))


def _called(weight: Callable[[Any, Any], Any], batch: JobBatch, look: Look) -> NDArray[np.float64]:
    src_ids = np.asarray(batch.src_ids)
    out_ids = [None] * len(batch) if batch.out_ids is None else np.asarray(batch.out_ids).tolist()
    found = np.empty(src_ids.shape)
    for row, out_id in enumerate(out_ids):
        out = None if out_id is None else look.node(out_id)
        for slot, node_id in enumerate(src_ids[row].tolist()):
            value = np.asarray(weight(look.node(node_id), out))
            if value.size != 1 or value.dtype.kind not in "biuf":
                what = f"{batch.name(row)}, slot {slot}: weight of node {node_id} to {out_id}"
                msg = f"{what}: expected a number, got {value.dtype} of shape {value.shape}"
                raise ParamError(msg)
            found[row, slot] = value.item()
    return found


def reason(batch: JobBatch, row: int, slot: int, weight: float) -> str:
    """Return why an impulse of this weight is not finite; the message names op, job, slot and nodes."""
    node = np.asarray(batch.src_ids)[row, slot]
    where, impulse = f"{batch.name(row)}, slot {slot}", f"the impulse on node {node} is not finite"
    if batch.weight in (None, "none") or batch.out_ids is None or np.isfinite(weight):
        return f"{where}: {impulse}"
    out, scale = np.asarray(batch.out_ids)[row], np.asarray(batch.scale)[row]
    if callable(batch.weight) or np.isnan(weight) or not np.isfinite(scale):
        return f"{where}: {impulse}: its weight to node {out} is {weight}, at a scale of {scale}"
    return (
        f"{where}: weight 'inv_length': nodes {node} and {out} lie at one point: give InvLength(floor=…), or move one"
    )
