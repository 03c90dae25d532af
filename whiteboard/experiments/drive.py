"""Drives an experiment: starts or resumes it, round after round, one commit a round."""

from __future__ import annotations

from collections.abc import Callable

from whiteboard.errors import ExperimentError
from whiteboard.experiments.definition import MEASURES, Experiment, Outcome
from whiteboard.records.packages import HIT_NAMES, MISS
from whiteboard.systems.history import Commit
from whiteboard.systems.jobs import BatchResult, OpResult
from whiteboard.systems.system import System


def drive(
    experiment: Experiment,
    system: System,
    *,
    rounds: int | None = None,
    started: Callable[[int | None], None] = lambda _: None,
    committed: Callable[[Commit, float | None], None] = lambda *_: None,
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

    Raises
    ------
    ExperimentError
        After a round of which there is no measure, where no number of rounds is given: it would never end.
    """
    parts = experiment.parts
    jobs = sum(map(len, parts))

    def measure(commit: Commit) -> float | None:
        return MEASURES[experiment.measure](commit, jobs)

    resumed_from = None if system.head is None else system.head.id
    started(resumed_from)
    head = system.head
    if head is None:
        experiment.setup(system)
        head = system.commit()
        committed(head, None)
    history = system.history()
    before = len(history) - 1  # the first commit is the setup's
    values = [value for commit in history if (value := measure(commit)) is not None]
    hit_rates: list[tuple[int, float]] = []
    failed = 0
    while not (done := experiment.stop(values)) and not stop():
        if rounds is not None and before + len(hit_rates) >= rounds:
            break
        results = [system.process(part, errors=experiment.errors) for part in parts]
        failed += sum(map(_failed, results))
        hits = sum(map(_hits, results))
        head = system.commit(experiment.rule)
        hit_rates.append((head.id, hits / max(1, jobs)))
        if (value := measure(head)) is not None:
            values.append(value)
        committed(head, value)
        if rounds is None and not values:
            msg = (
                f"experiment {experiment.name!r}: a round gives no {experiment.measure}, so nothing says when it is "
                f"done: give jobs a target other than 0, measure {' or '.join(MEASURES)}, or say how many rounds"
            )
            raise ExperimentError(msg)
    return Outcome(head, len(hit_rates), resumed_from, values[-1] if values else None, done, hit_rates, failed)


def _failed(results: BatchResult | list[OpResult]) -> int:
    if isinstance(results, BatchResult):
        return len(results.errors)
    return sum(result.error is not None for result in results)


def _hits(results: BatchResult | list[OpResult]) -> int:
    if isinstance(results, BatchResult):
        return int((results.hit != MISS).sum())
    return sum(result.hit != HIT_NAMES[MISS] for result in results)
