"""A user's module by its name: looked for in the working folder first, and what is wrong with it said in one line."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from whiteboard.errors import WhiteboardError


def imported(name: str) -> ModuleType:
    """Import a module; the working folder is looked in first, and stays on the path.

    Raises
    ------
    ImportError
        In one line, with the file and line of the user's code that failed; its cause is what that raised.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as error:
        msg = f"cannot import {name}: {told(error)}"
        raise ImportError(msg) from error


def referenced(reference: str) -> Any:
    """Return the function that ``package.module:function`` names.

    Raises
    ------
    ImportError
        In one line; as `imported`, or because there is no such function.
    """
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        msg = "expected module:function"
        raise ImportError(msg)
    module = imported(module_name)
    function = getattr(module, name, None)
    if not callable(function):
        what = "has no function" if function is None else f"has {type(function).__name__}, not a function,"
        msg = f"{module.__file__ or module_name} {what} {name!r}"
        raise ImportError(msg)  # noqa: TRY004 - of all that is wrong with a reference
    return function


def told(error: Exception) -> str:
    """Say in one line what a user's code raised, and at which file and line of the user's."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    here = Path(__file__).parents[1]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    outside = [frame for frame in frames if here not in Path(frame.filename).parents]
    kind = "" if isinstance(error, WhiteboardError) else f"{type(error).__name__}: "
    place = f"{outside[-1].filename}:{outside[-1].lineno}: " if outside else ""
    return f"{place}{kind}{error}"
