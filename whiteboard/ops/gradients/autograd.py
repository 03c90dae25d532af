"""`gradient="autograd"`: a function written with `autograd.numpy`, which HIPS autograd differentiates."""

from __future__ import annotations

from typing import Any

import numpy as np

from whiteboard.errors import ParamError
from whiteboard.ops.fingerprint.libraries import library_of
from whiteboard.ops.gradients.function import Function, number
from whiteboard.ops.gradients.rule import Rule
from whiteboard.types import Array


def rule(function: Function) -> Rule:
    """Return the rule of a function that autograd differentiates: one trace a job, or a bin of n jobs at once."""

    def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]:
        from autograd import make_vjp

        xs = function.full(xs)
        try:
            back, y = make_vjp(function.call, tuple(range(len(xs))))(*xs, **params)
        except TypeError as error:
            if "ArrayBox" not in str(error):
                raise
            msg = f"op {function.name!r}: autograd needs it written with autograd.numpy, or give wb.op a vjp= ({error})"
            raise ParamError(msg) from error
        return number(y, xs[0].dtype), (back, xs[0].dtype)

    def pull(saved: Any, cotangent: Array, need: tuple[bool, ...], /, **params: Any) -> tuple[Array | None, ...]:
        back, dtype = saved
        # Autograd makes float64 of some float32 gradients.
        return tuple(np.asarray(grad, dtype) for grad in back(cotangent))

    return Rule(forward, pull, tuple(library_of("autograd", None) or ()))  # autograd counts by its version
