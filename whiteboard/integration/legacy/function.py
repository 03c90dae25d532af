"""The user's function that maps what an entry was asked with to sources, named as ``module:function``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(reference: str) -> Callable[[Any], Any]:
    """Import ``package.module:function``; the working folder is looked in first.

    Raises
    ------
    ImportError
        In one line that says what is wrong with the reference.
    """
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        msg = f"--sources {reference}: expected module:function"
        raise ImportError(msg)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        msg = f"--sources {reference}: cannot import {module_name}: {type(error).__name__}: {error}"
        raise ImportError(msg) from error
    function = getattr(module, name, None)
    if function is None:
        msg = f"--sources {reference}: {module.__file__ or module_name} has no function {name!r}"
        raise ImportError(msg)
    made: Callable[[Any], Any] = function
    return made
