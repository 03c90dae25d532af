"""The state of a system as columns: into node arenas, out to the store, and down to one digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from whiteboard.identity.keys import DIGEST_BYTES
from whiteboard.ops.fingerprint.encoding import encode
from whiteboard.records.systems import NodeColumns
from whiteboard.systems.jobs import ATTRS
from whiteboard.systems.nodes import Change, Nodes
from whiteboard.types import Array, Ids


def load(columns: Sequence[NodeColumns]) -> Nodes:
    """Return nodes with the rows of `columns`, one `NodeColumns` an arena."""
    nodes = Nodes()
    if not columns:
        return nodes
    ids, first = np.unique(np.concatenate([part.ids for part in columns]), return_index=True)
    fixed = np.concatenate([part.fixed for part in columns])[first]
    versions = np.zeros(len(ids), np.int64)
    for part in columns:
        # A node's version is that of its attribute that changed last.
        np.maximum.at(versions, np.searchsorted(ids, part.ids), part.versions)
    nodes.add(ids, versions, fixed, {})
    for part in columns:
        nodes.attach(part.attr, np.searchsorted(ids, part.ids), np.array(part.values))
    return nodes


@dataclass(frozen=True, slots=True, eq=False)
class Ahead:
    """A state as it will be once some changes are taken; until then nothing of it is in the nodes.

    Parameters
    ----------
    nodes : Nodes
    versions : ndarray of int64, shape (n,)
        By node index.
    changes : mapping of int to Change
        By arena number, rows ascending.
    """

    nodes: Nodes
    versions: Ids
    changes: Mapping[int, Change]

    @classmethod
    def now(cls, nodes: Nodes) -> Ahead:
        """Return the state as it is."""
        return cls(nodes, nodes.versions, {})

    def values(self, number: int, rows: Ids | None) -> Array:
        """Return the values of some rows of an arena, (m, …), or of all."""
        arena, change = self.nodes.arenas[number], self.changes.get(number)
        if change is None:
            return arena.values if rows is None else arena.values[rows]
        if np.array_equal(change.rows, np.arange(len(arena)) if rows is None else rows):
            return change.values
        place = np.full(len(arena), -1, np.int64)
        place[change.rows] = np.arange(len(change.rows))
        values = np.array(arena.values if rows is None else arena.values[rows])
        at = place if rows is None else place[rows]
        values[at >= 0] = change.values[at[at >= 0]]
        return values


def dump(state: Ahead, rows: Mapping[int, Ids] | None = None) -> list[NodeColumns]:
    """Return all rows of every arena, or those of `rows` (by arena number), as columns by ascending id.

    The columns are valid until the nodes change: whole arenas are views.
    """
    nodes, parts = state.nodes, []
    for number, arena in enumerate(nodes.arenas):
        some = np.arange(len(arena), dtype=np.int64) if rows is None else rows.get(number, np.empty(0, np.int64))
        if len(some):
            ids = nodes.ids[arena.owner[some]]
            if np.any(ids[1:] < ids[:-1]):
                some = some[np.argsort(ids, kind="stable")]
            owner = arena.owner[some]
            whole = len(some) == len(arena) and bool(np.all(some[1:] > some[:-1]))
            values = state.values(number, None if whole else some)
            parts.append(NodeColumns(arena.attr, nodes.ids[owner], state.versions[owner], nodes.fixed[owner], values))
    return parts


def digest(ahead: Ahead) -> str:
    """Return the hex BLAKE2b-128 digest of a state: ids, versions, and the bytes of every attribute by its first token.

    Nodes count by ascending id; no clock, path or order of arrival enters. Only what changed since the last call
    is hashed again. A state that has other attributes than theta and p says so first, with their names in order, so
    that no state of either kind is read as one of the other.
    """
    nodes = ahead.nodes
    order = nodes.ordered()
    others = sorted({arena.attr for arena in nodes.arenas if len(arena)} - set(ATTRS))
    opening = b"whiteboard-state-2" + encode((len(nodes), *others)) if others else b"whiteboard-state-1"
    state = blake2b(opening, digest_size=DIGEST_BYTES)
    for column in (nodes.ids, ahead.versions):
        state.update(np.ascontiguousarray(column[order], "<i8").data)
    for attr in (*ATTRS, *others):
        state.update(_first_tokens(ahead, attr)[order].data)
    return state.hexdigest()


def _first_tokens(ahead: Ahead, attr: str) -> Array:
    """Return each node's first token of an attribute, (nodes, 16); zeros where it has none."""
    tokens = np.zeros((len(ahead.nodes), DIGEST_BYTES), np.uint8)
    for number, arena in enumerate(ahead.nodes.arenas):
        if arena.attr == attr:
            rows, change = np.arange(len(arena), dtype=np.int64), ahead.changes.get(number)
            if change is not None:
                tokens[arena.owner[change.rows]] = change.first
                rows = np.delete(rows, change.rows)
            tokens[arena.owner[rows]] = arena.first_tokens(rows)
    return tokens
