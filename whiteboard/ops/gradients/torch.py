"""`gradient="torch"`: a function of CPU tensors, which `torch.autograd.grad` differentiates."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from whiteboard.errors import DtypeError, ShapeError
from whiteboard.ops.fingerprint.libraries import library_of
from whiteboard.ops.gradients.function import Function, imported, number
from whiteboard.ops.gradients.rule import Rule
from whiteboard.types import Array


def rule(function: Function) -> Rule:
    """Return the rule of a function of tensors, or of an ``nn.Module``: one graph a job, or a bin of n jobs at once.

    It gets copies of the sources that require gradients. A result that depends on none of them has zeros.
    """

    def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]:
        torch = imported("torch", function.name)
        with torch.enable_grad():
            tensors = [torch.from_numpy(np.array(x)).requires_grad_() for x in function.full(xs)]
            y = function.call(*tensors, **params)
        y = torch.from_numpy(number(y, xs[0].dtype)) if isinstance(y, int | float) else y
        return _on_cpu(torch, function.name, y).detach().resolve_conj().resolve_neg().numpy(), (y, tensors)

    def pull(saved: Any, cotangent: Array, need: tuple[bool, ...], /, **params: Any) -> tuple[Array, ...]:
        torch = imported("torch", function.name)
        y, tensors = saved
        grads: Any = [None] * len(tensors)
        if y.requires_grad:
            driving = torch.from_numpy(np.array(cotangent, order="C"))
            grads = torch.autograd.grad(y, tensors, driving, retain_graph=True, allow_unused=True)
        return tuple(
            np.zeros(tuple(x.shape), cotangent.dtype) if grad is None else grad.numpy()
            for x, grad in zip(tensors, grads, strict=True)
        )

    return Rule(
        forward,
        pull,
        ("torch", *(library_of("torch", None) or ())),  # torch counts by its version
        settings=partial(_settings, function.name),
    )


def _on_cpu(torch: Any, name: str, y: Any) -> Any:
    """Return y, once it is a tensor that NumPy can see."""
    if not isinstance(y, torch.Tensor):
        msg = f"op {name!r}: forward: expected a torch.Tensor, got {type(y).__name__}"
        raise ShapeError(msg)
    if y.device.type != "cpu":
        msg = f"op {name!r}: forward: expected a tensor on the CPU, got one on {y.device}: return y.cpu()"
        raise DtypeError(msg)
    if y.dtype not in (torch.float32, torch.float64):
        msg = f"op {name!r}: forward: expected float32 or float64 as the sources', got {y.dtype}"
        raise DtypeError(msg)
    return y


def _settings(name: str) -> tuple[str, ...]:
    """What torch's bits depend on beside its version: kernels, threads, and what was set."""
    torch = imported("torch", name)
    told = (
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.backends.mkldnn.enabled,
        torch.are_deterministic_algorithms_enabled(),
    )
    return ("torch", *map(str, told))
