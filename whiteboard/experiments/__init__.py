"""Experiments: processes that run, stop and resume by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from whiteboard.errors import UnknownExperimentError
from whiteboard.experiments.definition import Experiment
from whiteboard.experiments.diabetes import diabetes
from whiteboard.experiments.europe import europe

BUILTIN: Mapping[str, Callable[[int | None], Experiment]] = {"europe": europe, "diabetes": diabetes}
"""Built-in experiments: each takes a seed or None."""


def load(reference: str, seed: int | None = None) -> Experiment:
    """Return the experiment of that name.

    Raises
    ------
    UnknownExperimentError
    """
    if reference not in BUILTIN:
        msg = f"no experiment {reference!r}; built in: {', '.join(BUILTIN)}"
        raise UnknownExperimentError(msg)
    return BUILTIN[reference](seed)
