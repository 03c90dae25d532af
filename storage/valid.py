"""What the values of a row may be: of what comes from elsewhere, and of what a store takes from its own users.

Each function raises `ValueError`, with the field and its value, and returns nothing else than what it was given.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any, Final, NoReturn

MOST_VALUES: Final = 2**18
"""A text of JSON with more values than this is not read: as objects they would be many times their bytes."""

_DIGEST = re.compile("[0-9a-f]{32}")


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
        message = f"a text of JSON has more than {MOST_VALUES} values"
        raise ValueError(message)
    try:
        return json.loads(text)
    except RecursionError:
        message = "a text of JSON is nested too deeply"
        raise ValueError(message) from None


def system(name: object, uuid: object, spec: object, origin: object = None) -> tuple[str, str, str | None]:
    """What a system is called and was forked from, and its specification: JSON, an object of what it can hold."""
    if not (isinstance(name, str) and name and name.isprintable()):
        _refuse("name", name)
    if not (isinstance(uuid, str) and uuid and uuid.isprintable()):
        _refuse("uuid", uuid)
    if spec is not None:
        if not isinstance(spec, str):
            _refuse("spec", spec)
        said = read_json(spec)
        if not isinstance(said, dict) or not spec.isascii():
            _refuse("spec", spec)
        json.dumps(said, allow_nan=False)
    match origin:
        case None | (str(), int()):
            pass
        case _:
            _refuse("origin", origin)
    return name, uuid, spec


def commit(values: Mapping[str, Any]) -> None:
    """The row of a commit: all that its seal covers."""
    number, parent, keyframe, digest = (values[name] for name in ("number", "parent", "keyframe", "digest"))
    for name in ("number", "changed", "rows"):
        _count(name, values[name])
    if parent != (number - 1 if number else None) or isinstance(parent, bool | float):
        _refuse("parent", parent)
    if type(keyframe) is not int or not (keyframe == 1 or (keyframe == 0 and number)):
        _refuse("keyframe", keyframe)
    for name in ("stress", "residual_norm"):
        if values[name] is not None and (type(values[name]) is not float or math.isnan(values[name])):
            _refuse(name, values[name])
    if not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        _refuse("digest", digest)


def page(op: object, n: object, cost_ns: object, lineage: object) -> None:
    """What the header of a page of packages says of them."""
    if not isinstance(op, str) or not op:
        _refuse("op", op)
    op.encode()
    _count("n", n)
    _count("cost_ns", cost_ns)
    if lineage is not None and not (isinstance(lineage, str) and isinstance(read_json(lineage), dict)):
        _refuse("lineage", lineage)


def _count(name: str, value: object) -> None:
    """From 0 to the most that SQLite holds."""
    if type(value) is not int or not 0 <= value < 2**63:
        _refuse(name, value)


def _refuse(name: str, value: object) -> NoReturn:
    message = f"{name} is {reprlib.repr(value)}"
    raise ValueError(message)
