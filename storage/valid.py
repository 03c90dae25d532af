"""What the values of a row may be. Provisional: until the store's own says it."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any, NoReturn

from whiteboard.storage.content import read_json

_INTEGERS = ("number", "changed", "rows")


def system(name: object, uuid: object, spec: object) -> tuple[str, str, str | None]:
    """Return what a system is called and made of; raise `ValueError` where these are none."""
    if not (isinstance(name, str) and name and name.isprintable()):
        _refuse("name", name)
    if not (isinstance(uuid, str) and uuid and uuid.isprintable()):
        _refuse("uuid", uuid)
    if spec is not None:
        if not isinstance(spec, str):
            _refuse("spec", spec)
        spec.encode()
        if not isinstance(read_json(spec), dict):
            _refuse("spec", spec)
    return name, uuid, spec


def commit(values: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless these are those of a commit."""
    for name in _INTEGERS:
        if type(values[name]) is not int or not 0 <= values[name] < 2**63:
            _refuse(name, values[name])
    if values["parent"] is not None and (type(values["parent"]) is not int or not 0 <= values["parent"] < 2**63):
        _refuse("parent", values["parent"])
    for name in ("stress", "residual_norm"):
        if values[name] is not None and (type(values[name]) is not float or math.isnan(values[name])):
            _refuse(name, values[name])
    if (
        not isinstance(values["digest"], str)
        or len(values["digest"]) != 32
        or set(values["digest"]) - set("0123456789abcdef")
    ):
        _refuse("digest", values["digest"])
    if type(values["keyframe"]) is not int or values["keyframe"] not in (0, 1):
        _refuse("keyframe", values["keyframe"])


def _refuse(name: str, value: object) -> NoReturn:
    message = f"{name} is {reprlib.repr(value)}"
    raise ValueError(message)
