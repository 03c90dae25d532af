"""Whose code a module is: the user's own, or a library's, as the record of an installed distribution says."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from functools import cache, lru_cache
from hashlib import blake2b
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from importlib import metadata


class Library(NamedTuple):
    """A distribution; the version of Python's own library is not told, as what is taken of it is stable."""

    name: str
    version: str


PYTHON = Library("python", "")
WHITEBOARD = Library("whiteboard", "")


def library_of(module: str, file: str | None, own: str = "") -> Library | None:
    """Return the library that a module belongs to; None for the user's own.

    A module is a library's if it is Python's, Whiteboard's, or listed by the record of an installed distribution:
    where it lies and what it is called say nothing (a ``profile.py`` beside the script is the user's own, and so is
    what is installed for editing). Compiled code of the user's own cannot be walked: it is a library whose version is
    the digest of its file.

    Parameters
    ----------
    module, file : str, str or None
        Its name, and its file where that is known.
    own : str
        Package that is the user's own wherever it lies.
    """
    top = module.partition(".")[0]
    if own and (module == own or module.startswith(f"{own}.")):
        return None
    if top == "whiteboard":
        return WHITEBOARD
    file = _file(module) if file is None else file
    if file is None or file.startswith("<frozen "):
        return PYTHON if top in sys.stdlib_module_names and top != "__main__" else None
    return None if file.startswith("<") else _owner(file)


def library_of_module(module: ModuleType, own: str = "") -> Library | None:
    """Return the library that a module object belongs to, as `library_of`."""
    return library_of(module.__name__, getattr(module, "__file__", None), own)


def library_of_function(function: FunctionType, own: str) -> Library | None:
    """Return the library that a function's code is of; None for the user's own."""
    return library_of(function.__globals__.get("__name__", ""), function.__code__.co_filename, own)


def _file(module: str) -> str | None:
    """The file of a module that may not be imported yet; None where it has none."""
    found = sys.modules.get(module)
    if found is not None:
        file = getattr(found, "__file__", None)
        return file if isinstance(file, str) else None
    try:
        spec = find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    return spec.origin if spec and spec.has_location else None


@lru_cache(maxsize=4096)
def _owner(file: str) -> Library | None:
    path = Path(file)
    if _is_pythons(path):
        return PYTHON
    folders = set(sys.path) | _site_folders()
    for folder in path.parents:
        if str(folder) in folders and (found := _recorded(folder, path.relative_to(folder))):
            return found
    if file.endswith(tuple(EXTENSION_SUFFIXES)):
        return Library(path.name.partition(".")[0], blake2b(path.read_bytes(), digest_size=16).hexdigest())
    return None


def _is_pythons(path: Path) -> bool:
    for folder in _python_folders():
        if path.is_relative_to(folder):
            inside = path.relative_to(folder).parts
            first = inside[1] if inside[0] == "lib-dynload" and len(inside) > 1 else inside[0]
            return first.partition(".")[0] in sys.stdlib_module_names
    return False


@cache
def _python_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({os.path.dirname(os.__file__), paths["stdlib"], paths["platstdlib"]})  # noqa: PTH120


@cache
def _site_folders() -> frozenset[str]:
    paths = sysconfig.get_paths()
    return frozenset({paths["purelib"], paths["platlib"], site.getusersitepackages(), *site.getsitepackages()})


def _recorded(folder: Path, file: Path) -> Library | None:
    """The distribution of a folder whose record lists a file, that of the file's own name first."""
    top = file.parts[0].partition(".")[0]
    if (library := _of_its_name(top, folder, file.as_posix())) is not None:
        return library
    from importlib import metadata

    for found in (metadata.distributions(name=top, path=[str(folder)]), metadata.distributions(path=[str(folder)])):
        for distribution in found:
            if _lists(str(getattr(distribution, "_path", "")), distribution, folder, file.as_posix(), top):
                return Library(distribution.name, distribution.version)
    return None


def _of_its_name(top: str, folder: Path, file: str) -> Library | None:
    """The one distribution of a module's own name, if its record lists the file.

    It is what `importlib.metadata` finds, whose import brings email and sockets: 15 ms of a first call.
    """
    places = list(folder.glob(f"{top}-*.dist-info"))
    if len(places) != 1:
        return None
    place = str(places[0])
    try:
        if place not in _records:
            _records[place] = _files((places[0] / "RECORD").read_text("utf-8"))
        head = (places[0] / "METADATA").read_text("utf-8").partition("\n\n")[0]
    except (OSError, UnicodeDecodeError):
        return None
    said = dict(line.split(": ", 1) for line in head.splitlines() if line.startswith(("Name: ", "Version: ")))
    listed = file in (_records[place] or ())
    return Library(said["Name"], said["Version"]) if listed and len(said) == 2 else None


def _lists(place: str, distribution: metadata.Distribution, folder: Path, file: str, top: str) -> bool:
    if place not in _records:
        text = distribution.read_text("RECORD")
        _records[place] = None if text is None else _files(text)
    record = _records[place]
    if record is not None:
        return file in record
    # Debian's packages bring no record, only the names of what they hold.
    named = (distribution.read_text("top_level.txt") or distribution.name).split()
    return str(folder) in _site_folders() and top in named


_records: dict[str, frozenset[str] | None] = {}
"""The files of each distribution that was asked, by the place of its metadata."""


def _files(record: str) -> frozenset[str]:
    return frozenset(_unquoted(line) for line in record.splitlines())


def _unquoted(line: str) -> str:
    return line[1:].partition('",')[0] if line.startswith('"') else line.partition(",")[0]


def library_name(value: object, own: str = "") -> str | None:
    """Return the dotted name of a library's module-level function, class, or ufunc; None for all else.

    The name has to lead back to the very object: what a library made around a user's function has the library's
    name, and is not it.
    """
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(name, str):
        return None
    module = getattr(value, "__module__", None)
    if module == "torch" and name.startswith("_VariableFunctionsClass."):
        name = name.partition(".")[2]  # torch.tanh, which is a function in C
    homes = [module] if isinstance(module, str) else list(_UFUNC_HOMES) if _is_ufunc(value) else []
    for home in homes:
        found: object = sys.modules.get(home)
        if not isinstance(found, ModuleType) or library_of_module(found, own) is None:
            continue
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is value:
            return f"{home}.{name}"
    return None


_UFUNC_HOMES = ("numpy", "scipy.special")
"""Where ufuncs live, which do not say their module."""


def _is_ufunc(value: object) -> bool:
    np = sys.modules.get("numpy")
    return np is not None and isinstance(value, np.ufunc)
