"""Attributes as they come in: of nodes that are new, or new to nodes that are there; refused by name before any is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from whiteboard.errors import ParamError, ShapeError, UnknownNodeError
from whiteboard.evaluation.columns import attribute, ids_column
from whiteboard.records.systems import is_attr
from whiteboard.systems.nodes import Nodes
from whiteboard.types import Array, Ids


def of_new_nodes(n: int, often: Mapping[str, ArrayLike | None], others: Any, where: str) -> dict[str, Array]:
    """Return the attributes of n new nodes, (n, …) each.

    Raises
    ------
    ShapeError, DtypeError, ParamError
        There is none, or one that cannot be; `where` opens the message.
    """
    given = {name: value for name, value in often.items() if value is not None}
    if not isinstance(others, Mapping):
        msg = f"{where}: attrs: expected a mapping of names to values, got {type(others).__name__}"
        raise ParamError(msg)
    for name in others:
        _check_name(name, f"{where}: attrs")
    if twice := given.keys() & others.keys():
        msg = f"{where}: attrs: {min(twice)} is given twice"
        raise ParamError(msg)
    columns = {name: _column(name, value, n, where) for name, value in {**given, **others}.items()}
    if not columns:
        msg = f"{where}: give theta, p, or attrs"
        raise ShapeError(msg)
    return columns


def new_to_nodes(nodes: Nodes, name: str, ids: ArrayLike, values: ArrayLike, where: str) -> tuple[Ids, Array]:
    """Return the indices (n,) of nodes that are there without an attribute, and its values (n, …).

    Raises
    ------
    UnknownNodeError, ShapeError, DtypeError
    ParamError
        The name cannot be one, or a node is given twice or has the attribute; `where` opens the message.
    """
    _check_name(name, where)
    column = ids_column(ids, f"{where}: ids")
    if column.ndim != 1:
        msg = f"{where}: ids: expected shape (n,), got {column.shape}"
        raise ShapeError(msg)
    index = nodes.index(column)
    if np.any(index < 0):
        msg = f"{where}: no such node: {column[index < 0][0]}"
        raise UnknownNodeError(msg)
    unique, counts = np.unique(column, return_counts=True)
    if len(unique) < len(column):
        msg = f"{where}: node {unique[counts > 1][0]} is given twice"
        raise ParamError(msg)
    arena, _ = nodes.locate(name, index)
    if np.any(arena >= 0):
        msg = f"{where}: node {column[arena >= 0][0]} has {name} already; system.write gives it another value"
        raise ParamError(msg)
    return index, _column(name, values, len(column), where)


def _check_name(name: str, where: str) -> None:
    if not is_attr(name):
        msg = f"{where}: {name!r} cannot be an attribute's name: ASCII letters, digits and _, a letter first"
        raise ParamError(msg)


def _column(name: str, value: ArrayLike, n: int, where: str) -> Array:
    column = attribute(value, n, f"{where}: {name}")
    if name == "p" and column.ndim != 2:
        msg = f"{where}: p: expected shape ({n}, d), got {column.shape}"
        raise ShapeError(msg)
    return column
