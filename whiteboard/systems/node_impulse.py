"""Impulses and writes that a caller addresses to one node itself, instead of by a job."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from whiteboard.errors import StaleImpulseError, UnknownNodeError
from whiteboard.evaluation.columns import fitted, ids_column
from whiteboard.identity.keys import encode_first
from whiteboard.systems.impulses import Impulses
from whiteboard.systems.nodes import Nodes
from whiteboard.types import shown


def impulse(
    nodes: Nodes, src_id: int, out_id: int | None, op_name: str, vector: ArrayLike, version: int | None, attr: str
) -> Impulses:
    """Return one impulse of weight 1 onto an attribute of a node; op and out node stand for the job.

    Raises
    ------
    UnknownNodeError, ShapeError, DtypeError, NonFiniteError
    StaleImpulseError
        `version` is given, and is not the node's.
    """
    where = f"op {op_name!r}: impulse on node {shown(src_id)!r} from {shown(out_id)!r}"
    number, row = place(nodes, src_id, attr, where)
    to = nodes.arenas[number]
    now = int(nodes.versions[to.owner[row]])
    if version not in (None, now):
        msg = f"{where}: it was made against version {version}, the node has version {now}"
        raise StaleImpulseError(msg)
    value = fitted(vector, to.shape, to.dtype, where)
    job, source = encode_first((op_name, out_id)), np.array([[nodes.ids[to.owner[row]]]])
    return Impulses(number, np.array([row]), job, source, np.zeros(1, np.int64), np.ones(1), value[None])


def place(nodes: Nodes, node_id: int, attr: str, where: str) -> tuple[int, int]:
    """Return (arena number, row) of a node's attribute.

    Raises
    ------
    UnknownNodeError
        `where` opens the message.
    """
    index = nodes.index(np.atleast_1d(ids_column(node_id, where)))
    arena, rows = nodes.locate(attr, index)
    if index[0] < 0 or arena[0] < 0:
        lacks = f"the node has no {attr}; system.add_attribute gives it one"
        msg = f"{where}: {'no such node' if index[0] < 0 else lacks}"
        raise UnknownNodeError(msg)
    return int(arena[0]), int(rows[0])
