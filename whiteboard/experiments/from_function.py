"""Experiments made by a user's function, named as ``module:function``."""

from __future__ import annotations

import inspect

from whiteboard.errors import ExperimentError
from whiteboard.experiments.definition import Experiment
from whiteboard.ops.user_module import referenced, told


def from_function(reference: str, seed: int | None = None) -> Experiment:
    """Import ``package.module:function`` and call it; it returns an `Experiment`.

    The working folder is looked in first. A function with a parameter `seed` is given it; one without is refused a
    seed.

    Raises
    ------
    ExperimentError
        Names the reference, and the file and line where the user's code failed.
    """
    try:
        function = referenced(reference)
    except ImportError as error:
        msg = f"{reference}: {error}"
        raise ExperimentError(msg) from error
    takes_seed = "seed" in inspect.signature(function).parameters
    if seed is not None and not takes_seed:
        msg = f"{reference}: {reference.partition(':')[2]} takes no seed"
        raise ExperimentError(msg)
    try:
        made = function(seed=seed) if takes_seed else function()
    except Exception as error:
        msg = f"{reference}: {told(error)}"
        raise ExperimentError(msg) from error
    if not isinstance(made, Experiment):
        msg = f"{reference}: expected an Experiment, got {type(made).__name__}"
        raise ExperimentError(msg)
    return made
