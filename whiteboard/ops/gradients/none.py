"""`gradient="none"`: the function has no gradients."""

from __future__ import annotations

from typing import Any

from whiteboard.ops.gradients.function import Function, array
from whiteboard.ops.gradients.rule import Rule
from whiteboard.types import Array


def rule(function: Function) -> Rule:
    """Return the rule of ``function(*sources, **params) → y``."""

    def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]:
        xs = function.full(xs)
        return array(function.call(*xs, **params), xs[0].dtype), None

    return Rule(forward, _pull, ("none",))


def _pull(saved: Any, cotangent: Array, need: tuple[bool, ...], /, **params: Any) -> tuple[Array, ...]:
    return ()
