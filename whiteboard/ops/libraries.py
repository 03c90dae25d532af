"""Whose code it is: the user's own, which a fingerprint walks into, or a library's, which counts by name."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType

_OUTSIDE_WORLD = (
    "numpy.random",
    "autograd.numpy.random",
    *(
        "builtins.open",
        "builtins.input",
        "builtins.eval",
        "builtins.exec",
        "builtins.id",
        "builtins.hash",
        "builtins.vars",
    ),
    *("random", "secrets", "uuid", "time", "datetime", "os", "posix", "io", "_io", "pathlib", "tempfile", "shutil"),
    *("socket", "ssl", "subprocess", "threading", "multiprocessing", "urllib", "http", "requests", "sqlite3"),
    *("pickle", "shelve", "glob", "fileinput", "logging", "ctypes", "contextvars", "gc", "weakref"),
)
"""Where results come from more than the arguments: a function that names one of these is not cached."""


def is_outside_world(name: str) -> bool:
    """Whether a dotted name lies in a module whose results are not decided by its arguments."""
    return any(name == module or name.startswith(f"{module}.") for module in _OUTSIDE_WORLD)


def is_library(module: str, file: str | None, own: str) -> bool:
    """Whether a module counts by name: of the standard library, Whiteboard, or installed in site-packages.

    Parameters
    ----------
    module, file : str, str or None
        Its name, and its file where that is known.
    own : str
        Package that is the user's own wherever it lies.
    """
    if module == own or module.startswith(f"{own}."):
        return False
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == "whiteboard":
        return top != "__main__"
    if file is None:
        file = _file_of(top)
    return file is not None and any(folder in file for folder in ("site-packages", "dist-packages"))


def _file_of(top: str) -> str | None:
    found = sys.modules.get(top)
    if found is not None:
        return getattr(found, "__file__", None)
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    return spec.origin if spec else None


def library_name(value: object, own: str) -> str | None:
    """Return the dotted name of a library's module-level function, class, module or ufunc; None for all else.

    The name has to lead back to the very object: what a library made around a user's function has the library's
    name, and is not it.
    """
    if isinstance(value, ModuleType):
        return value.__name__ if is_library(value.__name__, getattr(value, "__file__", None), own) else None
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(name, str):
        return None
    module = getattr(value, "__module__", None) or "numpy"  # ufuncs have no module
    if not isinstance(module, str) or not is_library(module, None, own):
        return None
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}.{name}" if found is value else None
