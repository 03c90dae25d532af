"""`gradient="pullback"`: the function returns y and a function from its cotangent to the gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from whiteboard.errors import ParamError
from whiteboard.ops.gradients.function import Function
from whiteboard.ops.gradients.rule import Rule
from whiteboard.types import Array


def rule(function: Function) -> Rule:
    """Return the rule of ``function(*sources, **params) → (y, pullback)``, ``pullback(cotangent) → gradients``.

    A pullback gets an array of its own, of y's shape and dtype, and may be called again with another.
    """

    def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]:
        xs = function.full(xs)
        y, back = function.pair(xs, params, "pullback")
        if not callable(back):
            msg = f"op {function.name!r}: expected the pullback to be a function, got {type(back).__name__}"
            raise ParamError(msg)
        return y, (back, [x.shape for x in xs], xs[0].dtype)

    def pull(saved: Any, cotangent: Array, need: tuple[bool, ...], /, **params: Any) -> tuple[Array, ...]:
        back, shapes, dtype = saved
        return function.each(back(np.array(cotangent, order="C")), "gradient", shapes, dtype)

    return Rule(forward, pull, ("pullback",))
