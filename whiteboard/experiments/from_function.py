"""Experiments made by a user's function, named as ``module:function``."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from pathlib import Path

from whiteboard.errors import ExperimentError, WhiteboardError
from whiteboard.experiments.definition import Experiment


def from_function(reference: str, seed: int | None = None) -> Experiment:
    """Import ``package.module:function`` and call it; it returns an `Experiment`.

    The working folder is looked in first. A function with a parameter `seed` is given it; one without is refused a
    seed.

    Raises
    ------
    ExperimentError
        Names the reference, and the file and line where the user's code failed.
    """
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        msg = f"{reference}: expected module:function"
        raise ExperimentError(msg)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        msg = f"{reference}: cannot import {module_name}: {_where(error)}"
        raise ExperimentError(msg) from error
    function = getattr(module, name, None)
    if not callable(function):
        what = "has no function" if function is None else f"has {type(function).__name__}, not a function,"
        msg = f"{reference}: {module.__file__ or module_name} {what} {name!r}"
        raise ExperimentError(msg)
    takes_seed = "seed" in inspect.signature(function).parameters
    if seed is not None and not takes_seed:
        msg = f"{reference}: {name} takes no seed"
        raise ExperimentError(msg)
    try:
        made = function(seed=seed) if takes_seed else function()
    except Exception as error:
        msg = f"{reference}: {_where(error)}"
        raise ExperimentError(msg) from error
    if not isinstance(made, Experiment):
        msg = f"{reference}: expected an Experiment, got {type(made).__name__}"
        raise ExperimentError(msg)
    return made


def _where(error: Exception) -> str:
    """Say what went wrong and, outside of this file, at which file and line."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    outside = [frame for frame in frames if "importlib" not in frame.filename]
    kind = "" if isinstance(error, WhiteboardError) else f"{type(error).__name__}: "
    place = f"{outside[-1].filename}:{outside[-1].lineno}: " if outside else ""
    return f"{place}{kind}{error}"
