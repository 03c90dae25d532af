"""`gradient="returned"`: the function returns y, a scalar, and its gradients."""

from __future__ import annotations

from typing import Any

from whiteboard.ops.gradients.function import Function
from whiteboard.ops.gradients.rule import Rule
from whiteboard.ops.kernels.cotangents import is_ones
from whiteboard.types import Array


def rule(function: Function) -> Rule:
    """Return the rule of ``function(*sources, **params) → (y, gradients)``."""

    def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]:
        y, grads = function.pair(xs, params, "gradients")
        return y, function.each(grads, "gradient", [x.shape for x in xs], xs[0].dtype)

    return Rule(forward, _pull, ("returned",))


def _pull(saved: Any, cotangent: Array, need: tuple[bool, ...], /, **params: Any) -> tuple[Array, ...]:
    if is_ones(cotangent):
        return tuple(saved)
    return tuple(cotangent.reshape(cotangent.shape + (1,) * (grad.ndim - cotangent.ndim)) * grad for grad in saved)
