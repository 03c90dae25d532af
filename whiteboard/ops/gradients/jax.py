"""`gradient="jax"`: a function of JAX's arrays, which `jax.vjp` differentiates, known by the program it lowers to."""

from __future__ import annotations

import os
import sys
from functools import cache, partial
from typing import Any

import numpy as np

from whiteboard.errors import ShapeError
from whiteboard.ops.gradients.function import Function, imported
from whiteboard.ops.gradients.lowering import Programs, fresh, set_up, versions
from whiteboard.ops.gradients.rule import Rule
from whiteboard.types import Array


def rule(function: Function) -> Rule:
    """Return the rule of a function of JAX's arrays, which may be jitted: called once a job, or a bin of n at once."""

    def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]:
        jax = set_up(function.name, xs[0].dtype)
        y, back = jax.vjp(fresh(function, params), *map(jax.numpy.array, function.full(xs)))
        if not isinstance(y, jax.Array):
            msg = f"op {function.name!r}: forward: expected an array, got {type(y).__name__}"
            raise ShapeError(msg)
        return np.asarray(y), (jax, back)

    def pull(saved: Any, cotangent: Array, need: tuple[bool, ...], /, **params: Any) -> tuple[Array, ...]:
        jax, back = saved
        return tuple(np.asarray(grad) for grad in back(jax.numpy.array(cotangent)))

    settings = partial(_settings, function.name)
    return Rule(forward, pull, ("jax",), program=Programs(function), settings=settings)


def _settings(name: str) -> tuple[str, ...]:
    """What XLA's bits depend on beside the program: for what it compiles, with which flags, and its threads."""
    return ("jax", *_devices(name), os.environ.get("XLA_FLAGS", ""))


@cache
def _devices(name: str) -> tuple[str, ...]:
    jax = imported("jax", name)
    device = jax.devices()[0]
    threads = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return *versions(jax), device.platform, device.device_kind, str(threads)
