"""Steps: what a commit would change, worked out without changing anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import NonFiniteError, ParamError, ShapeError
from whiteboard.identity.keys import first_tokens
from whiteboard.systems.impulses import Sums
from whiteboard.systems.nodes import Arena, Change, Nodes
from whiteboard.systems.rules import Rule
from whiteboard.types import Array, Ids

Moved: TypeAlias = tuple[Ids, Array, Array]
"""Rows of an arena, their values, and their new values."""


def ruled(nodes: Nodes, sums: Mapping[int, tuple[Ids, Sums]], rule: Rule | None, where: str) -> dict[int, Moved]:
    """Return the rows of each arena with impulses, as they are and as the rule makes them.

    Raises
    ------
    ParamError, ShapeError, NonFiniteError
        There is no rule, or it returned another shape or dtype, or a non-finite row; `where` opens the message.
    """
    _expect_rule(rule, where)
    moved = {}
    for number, (rows, sum_) in sums.items():
        if rule is None:
            msg = f"{where}: {int(sum_.count.sum())} impulses wait, so a rule is needed"
            raise ParamError(msg)
        arena = nodes.arenas[number]
        old = arena.values[rows]
        old.flags.writeable = False
        with np.errstate(all="ignore"):  # refused below, with the nodes' ids
            new = np.ascontiguousarray(rule(old, sum_))
        named = f"{where}: rule {getattr(rule, '__name__', type(rule).__name__)}"
        if new.shape != old.shape or new.dtype != old.dtype:
            msg = f"{named}: expected {old.dtype} of shape {old.shape}, got {new.dtype} of shape {new.shape}"
            raise ShapeError(msg)
        bad = ~np.isfinite(new).all(axis=tuple(range(1, new.ndim)))
        if bad.any():
            msg = f"{named}: the new {arena.attr} of node {_names(nodes, arena.owner[rows[bad]])} is not finite"
            raise NonFiniteError(msg)
        moved[number] = (rows, old, new)
    return moved


def _expect_rule(rule: object, where: str) -> None:
    if rule is not None and not callable(rule):
        msg = f"{where}: expected a rule(rows, sums), got {rule!r}"
        raise ParamError(msg)


def merged(
    nodes: Nodes, moved: Mapping[int, Moved], written: Mapping[int, Mapping[int, Array]], where: str
) -> dict[int, Moved]:
    """Return the rows that a rule moved together with those that were written (by arena, then row).

    Raises
    ------
    ParamError
        A row has both; `where` opens the message.
    """
    both = dict(moved)
    for number, values in written.items():
        arena = nodes.arenas[number]
        rows, new = np.array(list(values), np.int64), np.stack(list(values.values()))
        old = arena.values[rows]
        if number in moved:
            if (twice := np.intersect1d(rows, moved[number][0])).size:
                msg = f"{where}: node {nodes.ids[arena.owner[twice[0]]]} has impulses and was written"
                raise ParamError(msg)
            rows, old, new = (np.concatenate(pair) for pair in zip(moved[number], (rows, old, new), strict=True))
        both[number] = (rows, old, new)
    return both


def steps(nodes: Nodes, moved: Mapping[int, Moved]) -> dict[int, Change]:
    """Return, by arena, the rows whose bytes change, by ascending row."""
    changing = {}
    for number, (rows, old, new) in moved.items():
        differs = different(old, new)
        if differs.all():
            changing[number] = _change(nodes.arenas[number], rows, new)
        elif differs.any():
            changing[number] = _change(nodes.arenas[number], rows[differs], new[differs])
    return changing


def _change(arena: Arena, rows: Ids, values: Array) -> Change:
    if np.any(rows[1:] < rows[:-1]):
        order = np.argsort(rows)
        rows, values = rows[order], values[order]
    return Change(arena, rows, values, first_tokens(values))


def different(a: Array, b: Array) -> NDArray[np.bool_]:
    """Return where rows of two arrays of one shape and dtype differ in bytes, (m,)."""
    shape = (len(a), math.prod(a.shape[1:]))
    bits = f"u{a.itemsize}"  # whole numbers of the elements' size: bytes would be eight times as many
    first, second = (np.ascontiguousarray(x).reshape(shape).view(bits) for x in (a, b))
    return np.asarray((first != second).any(axis=1))


def _names(nodes: Nodes, owner: Ids) -> str:
    ids = nodes.ids[owner]
    return ", ".join(map(str, ids[:5])) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
