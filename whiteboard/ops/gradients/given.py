"""`vjp=`: the user wrote the gradients."""

from __future__ import annotations

from typing import Any

from whiteboard.ops.gradients.function import Function, number
from whiteboard.ops.gradients.rule import Rule
from whiteboard.types import Array


def rule(function: Function) -> Rule:
    """Return the rule of a function with a VJP: ``vjp(cotangent, y, *sources, **params) → gradients``."""
    vjp = function.vjp
    assert vjp is not None  # whoever asks has looked

    def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]:
        xs = function.full(xs)
        y = number(function.call(*xs, **params), xs[0].dtype)
        return y, (y, xs)

    def pull(saved: Any, cotangent: Array, need: tuple[bool, ...], /, **params: Any) -> tuple[Array | None, ...]:
        y, xs = saved
        given = vjp(cotangent, y, *xs, **params)
        grads = given if isinstance(given, tuple | list) else (given,)
        return tuple(number(grad, y.dtype) for grad in grads)

    return Rule(forward, pull, vjp)
