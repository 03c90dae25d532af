"""What a system's history is made of: `Commit`, and `Snapshot`, the state at one of them."""

from __future__ import annotations

from dataclasses import dataclass

from whiteboard.records.systems import CommitRecord, State
from whiteboard.systems import state


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of a system.

    Attributes
    ----------
    id : int
        Position in the system's history, from 0.
    parent : int or None
        The commit before it.
    changed : int
        Number of nodes that are new or got a new version.
    stress : float or None
        Σσ² over the jobs with targets that it consumed, so of its parent's state; None without such jobs.
    residual_norm : float or None
        √Σr² over all residuals that it consumed, likewise.
    digest : str
        Hex digest of the state it made.
    """

    id: int
    parent: int | None
    changed: int
    stress: float | None
    residual_norm: float | None
    digest: str

    @classmethod
    def of(cls, record: CommitRecord) -> Commit:
        """Return the commit that a store's record describes."""
        return cls(record.number, record.parent, record.changed, record.stress, record.residual_norm, record.digest)


class Snapshot:
    """A system as it stood at one commit, to read: `commit`, `nodes` and `digest()`."""

    def __init__(self, kept: State) -> None:
        self.commit = Commit.of(kept.commit)
        self.nodes = state.load(kept.columns)

    def __repr__(self) -> str:
        return f"<commit {self.commit.id}: {self.nodes!r}>"

    def digest(self) -> str:
        """Return the hex digest of (ids, versions, attribute bytes)."""
        return state.digest(state.Ahead.now(self.nodes))
