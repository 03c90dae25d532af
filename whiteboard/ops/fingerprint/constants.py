"""Values that cannot be edited, as bytes: numbers, texts, tuples, frozen sets, members of enums, annotations."""

from __future__ import annotations

import enum
import operator
import re
import sys
import typing
from types import GenericAlias, MappingProxyType, UnionType
from typing import Any

from whiteboard.ops.fingerprint.classes import is_class
from whiteboard.ops.fingerprint.walk import Walk


def write(walk: Walk, value: Any, where: str, *_: object) -> bool:
    """Write a value that cannot be edited, by what it is made of."""
    if value is None or value is Ellipsis or value is NotImplemented or type(value) in (bool, complex, range, slice):
        walk.put(type(value).__name__, repr(value))
    elif type(value) is int:
        walk.put("int", hex(value) if value.bit_length() > 64 else repr(value))
    elif type(value) is float:
        walk.put("float", value.hex())
    elif type(value) is str or type(value) is bytes:
        walk.put(type(value).__name__, value)
    elif is_class(value):
        return False
    elif isinstance(value, enum.Enum):
        walk.value(type(value), f"the class of {where}")
        walk.put("member", str(value.name))
        if isinstance(value, enum.Flag):
            walk.value(value.value, where)
    elif isinstance(value, tuple):
        walk.put("tuple", type(value).__qualname__, str(len(value)))
        for number, item in enumerate(value):
            walk.value(item, f"{where}[{number}]")
        if type(value) is not tuple:
            walk.value(type(value), f"the class of {where}")
    elif type(value) is frozenset:
        _frozenset(walk, value, where)
    elif isinstance(value, MappingProxyType):
        walk.put("mapping", str(len(value)))
        walk.watch.all_of(value)
        for key in value:
            walk.value((key, walk.watch.binding(value, key)), f"{where}[{key!r}]")
    elif _is_fraction(value):
        walk.put("fraction", str(value))
    elif isinstance(value, re.Pattern):
        walk.put("pattern")
        walk.value((value.pattern, value.flags), where)
    elif isinstance(value, operator.itemgetter | operator.attrgetter | operator.methodcaller):
        walk.put(type(value).__name__)
        walk.value(value.__reduce__()[1:], where)
    else:
        return _typing(walk, value, where)
    return True


def _typing(walk: Walk, value: object, where: str) -> bool:
    """Write an annotation that is used as a value: by its parts, as these may be classes of the user's."""
    if not (type(value).__module__ == "typing" or isinstance(value, GenericAlias | UnionType)):
        return False
    origin, parts = typing.get_origin(value), typing.get_args(value)
    walk.put("typing", type(value).__name__, "" if origin or parts else repr(value))
    for part in (origin, *parts):
        if isinstance(part, list):
            part = tuple(part)
        walk.value(part, f"a part of {where}")
    return True


def _frozenset(walk: Walk, value: frozenset[object], where: str) -> None:
    digests = []
    for item in value:
        beside = walk.beside()
        beside.value(item, where)
        walk.watch.include(beside.watch)
        walk.reaches(beside.blas)
        digests.append(beside.hash.digest())
    walk.put("frozenset", str(len(digests)), *sorted(digests))


def _is_fraction(value: object) -> bool:
    fractions = sys.modules.get("fractions")  # where nobody has imported it, nothing is one
    return fractions is not None and type(value) is fractions.Fraction
