"""The parts of an op's code, each with a digest of its own: what says which helper has changed."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from types import FunctionType, ModuleType
from typing import Any

from whiteboard.ops.fingerprint.digest import fingerprint
from whiteboard.ops.fingerprint.function_source import OpaqueError, canonical, function_node
from whiteboard.ops.fingerprint.libraries import library_name, library_of_function
from whiteboard.ops.fingerprint.walk import Terms
from whiteboard.ops.fingerprint.watch import MISSING

DIGEST_BYTES = 4


def own_parts(code: Iterable[Any], terms: Terms) -> dict[str, bytes]:
    """Return a digest of each function's source alone, and of each constant that one names.

    Parameters
    ----------
    code : iterable
        Functions, and constants that belong to them.
    terms : Terms
        As of their fingerprint.
    """
    code = tuple(code)
    named = [(getattr(item, "__qualname__", f"part {number}"), item) for number, item in enumerate(code)]
    named += fingerprint(code, terms).watch.names
    found: dict[str, bytes] = {}
    for name, value in named:
        if isinstance(value, FunctionType):
            if library_of_function(value, terms.own) is None:
                found[value.__qualname__] = _digest(source_of(value))
        elif value is not MISSING and not isinstance(value, ModuleType) and library_name(value, terms.own) is None:
            found[name] = _digest(fingerprint((value,), terms).digest or b"")
    return dict(sorted(found.items()))


def source_of(function: Any) -> bytes:
    """Return the source of a function alone; empty where there is none."""
    try:
        return canonical(function_node(function)) if isinstance(function, FunctionType) else b""
    except OpaqueError:
        return b""


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()
