"""Names and specifications of systems: what they may be, and what differs between two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from whiteboard.errors import ParamError


def is_name(name: object) -> bool:
    """Return whether something can name a system."""
    return isinstance(name, str) and bool(name) and name.isprintable()


def plain(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification as JSON gives it back, so that it equals what is kept.

    Raises
    ------
    ParamError
    """
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(spec), allow_nan=False))
    except (TypeError, ValueError) as error:
        msg = f"system {name!r}: spec: expected what JSON can hold: {error}"
        raise ParamError(msg) from error
    return plain


def differences(have: Mapping[str, Any], want: Mapping[str, Any]) -> str:
    """Say what differs between two specifications, or return an empty string."""
    missing = object()
    names = sorted(have.keys() | want.keys())
    return ", ".join(
        f"{name} is {have.get(name, 'absent')!r}, asked for {want.get(name, 'absent')!r}"
        for name in names
        if have.get(name, missing) != want.get(name, missing)
    )
