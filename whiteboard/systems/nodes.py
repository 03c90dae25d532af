"""Versioned nodes in arenas: one C-contiguous matrix per (attribute, shape, dtype), so that a bin is one gather."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias
from weakref import WeakMethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whiteboard.concurrency import locks
from whiteboard.errors import DuplicateNodeError, ParamError, ShapeError, UnknownNodeError
from whiteboard.identity import keys
from whiteboard.systems.row_digests import RowDigests
from whiteboard.types import Array, Ids, Shape, shown

Write: TypeAlias = Callable[[int, Mapping[str, ArrayLike]], None]
"""``write(node id, values by attribute)``: what sets attributes with the next commit."""

_OFTEN: Final = ("theta", "p")
"""Attributes that a node may be asked for whether it has them or not."""


class Arena:
    """The values of one attribute for all nodes of equal shape and dtype, with their lazily computed tokens.

    Keys are made of tokens, and states' digests of first tokens, which are the same of values that are not large.
    """

    def __init__(self, attr: str, shape: Shape, dtype: np.dtype[Any]) -> None:
        self.attr, self.shape, self.dtype = attr, shape, dtype
        self._n = 0
        self._owner: Ids = np.empty(0, np.int64)
        self._values: Array = np.empty((0, *shape), dtype)
        large = dtype.itemsize * math.prod(shape) >= keys.LARGE_BYTES
        self._first = RowDigests(keys.first_tokens)
        self._tokens = RowDigests(keys.tokens) if large else self._first

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
        size = len(self._owner)
        if end > size:  # double, so that adding nodes one by one stays linear
            size = max(end, 2 * start)
            room = size - start
            other._owner = np.concatenate([self.owner, np.empty(room, np.int64)])
            other._values = np.concatenate([self.values, np.empty((room, *self.shape), self.dtype)])
        else:
            other._owner, other._values = self._owner, self._values
        other._first = self._first.extended(start, end, size)
        other._tokens = other._first if self._tokens is self._first else self._tokens.extended(start, end, size)
        other._owner[start:end], other._values[start:end] = owner, values
        other._n = end
        return other, np.arange(start, end, dtype=np.int64)

    def write(self, rows: Ids, values: Array, first: NDArray[np.uint8] | None = None) -> None:
        """Overwrite rows; tokens are made again when asked for, as are first tokens that are not given, (n, 16)."""
        self._tokens.forget(rows)  # first: whatever comes between, no token is of another value
        self._first.forget(rows)
        self.values[rows] = values
        if first is not None:
            self._first.put(rows, first)

    def tokens(self, rows: Ids) -> NDArray[np.uint8]:
        """Return the tokens of `rows` (any shape), uint8 of shape (*rows.shape, 16); each is hashed once a version."""
        return self._tokens.of(rows, self.values)

    def first_tokens(self, rows: Ids) -> NDArray[np.uint8]:
        """Return the same of their first tokens."""
        return self._first.of(rows, self.values)


class Node:
    """A node as it stands now: its attributes are read-only copies, `theta` and `p` None where it has none.

    To set one is `System.write`: it comes with the next commit, and this node stays what was read.

    Attributes
    ----------
    id, version : int
    fixed : bool
    attrs : mapping of str to ndarray
        All attributes by name; each is an attribute of the node too.
    """

    __slots__ = ("_write", "attrs", "fixed", "id", "version")

    id: int
    version: int
    fixed: bool
    attrs: Mapping[str, Array]
    theta: Array | None
    p: Array | None

    def __init__(
        self, node_id: int, version: int, fixed: bool, attrs: Mapping[str, Array], write: Write | None = None
    ) -> None:
        for name, value in zip(Node.__slots__, (write, MappingProxyType(attrs), fixed, node_id, version), strict=True):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name in Node.__slots__:  # it is being made: there are no attributes to look in
            raise AttributeError(name)
        if name in _OFTEN or name in self.attrs:
            return self.attrs.get(name)
        msg = f"node {self.id} has no {name!r} (it has {', '.join(self.attrs)})"
        raise AttributeError(msg)

    def __setattr__(self, name: str, value: ArrayLike) -> None:
        write: Write | None = self._write
        if name in Node.__slots__:
            msg = f"node {self.id}: {name} is no attribute to be written"
            raise ParamError(msg)
        if write is None:
            msg = f"node {self.id}: {name} cannot be written in a copy or a snapshot"
            raise ParamError(msg)
        write(self.id, {name: value})

    def __reduce__(self) -> tuple[Any, ...]:
        return Node, (self.id, self.version, self.fixed, dict(self.attrs))

    def __repr__(self) -> str:
        said = {"version": self.version, "fixed": self.fixed, **self.attrs}
        return f"Node({self.id}, {', '.join(f'{name}={value!r}' for name, value in said.items())})"


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
    """New values for some rows of an arena, and their first tokens, (n, 16)."""

    arena: Arena
    rows: Ids
    values: Array
    first: NDArray[np.uint8]


_NO_IDS: Ids = np.empty(0, np.int64)


class Nodes:
    """The nodes of a system: ids, versions, and where each attribute lies. Reads like a mapping of id to `Node`.

    ``nodes[7].theta = x`` is ``system.write(7, theta=x)``.
    """

    def __init__(self) -> None:
        self.lock = locks.rlock()
        """Held by whoever changes the nodes, or reads more of them than one."""
        self._table = _Table(_NO_IDS, _NO_IDS, np.empty(0, np.bool_), (), {}, {}, _NO_IDS, _NO_IDS)
        self._owed: tuple[Sequence[Change], Ids] | None = None
        self._writer: Callable[[], Write | None] = _nobody

    def __repr__(self) -> str:
        kept = ", ".join(sorted(f"{arena.attr} {arena.dtype}{arena.shape} of {len(arena):,}" for arena in self.arenas))
        return f"<{len(self):,} nodes{kept and ': '}{kept}>"

    def written_by(self, write: Write) -> None:
        """Say what an assignment to a node's attribute calls: a bound method, which is not kept alive."""
        self._writer = WeakMethod(write)

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
                change.arena.write(change.rows, change.values, change.first)
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
                msg = f"no node {shown(node_id)!r} (the system has {len(self)} nodes)"
                raise UnknownNodeError(msg)
            index = int(self._find(np.array([node_id], np.int64))[0])
            return self._node(index)

    def _node(self, index: int) -> Node:
        table, attrs = self._table, {}
        for attr, column in table.arena.items():
            if (number := column[index]) >= 0:
                value = attrs[attr] = np.array(table.arenas[number].values[table.row[attr][index]])
                value.flags.writeable = False
        version, fixed = int(table.versions[index]), bool(table.fixed[index])
        return Node(int(table.ids[index]), version, fixed, attrs, self._writer())

    def get(self, node_id: int, default: Node | None = None) -> Node | None:
        """Return a node, or `default` where there is none of that id."""
        with self.lock:
            if node_id not in self:
                return default
            return self[node_id]

    def keys(self) -> list[int]:
        """Return the ids, ascending."""
        return list(self)

    def values(self) -> list[Node]:
        """Return all nodes as they stand at one moment, by ascending id."""
        with self.lock:
            self.settle()
            return [self._node(index) for index in self.ordered().tolist()]

    def items(self) -> list[tuple[int, Node]]:
        """Return the ids and nodes of `values`."""
        return [(node.id, node) for node in self.values()]

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
        table = self._table
        if attr not in table.arena:
            return np.full(index.shape, -1, np.int64), np.full(index.shape, -1, np.int64)
        return table.arena[attr].take(index), table.row[attr].take(index)

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


def _nobody() -> None:
    """Nodes that no system has are only to be read."""


def _attached(table: _Table, attr: str, owner: Ids, values: Array) -> _Table:
    """Return the table in which nodes that do not have an attribute have it."""
    arenas = list(table.arenas)
    kind = (attr, values.shape[1:], values.dtype)
    number = next((n for n, arena in enumerate(arenas) if (arena.attr, arena.shape, arena.dtype) == kind), len(arenas))
    if number == len(arenas):
        arenas.append(Arena(*kind))
    arenas[number], rows = arenas[number].extended(owner, values)
    nowhere = np.full(len(table.ids), -1, np.int64)
    arena, row = table.arena.get(attr, nowhere).copy(), table.row.get(attr, nowhere).copy()
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
