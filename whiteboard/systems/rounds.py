"""A round of a system: what has come since its last commit, and the step to the commit that it ends in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whiteboard.errors import ParamError
from whiteboard.evaluation.columns import fitted
from whiteboard.records.systems import CommitRecord
from whiteboard.systems import state
from whiteboard.systems.history import Commit
from whiteboard.systems.impulses import Inbox
from whiteboard.systems.node_impulse import place
from whiteboard.systems.nodes import Change, Nodes
from whiteboard.systems.rules import Rule
from whiteboard.systems.transition import different, merged, ruled, steps
from whiteboard.types import Array, Ids


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """What has come since the last commit; the next round takes its place in one assignment."""

    head: Commit | None
    committed: int
    """How many nodes the head has."""
    rows: tuple[int, ...]
    """How many rows of each arena are the head's; what lies behind them was added since."""
    inbox: Inbox = field(default_factory=Inbox)
    written: Mapping[int, Mapping[int, Array]] = field(default_factory=dict)

    @classmethod
    def after(cls, head: Commit | None, nodes: Nodes) -> Round:
        """Return the round that begins at a commit, whose nodes these are."""
        return cls(head, len(nodes), tuple(map(len, nodes.arenas)))

    def added(self, number: int) -> int:
        """Return the first row of an arena that was added since the head, where there is one."""
        return self.rows[number] if number < len(self.rows) else 0

    def writing(self, nodes: Nodes, node_id: int, values: Mapping[str, ArrayLike], where: str) -> Round:
        """Return the round with attributes of a node written; `where` opens the messages.

        Raises
        ------
        UnknownNodeError, ShapeError, DtypeError, NonFiniteError
        ParamError
            The node was written with another value in this round.
        """
        written = {number: dict(rows) for number, rows in self.written.items()}
        for attr, given in values.items():
            what = f"{where}: {attr} of node {node_id!r}"
            number, row = place(nodes, node_id, attr, what)
            arena = nodes.arenas[number]
            value = fitted(given, arena.shape, arena.dtype, what)
            before = written.setdefault(number, {}).setdefault(row, value)
            if different(before[None], value[None]).any():
                msg = f"{what}: it was written with another value since the last commit"
                raise ParamError(msg)
        return replace(self, written=written)

    def changed(self, nodes: Nodes, changes: Mapping[int, Change]) -> dict[int, Ids]:
        """Return, by arena, the rows that move and those that were added since the last commit."""
        changed = {}
        for number, arena in enumerate(nodes.arenas):
            rows = np.arange(len(arena)) >= self.added(number)
            if number in changes:
                rows[changes[number].rows] = True
            changed[number] = np.flatnonzero(rows)
        return changed


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A commit that is under way, with all that is needed to finish it in memory."""

    record: CommitRecord
    ahead: state.Ahead


def prepare(now: Round, nodes: Nodes, rule: Rule | None, where: str) -> Step:
    """Work out the commit that ends a round; nothing is changed.

    Raises
    ------
    NonFiniteError, ShapeError, ParamError
        For what the rule returned, or for a node that has impulses and was written; `where` opens the message.
    """
    sums = now.inbox.sums(exact=getattr(rule, "exact", False))
    changes = steps(nodes, merged(nodes, ruled(nodes, sums, rule, where), now.written, where))
    moved = np.zeros(len(nodes), np.bool_)
    for change in changes.values():
        moved[change.arena.owner[change.rows]] = True
    for number, arena in enumerate(nodes.arenas):
        given = arena.owner[now.added(number) :]
        moved[given[given < now.committed]] = True  # to nodes of the head, an attribute
    ahead = state.Ahead(nodes, nodes.versions + moved, changes)
    return Step(_record(now, moved, state.digest(ahead)), ahead)


def _record(now: Round, moved: NDArray[np.bool_], digest: str) -> CommitRecord:
    return CommitRecord(
        0 if now.head is None else now.head.id + 1,
        None if now.head is None else now.head.id,
        len(moved) - now.committed + int(np.count_nonzero(moved[: now.committed])),
        now.inbox.stress(),
        now.inbox.residual_norm(),
        digest,
    )
