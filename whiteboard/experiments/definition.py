"""What an experiment is: a specification, a start, jobs, a rule, and when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from whiteboard.history import Commit
from whiteboard.jobs import Job, JobBatch
from whiteboard.rules import Rule
from whiteboard.system import System


class Plot(Protocol):
    """Draws a system's present state into a file."""

    def __call__(self, system: System, path: Path, /) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Experiment:
    """A process that a system goes through, round by round; a pure function of its specification.

    Attributes
    ----------
    name : str
    spec : mapping
        JSON-able, all that the result depends on. `measure` names an entry of `MEASURES`, `jobs` counts the jobs
        of a round; the rest is the experiment's own.
    setup : callable
        Adds the nodes to a new system.
    jobs : JobBatch or sequence of Job
        What each round processes.
    rule : Rule
        What each round commits.
    done : callable
        ``done(measured) → bool``: from the measures of all rounds so far, oldest first.
    plot : Plot, optional
    options : mapping
        Keywords for `wb.open` that suit the experiment.
    """

    name: str
    spec: Mapping[str, Any]
    setup: Callable[[System], None]
    jobs: JobBatch | Sequence[Job]
    rule: Rule
    done: Callable[[Sequence[float]], bool]
    plot: Plot | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def relative_stress(commit: Commit, jobs: int) -> float | None:
    """Return Σσ² / jobs of the state that the commit consumed, dimensionless; None where it consumed no targets."""
    return None if commit.stress is None else commit.stress / jobs


def mse(commit: Commit, jobs: int) -> float | None:
    """Return Σr² / jobs of the state that the commit consumed, in squared units of the target; None likewise."""
    return None if commit.residual_norm is None else commit.residual_norm**2 / jobs


MEASURES: Mapping[str, Callable[[Commit, int], float | None]] = {"relative_stress": relative_stress, "mse": mse}
"""Measures of a round by name, as specifications and ``--json`` name them."""


def measured(spec: Mapping[str, Any] | None, commit: Commit) -> tuple[str, float | None] | None:
    """Return the name and value of the measure that a system's specification names, or None."""
    if spec is None or spec.get("measure") not in MEASURES:
        return None
    name = str(spec["measure"])
    return name, MEASURES[name](commit, spec["jobs"])


def settled(values: Sequence[float], rounds: int, change: float) -> bool:
    """Return whether the last `rounds` rounds changed the measure by less than `change`."""
    return len(values) > rounds and abs(values[-1] - values[-1 - rounds]) < change
