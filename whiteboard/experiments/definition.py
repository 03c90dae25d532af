"""What an experiment is: a start, jobs, a rule, and when it is done; and the measures of a round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from whiteboard.errors import ParamError
from whiteboard.evaluation.pipeline import check_errors
from whiteboard.systems.history import Commit
from whiteboard.systems.jobs import Job, JobBatch
from whiteboard.systems.rules import Rule
from whiteboard.systems.system import System
from whiteboard.types import Errors


@dataclass(frozen=True, slots=True)
class Stop:
    """An experiment is done when its measure has changed by less than `change` over the last `rounds` rounds.

    With `relative`, the change is that of the measure divided by the measure.
    """

    change: float
    rounds: int
    relative: bool = False

    def __post_init__(self) -> None:
        rounds: object = self.rounds  # a file of TOML may hold anything
        if not self.change >= 0 or not isinstance(rounds, int) or rounds < 1:
            msg = (
                f"Stop: expected change >= 0 and a whole number of rounds >= 1, got {self.change!r} and {self.rounds!r}"
            )
            raise ParamError(msg)

    def __call__(self, values: Sequence[float]) -> bool:
        """Return whether the measures of all rounds so far, oldest first, have settled."""
        if len(values) <= self.rounds:
            return False
        limit = self.change * abs(values[-1]) if self.relative else self.change
        return abs(values[-1] - values[-1 - self.rounds]) < limit


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a run ended.

    Attributes
    ----------
    commit : Commit
    rounds : int
        Rounds of this run.
    resumed_from : int or None
        The commit that it went on from, None for a new system.
    measure : float or None
        The measure of the last round.
    done : bool
    hit_rates : sequence of (int, float)
        For each commit of this run, which part of its round's jobs were hits.
    """

    commit: Commit
    rounds: int
    resumed_from: int | None
    measure: float | None
    done: bool
    hit_rates: Sequence[tuple[int, float]]
    failed: int = 0
    """Jobs of this run that failed and were left out, where the experiment says that it goes on."""


class Plot(Protocol):
    """Draws where a system stands into a file."""

    def __call__(self, system: System, outcome: Outcome, path: Path, /) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Experiment:
    """A process that a system goes through, one commit a round; a pure function of its specification.

    Attributes
    ----------
    name : str
    setup : callable
        Adds the nodes to a new system.
    jobs : JobBatch or sequence of Job or JobBatch
        What each round processes.
    rule : Rule
        What each round commits.
    stop : Stop
    measure : str
        A name in `MEASURES`: what a round is judged by.
    settings : mapping
        JSON-able: what else the result depends on, such as a seed or a digest of the data. Kept with the system; a
        name that exists with other settings is refused.
    plot : Plot, optional
    options : mapping
        Keywords for `wb.open` that suit the experiment.
    errors : {"raise", "collect"}
        What becomes of a round with jobs that fail: it ends the run, or goes on without their impulses. Where a job
        fails at one time and not at another, so does the result.
    notes : str
        A sentence for whoever runs it.
    """

    name: str
    setup: Callable[[System], None]
    jobs: JobBatch | Sequence[Job | JobBatch]
    rule: Rule
    stop: Stop
    measure: str = "relative_stress"
    settings: Mapping[str, Any] = field(default_factory=dict)
    plot: Plot | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    errors: Errors = "raise"
    notes: str = ""

    def __post_init__(self) -> None:
        check_errors(self.errors, f"experiment {self.name!r}")
        if self.measure not in MEASURES:
            msg = f"experiment {self.name!r}: measure: expected one of {', '.join(MEASURES)}, got {self.measure!r}"
            raise ParamError(msg)

    @property
    def parts(self) -> list[JobBatch | list[Job]]:
        """What a round hands to `System.process`: the batches one by one, and the single jobs together."""
        jobs = (self.jobs,) if isinstance(self.jobs, JobBatch) else self.jobs
        single = [job for job in jobs if isinstance(job, Job)]
        return [*(job for job in jobs if isinstance(job, JobBatch)), *([single] if single else [])]

    @property
    def spec(self) -> dict[str, Any]:
        """What is kept with the system, JSON-able."""
        return {
            "experiment": self.name,
            "measure": self.measure,
            "jobs": sum(map(len, self.parts)),
            "rule": repr(self.rule),
            "stop": repr(self.stop),
            **({} if self.errors == "raise" else {"errors": self.errors}),
            **self.settings,
        }


def relative_stress(commit: Commit, jobs: int) -> float | None:
    """Return Σσ² / jobs of the state that the commit consumed, dimensionless; None where it consumed no targets."""
    return None if commit.stress is None else commit.stress / jobs


def mse(commit: Commit, jobs: int) -> float | None:
    """Return Σr² / jobs of the state that the commit consumed, in squared units of the target; None likewise."""
    return None if commit.residual_norm is None else commit.residual_norm * commit.residual_norm / jobs


MEASURES: Mapping[str, Callable[[Commit, int], float | None]] = {"relative_stress": relative_stress, "mse": mse}
"""Measures of a round by name, as specifications and ``--json`` name them."""


def measured(spec: Mapping[str, Any] | None, commit: Commit) -> tuple[str, float | None] | None:
    """Return the name and value of the measure that a system's specification names, or None."""
    name, jobs = (None, None) if spec is None else (spec.get("measure"), spec.get("jobs"))
    # A specification that is no experiment's may use these words for anything.
    if not isinstance(name, str) or name not in MEASURES or type(jobs) is not int or not 0 < jobs < 2**53:
        return None
    return name, MEASURES[name](commit, jobs)
