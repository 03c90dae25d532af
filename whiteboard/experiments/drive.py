"""Drives an experiment: starts or resumes it, round after round, one commit a round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from whiteboard.experiments.definition import MEASURES, Experiment
from whiteboard.history import Commit
from whiteboard.system import System


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a drive ended. `resumed_from` is the commit it went on from, None for a new system."""

    commit: Commit
    rounds: int
    resumed_from: int | None
    measure: float | None
    done: bool


def drive(
    experiment: Experiment,
    system: System,
    *,
    rounds: int | None = None,
    started: Callable[[int | None], None] = lambda resumed_from: None,  # noqa: ARG005
    committed: Callable[[Commit, float | None], None] = lambda commit, measure: None,  # noqa: ARG005
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run an experiment until it is done, has made `rounds` rounds in all, or is asked to stop.

    Whether it is done is read from the system's history alone, so a run that was killed ends at the same commit
    as one that was not.

    Parameters
    ----------
    rounds : int, optional
        Rounds in the system's life, those before a resume included.
    started : callable
        Called with the commit that the run goes on from, or None.
    committed : callable
        Called after each commit with it and its measure.
    stop : callable
        Asked before each round.
    """
    name, jobs = experiment.spec["measure"], experiment.spec["jobs"]
    resumed_from = None if system.head is None else system.head.id
    started(resumed_from)
    if system.head is None:
        experiment.setup(system)
        committed(system.commit(), None)
    history = [MEASURES[name](commit, jobs) for commit in system.history()]
    values = [value for value in history if value is not None]
    made = 0
    while not (done := experiment.done(values)) and not stop():
        if rounds is not None and len(values) >= rounds:
            break
        system.process(experiment.jobs)
        commit = system.commit(experiment.rule)
        measure = MEASURES[name](commit, jobs)
        if measure is not None:
            values.append(measure)
        made += 1
        committed(commit, measure)
    assert system.head is not None
    return Outcome(system.head, made, resumed_from, values[-1] if values else None, done)
