"""Modules as bytes: what a library has counts by its name and version, what a module of the user's own by value."""

from __future__ import annotations

import functools
import sys
from importlib import import_module
from types import FunctionType, MethodType, ModuleType
from typing import Any

from whiteboard.ops.fingerprint import blas, primitives
from whiteboard.ops.fingerprint.libraries import (
    Library,
    library_name,
    library_of,
    library_of_function,
    library_of_module,
)
from whiteboard.ops.fingerprint.purity import DISTRIBUTION_METHODS, REMEDY, Verdict, verdict
from whiteboard.ops.fingerprint.referenced_names import Chain
from whiteboard.ops.fingerprint.walk import BUILT_IN, Uses, Walk
from whiteboard.ops.fingerprint.watch import MISSING


def write(walk: Walk, value: Any, where: str, name: str, uses: Uses) -> bool:
    """Write what is used of a module, or what a library has under a name."""
    if isinstance(value, ModuleType):
        for chain in uses:
            write_attribute(walk, value, chain, where, name)
    elif (dotted := library_name(value, walk.terms.own)) is not None:
        library = library_of(dotted.rpartition(".")[0], None, walk.terms.own)
        library = library or library_of(str(getattr(value, "__module__", "")), None, walk.terms.own)
        for chain in uses if isinstance(value, type) else ((),):
            walk.library(where, ".".join((dotted, *chain)), library or Library("", ""), name or dotted)
        primitives.write_rule(walk, value, where)
    elif (dotted := _distribution(value)) is not None:
        for chain in uses:
            write_attribute(walk, import_module("scipy"), ("stats", dotted, *chain), where, name)
    else:
        return False
    return True


def write_attribute(walk: Walk, module: ModuleType, chain: Chain, where: str, name: str) -> None:
    """Write what ``module.a.b`` stands for: by name of a library's, by value of the user's own."""
    library = library_of_module(module, walk.terms.own)
    if chain and name in walk.terms.ignore:
        return
    if library is not None:
        dotted = ".".join((module.__name__, *chain))
        walk.reaches(blas.named(dotted))
        if not _is_distribution(dotted):
            walk.allow(verdict(dotted, walk.terms.trust), where, dotted, name or module.__name__)
    if not chain:
        walk.refuse(f"{where} is the module {module.__name__}, used as a value: {REMEDY[Verdict.REACH]}")
    value = _attribute(walk, module, chain[0], where)
    if isinstance(value, ModuleType):
        write_attribute(walk, value, chain[1:], where, name)
    elif library is None:
        walk.put("of module", chain[0])
        walk.watch.named(chain[0], value)
        walk.value(value, f"{'.'.join(chain)}, {where}", name, [chain[1:]])
    else:
        _of_library(walk, value, ".".join((module.__name__, *chain)), library, where, name)


def _attribute(walk: Walk, module: ModuleType, key: str, where: str) -> object:
    """Return an attribute of a module, by its namespace: what a module makes by name is not seen through."""
    value = walk.watch.binding(vars(module), key)
    if value is not MISSING:
        return value
    if library_of_module(module, walk.terms.own) is not None:
        try:
            getattr(module, key)  # SciPy imports its packages when they are first asked for
        except AttributeError:
            return MISSING
        value = walk.watch.binding(vars(module), key)
    if value is MISSING and (type(module) is not ModuleType or "__getattr__" in vars(module)):
        walk.refuse(f"{where} has no {key!r} of its own: {module.__name__} makes it when asked (__getattr__)")
    return value


def _of_library(walk: Walk, value: object, dotted: str, library: Library, where: str, name: str) -> None:
    """Write what a library's module has under a name: by that name, unless somebody put something else there."""
    if value is MISSING or isinstance(value, bool | int | float | complex | str | bytes | None):
        walk.put("library value", dotted)
        walk.value(value, where)
    elif _is_theirs(value, walk.terms.own):
        walk.put("library", dotted)
        if walk.terms.own != BUILT_IN:  # somebody may have put another function of a library there
            walk.put(" ".join(library), library_name(value, walk.terms.own) or type(value).__qualname__)
        primitives.write_rule(walk, value, where)
    else:
        walk.put("put into a library", dotted)
        walk.watch.named(name, value)
        walk.value(value, where, name)


def _is_theirs(value: object, own: str) -> bool:
    """Whether a library's value is its own, and nothing of the user's stands or hides in its place."""
    if isinstance(value, FunctionType):
        return library_of_function(value, own) is not None and all(
            _is_theirs(part, own) for part in primitives.held(value)
        )
    if isinstance(value, type):
        return library_of(value.__module__, None, own) is not None
    if isinstance(value, functools.partial | MethodType | functools._lru_cache_wrapper):
        return False
    kind = type(value)
    if kind.__name__ == "ufunc" and kind.__module__ == "numpy":
        return library_name(value, own) is not None
    return library_of(kind.__module__, None, own) is not None


def _is_distribution(dotted: str) -> bool:
    """Whether a dotted name is one of SciPy's distributions, or a pure method of one."""
    if not dotted.startswith("scipy.stats."):
        return False
    name, _, method = dotted.removeprefix("scipy.stats.").partition(".")
    value = getattr(import_module("scipy.stats"), name, None)
    return _distribution(value) is not None and (not method or method in DISTRIBUTION_METHODS)


def _distribution(value: object) -> str | None:
    """Return the name of one of SciPy's distributions, and None for all else."""
    stats = sys.modules.get("scipy.stats")
    if stats is None or not isinstance(value, (stats.rv_continuous, stats.rv_discrete)):
        return None
    name = getattr(value, "name", None)
    return name if isinstance(name, str) and vars(stats).get(name) is value else None
