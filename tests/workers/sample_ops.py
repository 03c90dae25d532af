"""Ops of a module, as workers import them."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import autograd.numpy as anp
import numpy as np

import whiteboard as wb

FACTOR = 2.0


@wb.op("sample_loop")
def loop(x: Any, *, power: int = 2) -> Any:
    """One job at a time."""
    return anp.sum(anp.sin(x) ** power) * FACTOR


@wb.op("sample_lead", batch="lead_axis", kind="elementwise")
def lead(a: Any, b: Any) -> Any:
    """A bin at once."""
    return anp.tanh(a) * b


@wb.op("sample_blas", batch="lead_axis", exactness="tolerance")
def blas(x: Any, m: Any) -> Any:
    """Reaches BLAS, and has bits that depend on the bin."""
    return anp.matmul(x, m)


@wb.op("sample_pid", gradient="none", ignore=("os", "time"))
def pid(x: Any, *, seconds: float = 0.0) -> Any:
    """Where it is computed."""
    time.sleep(seconds)
    return np.array([float(os.getpid())]) + 0 * x[:1]


class OddError(Exception):
    """An error that cannot be made again of its text."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


@wb.op("sample_moody", gradient="none", ignore=("os", "time", "signal"))
def moody(x: Any, *, home: int = 0) -> Any:
    """Does, in another process, what its source says: 1 raises, 2 raises oddly, 3 dies, 4 hangs."""
    time.sleep(0.02)
    mood = int(x[0])
    if mood == 1:
        raise ValueError("one")
    if mood == 2:
        raise OddError(1, 2)
    if os.getpid() != home:
        if mood == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if mood == 4:
            time.sleep(60)
    return x * 2
