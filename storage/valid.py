"""What the values of a row may be. Provisional: until the store's own says it."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from typing import Any, Final, NoReturn

MOST_VALUES: Final = 2**18
"""A text of JSON with more values than this is not read: as objects they would be many times their bytes."""

_INTEGERS = ("number", "changed", "rows")


def read_json(text: bytes | str) -> Any:
    """What a text of JSON says.

    Raises
    ------
    ValueError
        It is none, in UTF-8, or one of more than `MOST_VALUES` values, or nested too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode()
    if sum(text.count(mark) for mark in ",[{") > MOST_VALUES:
        message = f"it has more than {MOST_VALUES} values"
        raise ValueError(message)
    try:
        return json.loads(text)
    except RecursionError:
        message = "it is nested too deeply"
        raise ValueError(message) from None


def page(op: object, n: object, cost_ns: object, lineage: object) -> None:
    """Raise `ValueError` unless these are those of a page of packages."""
    if not isinstance(op, str) or not op:
        _refuse("op", op)
    op.encode()
    for name, value in {"n": n, "cost_ns": cost_ns}.items():
        if type(value) is not int or not 0 <= value < 2**63:
            _refuse(name, value)
    if lineage is not None and not isinstance(lineage, str):
        _refuse("lineage", lineage)


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
