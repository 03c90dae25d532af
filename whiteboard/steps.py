"""Steps: what a commit would change, worked out without changing anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import NonFiniteError, ParamError, ShapeError
from whiteboard.impulses import Sums
from whiteboard.nodes import Arena, Nodes
from whiteboard.rules import Rule
from whiteboard.types import Array, Ids


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """New values for some rows of one arena, all of them different in bytes from the present ones."""

    arena: Arena
    rows: Ids
    values: Array


def ruled(
    nodes: Nodes, sums: Mapping[int, tuple[Ids, Sums]], rule: Rule | None, where: str
) -> dict[int, tuple[Ids, Array]]:
    """Return the rows of each arena with impulses, and what the rule makes of them.

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
        moved[number] = (rows, new)
    return moved


def _expect_rule(rule: object, where: str) -> None:
    if rule is not None and not callable(rule):
        msg = f"{where}: expected a rule(rows, sums), got {rule!r}"
        raise ParamError(msg)


def merged(
    nodes: Nodes, moved: Mapping[int, tuple[Ids, Array]], written: Mapping[int, Mapping[int, Array]], where: str
) -> dict[int, tuple[Ids, Array]]:
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
        if number in moved:
            if (twice := np.intersect1d(rows, moved[number][0])).size:
                msg = f"{where}: node {nodes.ids[arena.owner[twice[0]]]} has impulses and was written"
                raise ParamError(msg)
            rows, new = (np.concatenate(pair) for pair in zip(moved[number], (rows, new), strict=True))
        both[number] = (rows, new)
    return both


def steps(nodes: Nodes, moved: Mapping[int, tuple[Ids, Array]]) -> dict[int, Step]:
    """Return, by arena, the rows whose bytes change."""
    changing = {}
    for number, (rows, new) in moved.items():
        arena = nodes.arenas[number]
        differs = different(arena.values[rows], new)
        if differs.any():
            changing[number] = Step(arena, rows[differs], new[differs])
    return changing


def different(a: Array, b: Array) -> NDArray[np.bool_]:
    """Return where rows of two arrays of one shape and dtype differ in bytes, (m,)."""
    shape = (len(a), math.prod(a.shape[1:]))
    bits = f"u{a.itemsize}"  # whole numbers of the elements' size: bytes would be eight times as many
    first, second = (np.ascontiguousarray(x).reshape(shape).view(bits) for x in (a, b))
    return np.asarray((first != second).any(axis=1))


def _names(nodes: Nodes, owner: Ids) -> str:
    ids = nodes.ids[owner]
    return ", ".join(map(str, ids[:5])) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
