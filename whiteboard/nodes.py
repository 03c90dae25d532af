"""Versioned nodes in arenas: one C-contiguous matrix per (attribute, shape, dtype), so that a bin is one gather."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import DuplicateNodeError, ShapeError, UnknownNodeError
from whiteboard.keys import DIGEST_BYTES, tokens
from whiteboard.types import Array, Ids, Shape


class Arena:
    """The values of one attribute for all nodes of equal shape and dtype, with their lazily computed tokens."""

    def __init__(self, attr: str, shape: Shape, dtype: np.dtype[Any]) -> None:
        self.attr, self.shape, self.dtype = attr, shape, dtype
        self._n = 0
        self._owner: Ids = np.empty(0, np.int64)
        self._values: Array = np.empty((0, *shape), dtype)
        self._tokens: NDArray[np.uint8] = np.empty((0, DIGEST_BYTES), np.uint8)
        self._fresh: NDArray[np.bool_] = np.empty(0, np.bool_)

    def __len__(self) -> int:
        return self._n

    @property
    def owner(self) -> Ids:
        """Node index of each row."""
        return self._owner[: self._n]

    @property
    def values(self) -> Array:
        """The matrix, shape (rows, *shape)."""
        return self._values[: self._n]

    def extend(self, owner: Ids, values: Array) -> Ids:
        """Append rows for the nodes `owner`; return their row numbers."""
        start, end = self._n, self._n + len(owner)
        if end > len(self._owner):  # double, so that adding nodes one by one stays linear
            room = max(end, 2 * start) - start
            self._owner = np.concatenate([self.owner, np.empty(room, np.int64)])
            self._values = np.concatenate([self.values, np.empty((room, *self.shape), self.dtype)])
            self._tokens = np.concatenate([self._tokens[:start], np.empty((room, DIGEST_BYTES), np.uint8)])
            self._fresh = np.concatenate([self._fresh[:start], np.zeros(room, np.bool_)])
        self._owner[start:end], self._values[start:end] = owner, values
        self._n = end
        return np.arange(start, end, dtype=np.int64)

    def write(self, rows: Ids, values: Array) -> None:
        """Overwrite rows; their tokens are computed again when next asked for."""
        self.values[rows] = values
        self._fresh[rows] = False

    def tokens(self, rows: Ids) -> NDArray[np.uint8]:
        """Return the tokens of `rows` (any shape), uint8 of shape (*rows.shape, 16); each is hashed once a version."""
        stale = rows[~self._fresh.take(rows)]
        if stale.size:
            stale = np.sort(stale)
            stale = stale[np.diff(stale, prepend=-1) > 0]
            self._tokens[stale] = tokens(self.values[stale])
            self._fresh[stale] = True
        return self._tokens.take(rows, axis=0)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A node as it stands now: `theta` and `p` are read-only copies (None where the node has none)."""

    id: int
    theta: Array | None
    p: Array | None
    version: int
    fixed: bool


class Nodes:
    """The nodes of a system: ids, versions, and where each attribute lies. Reads like a mapping of id to `Node`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Held by whoever changes the nodes, or reads more of them than one."""
        self.ids: Ids = np.empty(0, np.int64)
        self.versions: Ids = np.empty(0, np.int64)
        self.fixed: NDArray[np.bool_] = np.empty(0, np.bool_)
        self.arenas: list[Arena] = []
        self._arena: dict[str, Ids] = {"theta": np.empty(0, np.int64), "p": np.empty(0, np.int64)}
        self._row: dict[str, Ids] = {"theta": np.empty(0, np.int64), "p": np.empty(0, np.int64)}
        self._order: Ids = np.empty(0, np.int64)
        self._sorted: Ids = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self._sorted.tolist())

    def __contains__(self, node_id: object) -> bool:
        return isinstance(node_id, int | np.integer) and bool(self._find(np.array([node_id], np.int64))[0] >= 0)

    def __getitem__(self, node_id: int) -> Node:
        with self.lock:
            if node_id not in self:
                msg = f"no node {node_id!r} (the system has {len(self)} nodes)"
                raise UnknownNodeError(msg)
            index = int(self._find(np.array([node_id], np.int64))[0])
            theta, p = self._value("theta", index), self._value("p", index)
            return Node(int(node_id), theta, p, int(self.versions[index]), bool(self.fixed[index]))

    def _value(self, attr: str, index: int) -> Array | None:
        number = self._arena[attr][index]
        if number < 0:
            return None
        value = np.array(self.arenas[number].values[self._row[attr][index]])
        value.flags.writeable = False
        return value

    def _find(self, ids: Ids) -> Ids:
        if not len(self):
            return np.full(ids.shape, -1, np.int64)
        low, high = int(self._sorted[0]), int(self._sorted[-1])
        if high - low == len(self) - 1:  # no gaps: the place of an id is the id itself
            at = np.minimum(np.maximum(ids, low), high) - low  # np.clip costs 10 µs a call
        else:
            at = np.minimum(np.searchsorted(self._sorted, ids), len(self) - 1)
        return np.where(self._sorted.take(at) == ids, self._order.take(at), -1)

    def index(self, ids: Ids) -> Ids:
        """Return the node index of each id (any shape), -1 for an id that is not there."""
        return self._find(ids)

    def locate(self, attr: str, index: Ids) -> tuple[Ids, Ids]:
        """Return (arena number, row) of an attribute for node indices of any shape; arena -1 where there is none."""
        return self._arena[attr].take(index), self._row[attr].take(index)

    def ordered(self) -> Ids:
        """Return the node indices by ascending id."""
        return self._order

    def add(self, ids: Ids, versions: Ids, fixed: NDArray[np.bool_], attrs: dict[str, Array]) -> None:
        """Append n nodes; each of `attrs` is (n, …).

        Raises
        ------
        DuplicateNodeError
            For an id that is given twice or exists; nothing is added then.
        """
        unique, counts = np.unique(ids, return_counts=True)
        if len(unique) < len(ids):
            msg = f"node id {unique[counts > 1][0]} is given twice"
            raise DuplicateNodeError(msg)
        if np.any(known := self._find(ids) >= 0):
            msg = f"node id {ids[known][0]} exists already"
            raise DuplicateNodeError(msg)
        start = len(self)
        owner = np.arange(start, start + len(ids), dtype=np.int64)
        self.ids = np.concatenate([self.ids, ids])
        self.versions = np.concatenate([self.versions, versions])
        self.fixed = np.concatenate([self.fixed, fixed])
        for attr in self._arena:
            none = np.full(len(ids), -1, np.int64)
            self._arena[attr] = np.concatenate([self._arena[attr], none])
            self._row[attr] = np.concatenate([self._row[attr], none])
        for attr, values in attrs.items():
            self.attach(attr, owner, values)
        self._order = np.argsort(self.ids, kind="stable")
        self._sorted = self.ids[self._order]

    def attach(self, attr: str, owner: Ids, values: Array) -> None:
        """Give the nodes at index `owner` an attribute that they do not have yet; `values` is (n, …)."""
        number = self._arena_of(attr, values.shape[1:], values.dtype)
        self._arena[attr][owner] = number
        self._row[attr][owner] = self.arenas[number].extend(owner, values)

    def _arena_of(self, attr: str, shape: Shape, dtype: np.dtype[Any]) -> int:
        for number, arena in enumerate(self.arenas):
            if (arena.attr, arena.shape, arena.dtype) == (attr, shape, dtype):
                return number
        self.arenas.append(Arena(attr, shape, dtype))
        return len(self.arenas) - 1


def positions(nodes: Nodes, index: Ids) -> Array:
    """Return the positions `p` of nodes by index, shape (*index.shape, d).

    Raises
    ------
    ShapeError
        Where a node has no `p`, or not all have one dimension.
    """
    arena, row = nodes.locate("p", index)
    if arena.size and (np.any(arena < 0) or np.any(arena != arena.flat[0])):
        odd = index[(arena < 0) | (arena != arena.flat[0])]
        msg = f"node {nodes.ids[odd.flat[0]]} has no position p of the others' dimension"
        raise ShapeError(msg)
    return nodes.arenas[int(arena.flat[0])].values[row] if arena.size else np.empty((*index.shape, 0))
