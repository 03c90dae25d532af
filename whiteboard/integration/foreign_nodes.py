"""Foreign nodes: found by id in a dict or a list, read and written as objects or as dicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from whiteboard.errors import DtypeError, ParamError, ShapeError, UnknownNodeError
from whiteboard.evaluation.columns import check_dtype, numbers
from whiteboard.systems.jobs import JobBatch
from whiteboard.systems.weights import Look
from whiteboard.types import FLOATS, Array, Ids

Read: TypeAlias = str | Callable[[Any], ArrayLike]
"""The name of the attribute that a job reads, or ``read(node) → array``."""


class HasNodes(Protocol):
    """Nodes by id."""

    @property
    def nodes(self) -> Any: ...


class Slot(NamedTuple):
    """A source of a row of a batch, as errors name it; the text is made only for them."""

    batch: JobBatch
    row: int
    slot: int

    def __str__(self) -> str:
        return f"{self.batch.name(self.row)}, slot {self.slot}"


def node_of(sys: HasNodes, node_id: int, where: object) -> Any:
    """Return a node.

    Raises
    ------
    UnknownNodeError
        There is none, or the id is below 0 and the nodes are a list, which would count it from the end.
    """
    nodes = sys.nodes
    try:
        if node_id >= 0 or not isinstance(nodes, Sequence | np.ndarray):
            return nodes[node_id]
    except (KeyError, IndexError) as error:
        msg = f"{where}: no node {node_id}"
        raise UnknownNodeError(msg) from error
    msg = f"{where}: no node {node_id}: the nodes are a {type(nodes).__name__}, whose ids count from 0"
    raise UnknownNodeError(msg)


def attribute_of(node: Any, name: str) -> Any:
    """Return an attribute of a node, or an item where it is a dict or a record; None where it has none."""
    if isinstance(node, Mapping):
        return node.get(name)
    try:
        return getattr(node, name)
    except AttributeError:
        try:
            return node[name]
        except (TypeError, LookupError, ValueError):
            return None


def assign(node: Any, name: str, value: Array) -> None:
    """Set an attribute of a node, or an item where it is a dict or a record."""
    if isinstance(node, Mapping | np.void):
        node[name] = value  # type: ignore[index] # whoever asks for it has a dict that can be written
    else:
        setattr(node, name, value)


def value_of(sys: HasNodes, node_id: int, read: Read, promote: bool, where: object) -> tuple[Array, bool]:
    """Return what a job reads of a node, and whether it is a number of Python's.

    Raises
    ------
    UnknownNodeError, DtypeError
        `where` opens the message.
    """
    node = node_of(sys, node_id, where)
    given = attribute_of(node, read) if isinstance(read, str) else read(node)
    what = read if isinstance(read, str) else "value"
    if given is None:
        msg = f"{where}: node {node_id} has no {what}"
        raise UnknownNodeError(msg)
    array = given if type(given) is np.ndarray else numbers(given, f"{where}: {what} of node {node_id}")
    if promote and array.dtype.kind in "biuf":
        array = array.astype(np.float64)
    if array.dtype not in FLOATS:
        check_dtype(array.dtype, f"{where}: {what} of node {node_id}")
    return array, type(given) in (float, int)


def look(sys: HasNodes, batch: JobBatch) -> Look:
    """Return how the weights of a batch look at foreign nodes."""
    return Look(lambda ids: _positions(sys, batch, ids), lambda node_id: node_of(sys, node_id, batch.name(0)))


def _positions(sys: HasNodes, batch: JobBatch, ids: Ids) -> Array:
    """Return the positions of nodes by id, (*ids.shape, d), one row a job."""
    found = np.empty((0,))
    for at, node_id in np.ndenumerate(ids):
        p = _position(sys, int(node_id), batch, at[0])
        if not found.size:
            found = np.empty((*ids.shape, *p.shape))
        if p.ndim != 1 or p.shape != found.shape[ids.ndim :]:
            got = f"of shape {p.shape}, others of {found.shape[ids.ndim :]}"
            msg = f"{batch.name(at[0])}: weight 'inv_length': node {node_id} has a position {got}"
            raise ShapeError(msg)
        found[at] = p
    return found


def _position(sys: HasNodes, node_id: int, batch: JobBatch, row: int) -> Array:
    p = attribute_of(node_of(sys, node_id, batch.name(row)), "p")
    if p is None:
        msg = f"{batch.name(row)}: weight 'inv_length': node {node_id} has no position p"
        raise ParamError(msg)
    try:
        return np.asarray(p, np.float64)
    except (TypeError, ValueError) as error:
        msg = f"{batch.name(row)}: weight 'inv_length': position p of node {node_id}: expected numbers, got {p!r:.80}"
        raise DtypeError(msg) from error
