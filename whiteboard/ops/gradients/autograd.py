"""`gradient="autograd"`: a function written with `autograd.numpy`, which HIPS autograd differentiates."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from whiteboard.errors import ParamError, ShapeError
from whiteboard.ops.fingerprint.libraries import library_of
from whiteboard.ops.gradients.function import Function, number
from whiteboard.ops.gradients.rule import Rule
from whiteboard.types import Array

_TRACED: Final = ("ArrayBox", "dtype('O')", "object arrays", "setting an array element with a sequence")
"""What NumPy, SciPy and Python say of the boxes by which autograd follows a computation, where these cannot go in."""

_WORDS: Final = "'returned' where it returns its gradients, 'pullback', 'jacobian', 'jax', 'torch', or 'none'"


def rule(function: Function) -> Rule:
    """Return the rule of a function that autograd differentiates: one trace a job, or a bin of n jobs at once."""

    def called(*xs: Any, **params: Any) -> Any:
        y = function.call(*xs, **params)
        if isinstance(y, tuple):
            msg = f"op {function.name!r}: forward: expected an array, got tuple; else say gradient={_WORDS}"
            raise ShapeError(msg)
        return y

    def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]:
        from autograd import make_vjp

        xs = function.full(xs)
        try:
            back, y = make_vjp(called, tuple(range(len(xs))))(*xs, **params)
        except (TypeError, ValueError, AttributeError) as error:
            if not any(text in str(error) for text in _TRACED):
                raise
            needs = f"autograd needs it written with autograd.numpy; else say gradient={_WORDS}, or give a vjp="
            msg = f"op {function.name!r}: {needs} ({error})"
            raise ParamError(msg) from error
        return number(y, xs[0].dtype), (back, xs[0].dtype)

    def pull(saved: Any, cotangent: Array, need: tuple[bool, ...], /, **params: Any) -> tuple[Array | None, ...]:
        back, dtype = saved
        # Autograd makes float64 of some float32 gradients.
        return tuple(np.asarray(grad, dtype) for grad in back(cotangent))

    return Rule(forward, pull, tuple(library_of("autograd", None) or ()))  # autograd counts by its version
