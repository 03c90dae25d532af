"""The parts of an op's code, each with a digest of its own: what says which helper has changed."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from types import FunctionType, ModuleType
from typing import Any

from whiteboard.ops.fingerprint import fingerprint
from whiteboard.ops.libraries import is_library, library_name
from whiteboard.ops.source import OpaqueError, canonical, function_node

DIGEST_BYTES = 4


def own_parts(code: Iterable[Any], *, own: str) -> dict[str, bytes]:
    """Return a digest of each function's source alone, and of each constant that one names.

    Parameters
    ----------
    code : iterable
        Functions, and constants that belong to them.
    own : str
        Package whose code is the user's own even where it is installed among the libraries.
    """
    code = tuple(code)
    named = [(getattr(item, "__qualname__", f"part {number}"), item) for number, item in enumerate(code)]
    named += [(name, value) for _, name, value in fingerprint(code, own=own).bindings]
    found: dict[str, bytes] = {}
    for name, value in named:
        if isinstance(value, FunctionType):
            module = value.__globals__.get("__name__", "")
            if not is_library(module, value.__code__.co_filename, own):
                found[value.__qualname__] = _digest(_source(value))
        elif type(value) is not object and not isinstance(value, ModuleType) and library_name(value, own) is None:
            found[name] = _digest(fingerprint((value,), own=own).digest or b"")
    return dict(sorted(found.items()))


def _source(function: FunctionType) -> bytes:
    try:
        return canonical(function_node(function))
    except OpaqueError:
        return b""


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()
