"""`gradient="jax"`: a function of JAX's arrays, which `jax.vjp` differentiates, known by the program it lowers to."""

from __future__ import annotations

import os
import sys
from functools import cache, partial
from typing import Any

import numpy as np

from whiteboard.ops.gradients.function import Function, imported
from whiteboard.ops.gradients.jax_programs import Programs, fresh, pulled_back, set_up, versions
from whiteboard.ops.gradients.rule import Rule
from whiteboard.types import Array


def rule(function: Function) -> Rule:
    """Return the rule of a function of JAX's arrays, which may be jitted.

    Where its program is known, that is run; a function that cannot be traced without values is called.
    """

    def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]:
        jax = set_up(function.name, xs[0].dtype)
        return pulled_back(jax, function.name, fresh(jax, function, params), function.full(xs))

    settings = partial(_settings, function.name)
    return Rule(forward, _pull, ("jax",), program=Programs(function), settings=settings)


def _pull(back: Any, cotangent: Array, need: tuple[bool, ...], /, **params: Any) -> tuple[Array, ...]:
    from jax.numpy import array

    return tuple(np.asarray(grad) for grad in back(array(cotangent)))


def _settings(name: str) -> tuple[str, ...]:
    """What XLA's bits depend on beside the program: for what it compiles, with which flags, and its threads."""
    return ("jax", *_devices(name), os.environ.get("XLA_FLAGS", ""))


@cache
def _devices(name: str) -> tuple[str, ...]:
    jax = imported("jax", name)
    device = jax.devices()[0]
    threads = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return *versions(jax), device.platform, device.device_kind, str(threads)
