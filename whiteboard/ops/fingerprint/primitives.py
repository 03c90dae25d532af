"""Autograd's primitives: the rule of each gradient, which anyone may register again, and what a closure holds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any

from whiteboard.ops.fingerprint.walk import Walk

DEEPEST = 4
"""Closures are looked into so far."""


def rule(value: object) -> tuple[Mapping[Any, Any], object] | None:
    """Return the table of VJPs and what it has for a function (None for no rule yet); None for no primitive."""
    core = sys.modules.get("autograd.core")
    if core is None or not getattr(value, "_is_autograd_primitive", False):
        return None
    rules: Mapping[Any, Any] = core.primitive_vjps
    return rules, rules.get(value)


def parts(rule: object) -> list[FunctionType]:
    """Return the functions that `defvjp` was given, in the order of the arguments that they are for."""
    if not isinstance(rule, FunctionType):
        return []
    if rule.__module__ != "autograd.core":
        return [rule]
    return [part for part in held(rule) if isinstance(part, FunctionType) and rule_of(part) is None]


def rule_of(value: object) -> object:
    found = rule(value)
    return None if found is None else found[1]


def held(function: FunctionType, depth: int = DEEPEST) -> Iterator[object]:
    """Yield what a function's closure holds: functions and classes, also those in dicts, lists, tuples, partials."""
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:
            continue
        if content is not function:
            yield from _callables(content, depth - 1)


def _callables(value: object, depth: int) -> Iterator[object]:
    if isinstance(value, FunctionType | type):
        yield value
    elif depth and isinstance(value, Mapping):
        for item in value.values():
            yield from _callables(item, depth - 1)
    elif depth and isinstance(value, tuple | list):
        for item in value:
            yield from _callables(item, depth - 1)


def write_rule(walk: Walk, value: object, where: str) -> None:
    """Write the gradient of an autograd primitive, where it is the user's own."""
    if (found := rule(value)) is None:
        return
    rules, registered = found
    walk.watch.binding(rules, value)
    if registered is not None and any(not walk.is_library(part) for part in parts(registered)):
        walk.put("rule")
        for number, part in enumerate(parts(registered)):
            walk.put(str(number))
            walk.value(part, f"the gradient of {where}")
