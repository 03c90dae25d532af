"""Sources of a batch that are nodes: rows of arenas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import UnknownNodeError
from whiteboard.evaluation.buffers import Lender
from whiteboard.evaluation.sources import take_rows
from whiteboard.identity.keys import DIGEST_BYTES
from whiteboard.systems.jobs import JobBatch
from whiteboard.systems.nodes import Arena, Nodes
from whiteboard.types import Array, Ids, Shape


class NodeSources:
    """Sources that are nodes: each slot is a set of rows of one arena."""

    def __init__(self, nodes: Nodes, index: Ids, arenas: Sequence[Arena], rows: Ids) -> None:
        self._nodes, self._index, self.arenas, self.rows = nodes, index, arenas, rows

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(arena.shape for arena in self.arenas)

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return self.arenas[0].dtype

    def tokens(self) -> NDArray[np.uint8]:
        if all(arena is self.arenas[0] for arena in self.arenas):
            return self.arenas[0].tokens(self.rows)
        out = np.empty((*self.rows.shape, DIGEST_BYTES), np.uint8)
        for slot, arena in enumerate(self.arenas):
            out[:, slot] = arena.tokens(self.rows[:, slot])
        return out

    def gather(self, rows: Ids, lend: Lender, *, share: bool = False) -> list[Array]:
        return [
            take_rows(arena.values, self.rows[rows, slot], lend, share=share) for slot, arena in enumerate(self.arenas)
        ]

    def take(self, jobs: Ids) -> NodeSources:
        """Return the sources of some of the jobs."""
        return NodeSources(self._nodes, self._index[jobs], self.arenas, self.rows[jobs])

    def provenance(self, rows: Ids) -> tuple[Ids, Ids]:
        index = self._index[rows]
        return self._nodes.ids[index], self._nodes.versions[index]


def locate(nodes: Nodes, batch: JobBatch) -> tuple[Ids, Ids, Ids]:
    """Return (node index, arena number, row) of each source of a batch, each (n, k).

    Raises
    ------
    UnknownNodeError
        For an id that the system does not have, or a node without the batch's attribute; the message names op,
        job and slot.
    """
    ids = np.asarray(batch.src_ids)
    index = nodes.index(ids)
    if (missing := np.argwhere(index < 0)).size:
        row, slot = missing[0]
        msg = f"{batch.name(row)}, slot {slot}: no node {ids[row, slot]}"
        raise UnknownNodeError(msg)
    arena, rows = _located(nodes, batch.attrs, index)
    if (missing := np.argwhere(arena < 0)).size:
        row, slot = missing[0]
        msg = f"{batch.name(row)}, slot {slot}: node {ids[row, slot]} has no {batch.attrs[slot]!r}"
        raise UnknownNodeError(msg)
    return index, arena, rows


def _located(nodes: Nodes, attrs: Sequence[str], index: Ids) -> tuple[Ids, Ids]:
    """Return (arena number, row) of each source, (n, k) both, one attribute a slot."""
    if len(set(attrs)) <= 1:
        return nodes.locate(next(iter(attrs), "theta"), index)
    columns = [nodes.locate(attr, index[:, slot]) for slot, attr in enumerate(attrs)]
    arena, rows = (np.stack(column, axis=1) for column in zip(*columns, strict=True))
    return arena, rows
