"""Names and specifications of systems: what they may be, and what differs between two."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from whiteboard.errors import ParamError, SpecError
from whiteboard.types import is_name


def check_name(name: object) -> None:
    """Raise unless something can name a system.

    Raises
    ------
    ParamError
    """
    if not is_name(name):
        msg = f"system name: expected printable characters, got {name!r}"
        raise ParamError(msg)


def plain(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification as JSON gives it back, so that it equals what is kept; NumPy's numbers as Python's.

    Raises
    ------
    ParamError
        For what JSON cannot hold; the message says under which key.
    """
    given: object = spec
    if not isinstance(given, Mapping):
        msg = f"system {name!r}: spec: expected a mapping, got {type(spec).__name__}"
        raise ParamError(msg)
    try:
        found: dict[str, Any] = _plain(spec, f"system {name!r}: spec")
    except RecursionError:
        msg = f"system {name!r}: spec: it is nested too deeply, or contains itself"
        raise ParamError(msg) from None
    return found


def _plain(value: object, where: str) -> Any:
    match value:
        case None | bool():
            return value
        case np.bool_():
            return bool(value)
        case str():
            return str.__str__(value)
        case int() | np.integer():
            return int(value)
        case float() | np.floating() if math.isfinite(value):
            return float(value)
        case list() | tuple():
            return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
        case Mapping():
            for key in value:
                if not isinstance(key, str):
                    msg = f"{where}: expected texts as keys, got {key!r}"
                    raise ParamError(msg)
            return {str.__str__(key): _plain(item, f"{where}: {key}") for key, item in value.items()}
        case _:
            got = repr(value) if isinstance(value, float | np.floating) else type(value).__name__
            msg = f"{where}: expected what JSON can hold (a finite number, a text, a list, a mapping), got {got}"
            raise ParamError(msg)


def expect(name: str, has: Mapping[str, Any] | None, asked: Mapping[str, Any] | None) -> None:
    """Raise where a system is asked for with another specification than it has; None asks for none.

    Raises
    ------
    SpecError
        The message says what differs.
    """
    if asked is not None and (differs := differences(has or {}, asked)):
        msg = f"system {name!r} exists with another specification: {differs}"
        raise SpecError(msg)


def differences(have: Mapping[str, Any], want: Mapping[str, Any]) -> str:
    """Say what differs between two specifications, or return an empty string."""
    missing = object()
    names = sorted(have.keys() | want.keys())
    return ", ".join(
        f"{name} is {have.get(name, 'absent')!r}, asked for {want.get(name, 'absent')!r}"
        for name in names
        if not _equal(have.get(name, missing), want.get(name, missing))
    )


def _equal(a: object, b: object) -> bool:
    """Whether two values of JSON are one: True is not 1, and 1 is 1.0."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and a == b
