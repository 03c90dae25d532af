"""`gradient="jacobian"`: the function returns y and its Jacobians, which any residual is contracted with."""

from __future__ import annotations

from typing import Any

import numpy as np

from whiteboard.ops.gradients.function import Function
from whiteboard.ops.gradients.rule import Rule
from whiteboard.ops.kernels import jacobians
from whiteboard.types import Array


def rule(function: Function) -> Rule:
    """Return the rule of ``function(*sources, **params) → (y, Jacobians)``, the i-th of shape (*y, *xᵢ).

    What its forward saves are the Jacobians.
    """
    lead = int(function.lead)

    def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]:
        y, given = function.pair(xs, params, "Jacobians")
        shapes = [(*np.shape(y), *x.shape[lead:]) for x in xs]
        return y, function.each(given, "Jacobian", shapes, xs[0].dtype)

    def pull(saved: Any, cotangent: Array, need: tuple[bool, ...], /, **params: Any) -> tuple[Array, ...]:
        if lead:
            return tuple(jacobians.pull(cotangent, each) for each in saved)
        return tuple(jacobians.pull(cotangent[None], each[None])[0] for each in saved)

    return Rule(forward, pull, ("jacobian",))
