"""Versioned nodes in arenas: one C-contiguous matrix per (attribute, shape, dtype), so that a bin is one gather."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard.concurrency import locks
from whiteboard.errors import DuplicateNodeError, ShapeError, UnknownNodeError
from whiteboard.identity.keys import DIGEST_BYTES, tokens
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

    def extended(self, owner: Ids, values: Array) -> tuple[Arena, Ids]:
        """Return an arena that has rows for the nodes `owner` too, and their numbers; this one stays as it is.

        The memory is shared, so only one arena may be made of another and then used.
        """
        start, end = self._n, self._n + len(owner)
        other = Arena(self.attr, self.shape, self.dtype)
        if end > len(self._owner):  # double, so that adding nodes one by one stays linear
            room = max(end, 2 * start) - start
            other._owner = np.concatenate([self.owner, np.empty(room, np.int64)])
            other._values = np.concatenate([self.values, np.empty((room, *self.shape), self.dtype)])
            other._tokens = np.concatenate([self._tokens[:start], np.empty((room, DIGEST_BYTES), np.uint8)])
            other._fresh = np.concatenate([self._fresh[:start], np.zeros(room, np.bool_)])
        else:
            other._owner, other._values, other._tokens, other._fresh = (
                *(self._owner, self._values),
                *(self._tokens, self._fresh),
            )
        other._owner[start:end], other._values[start:end], other._fresh[start:end] = owner, values, False
        other._n = end
        return other, np.arange(start, end, dtype=np.int64)

    def write(self, rows: Ids, values: Array, tokens: NDArray[np.uint8] | None = None) -> None:
        """Overwrite rows; their tokens, (n, 16), are computed again when next asked for where they are not given."""
        self._fresh[rows] = False  # first: whatever comes between, no token is of another value
        self.values[rows] = values
        if tokens is not None:
            self._tokens[rows] = tokens
            self._fresh[rows] = True

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


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """What a system's nodes are at one moment; another one takes its place in one assignment."""

    ids: Ids
    versions: Ids
    fixed: NDArray[np.bool_]
    arenas: tuple[Arena, ...]
    arena: dict[str, Ids]
    row: dict[str, Ids]
    order: Ids
    sorted: Ids


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """New values for some rows of an arena, and their tokens, (n, 16)."""

    arena: Arena
    rows: Ids
    values: Array
    tokens: NDArray[np.uint8]


_NO_IDS: Ids = np.empty(0, np.int64)
_NOTHING = {"theta": _NO_IDS, "p": _NO_IDS}


class Nodes:
    """The nodes of a system: ids, versions, and where each attribute lies. Reads like a mapping of id to `Node`."""

    def __init__(self) -> None:
        self.lock = locks.rlock()
        """Held by whoever changes the nodes, or reads more of them than one."""
        self._table = _Table(_NO_IDS, _NO_IDS, np.empty(0, np.bool_), (), _NOTHING, _NOTHING, _NO_IDS, _NO_IDS)
        self._owed: tuple[Sequence[Change], Ids] | None = None

    @property
    def ids(self) -> Ids:
        """Ids by node index, (n,)."""
        return self._table.ids

    @property
    def versions(self) -> Ids:
        """Versions by node index, (n,)."""
        return self._table.versions

    @property
    def fixed(self) -> NDArray[np.bool_]:
        """Which nodes take no impulses, by node index, (n,)."""
        return self._table.fixed

    @property
    def arenas(self) -> Sequence[Arena]:
        """All arenas, by number."""
        return self._table.arenas

    def advance(self, changes: Sequence[Change], versions: Ids) -> None:
        """Give rows new values, and all nodes their versions, (n,): all of it, or, until `settle`, some."""
        self._owed = changes, versions
        self.settle()

    def settle(self) -> None:
        """Finish what an interrupt kept `take` from; for whoever has the lock, before the nodes are read."""
        if self._owed is not None:
            changes, versions = self._owed
            for change in changes:
                change.arena.write(change.rows, change.values, change.tokens)
            self._table = replace(self._table, versions=versions)
            self._owed = None

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self._table.sorted.tolist())

    def __contains__(self, node_id: object) -> bool:
        return isinstance(node_id, int | np.integer) and bool(self._find(np.array([node_id], np.int64))[0] >= 0)

    def __getitem__(self, node_id: int) -> Node:
        with self.lock:
            self.settle()
            if node_id not in self:
                msg = f"no node {node_id!r} (the system has {len(self)} nodes)"
                raise UnknownNodeError(msg)
            index = int(self._find(np.array([node_id], np.int64))[0])
            theta, p = self._value("theta", index), self._value("p", index)
            return Node(int(node_id), theta, p, int(self.versions[index]), bool(self.fixed[index]))

    def _value(self, attr: str, index: int) -> Array | None:
        number = self._table.arena[attr][index]
        if number < 0:
            return None
        value = np.array(self.arenas[number].values[self._table.row[attr][index]])
        value.flags.writeable = False
        return value

    def _find(self, ids: Ids) -> Ids:
        table = self._table
        if not len(table.ids):
            return np.full(ids.shape, -1, np.int64)
        low, high = int(table.sorted[0]), int(table.sorted[-1])
        if high - low == len(table.ids) - 1:  # no gaps: the place of an id is the id itself
            at = np.minimum(np.maximum(ids, low), high) - low  # np.clip costs 10 µs a call
        else:
            at = np.minimum(np.searchsorted(table.sorted, ids), len(table.ids) - 1)
        return np.where(table.sorted.take(at) == ids, table.order.take(at), -1)

    def index(self, ids: Ids) -> Ids:
        """Return the node index of each id (any shape), -1 for an id that is not there."""
        return self._find(ids)

    def locate(self, attr: str, index: Ids) -> tuple[Ids, Ids]:
        """Return (arena number, row) of an attribute for node indices of any shape; arena -1 where there is none."""
        return self._table.arena[attr].take(index), self._table.row[attr].take(index)

    def ordered(self) -> Ids:
        """Return the node indices by ascending id."""
        return self._table.order

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
        self.settle()
        table, none = self._table, np.full(len(ids), -1, np.int64)
        owner = np.arange(len(table.ids), len(table.ids) + len(ids), dtype=np.int64)
        every = np.concatenate([table.ids, ids])
        order = np.argsort(every, kind="stable")
        grown = _Table(
            every,
            np.concatenate([table.versions, versions]),
            np.concatenate([table.fixed, fixed]),
            table.arenas,
            {attr: np.concatenate([column, none]) for attr, column in table.arena.items()},
            {attr: np.concatenate([column, none]) for attr, column in table.row.items()},
            order,
            every[order],
        )
        for attr, values in attrs.items():
            grown = _attached(grown, attr, owner, values)
        self._table = grown

    def attach(self, attr: str, owner: Ids, values: Array) -> None:
        """Give the nodes at index `owner` an attribute that they do not have yet; `values` is (n, …)."""
        self.settle()
        self._table = _attached(self._table, attr, owner, values)


def _attached(table: _Table, attr: str, owner: Ids, values: Array) -> _Table:
    """Return the table in which nodes that do not have an attribute have it."""
    arenas = list(table.arenas)
    kind = (attr, values.shape[1:], values.dtype)
    number = next((n for n, arena in enumerate(arenas) if (arena.attr, arena.shape, arena.dtype) == kind), len(arenas))
    if number == len(arenas):
        arenas.append(Arena(*kind))
    arenas[number], rows = arenas[number].extended(owner, values)
    arena, row = table.arena[attr].copy(), table.row[attr].copy()
    arena[owner], row[owner] = number, rows
    return replace(table, arenas=tuple(arenas), arena={**table.arena, attr: arena}, row={**table.row, attr: row})


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
