"""Experiments: processes that run, stop and resume by name; built in, from a TOML file, or from a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from whiteboard.errors import UnknownExperimentError
from whiteboard.experiments.definition import Experiment, Outcome, Stop
from whiteboard.experiments.diabetes import diabetes
from whiteboard.experiments.drive import drive
from whiteboard.experiments.europe import europe

__all__ = ["BUILTIN", "Experiment", "Outcome", "Stop", "drive", "load"]

BUILTIN: Mapping[str, Callable[[int | None], Experiment]] = {"europe": europe, "diabetes": diabetes}
"""Built-in experiments: each takes a seed or None."""


def load(reference: str, seed: int | None = None) -> Experiment:
    """Return a built-in experiment, that of a ``.toml`` file, or that of ``module:function``.

    Raises
    ------
    UnknownExperimentError, ExperimentError
    """
    if reference in BUILTIN:
        return BUILTIN[reference](seed)
    if reference.endswith(".toml"):
        from whiteboard.experiments.from_toml import from_toml

        return from_toml(Path(reference), seed)
    if ":" in reference:
        from whiteboard.experiments.from_function import from_function

        return from_function(reference, seed)
    msg = f"no experiment {reference!r}; built in: {', '.join(BUILTIN)}; or a .toml file, or module:function"
    raise UnknownExperimentError(msg)
