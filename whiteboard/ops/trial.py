"""One trial of an op on n jobs: forward and VJP as a session calls them, with every rule checked on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from whiteboard.errors import OpCheckError
from whiteboard.ops.spec import OpSpec
from whiteboard.types import Array, Params, Shape


@dataclass(frozen=True, slots=True)
class Trial:
    """What n jobs gave: y (n, *shape), and one gradient a source in the source's shape."""

    y: Array
    grads: tuple[Array, ...]


def run(spec: OpSpec, xs: Sequence[Array], params: Params | None = None, cotangent: Array | None = None) -> Trial:
    """Run one forward and one VJP over the jobs of `xs`.

    Parameters
    ----------
    spec : OpSpec
    xs : sequence of ndarray, each (n, *shape)
        C-contiguous, of one floating dtype.
    params : mapping, optional
    cotangent : ndarray, (n, *y_shape), optional
        None for ones.

    Raises
    ------
    OpCheckError
        If the forward or the VJP writes into a source or the cotangent, or returns another shape, dtype or number
        of arrays than it should.
    """
    given = spec.bind(params)
    n, dtype, shapes = len(xs[0]), xs[0].dtype, tuple(x.shape[1:] for x in xs)
    shape = spec.shape(spec.name, shapes, given)
    sources = [x.copy() for x in line_up(spec, xs)]
    if cotangent is None:
        cotangent = np.broadcast_to(np.ones((), dtype), (n, *shape))
    if spec.batch == "loop":
        trials = [
            _run(spec, [x[i, ...] for x in sources], given, cotangent[i, ...], shape, shapes, lead=()) for i in range(n)
        ]
        trial = Trial(
            np.stack([t.y for t in trials]), tuple(np.stack(g) for g in zip(*(t.grads for t in trials), strict=True))
        )
    else:
        trial = _run(spec, sources, given, cotangent, shape, shapes, lead=(n,))
    for slot, (source, x) in enumerate(zip(sources, line_up(spec, xs), strict=True)):
        if source.tobytes() != x.tobytes():
            raise fault(spec, f"source {slot}: the op writes into it")
    return trial


def line_up(spec: OpSpec, xs: Sequence[Array]) -> list[Array]:
    """Return the sources as a session gives them: those of elementwise ops with their job axes one below another."""
    if spec.kind != "elementwise" or spec.batch == "loop":
        return list(xs)
    ndim = max(x.ndim for x in xs)
    return [x.reshape(len(x), *(1,) * (ndim - x.ndim), *x.shape[1:]) for x in xs]


def _run(
    spec: OpSpec,
    sources: list[Array],
    params: dict[str, Any],
    cotangent: Array,
    shape: Shape,
    shapes: tuple[Shape, ...],
    lead: Shape,
) -> Trial:
    dtype = sources[0].dtype
    out = np.full((*lead, *shape), np.nan, dtype)  # what is not written is seen
    with np.errstate(all="ignore"):
        y, saved = spec.forward(tuple(sources), out, **params)
        y = _expect(spec, y, (*lead, *shape), dtype, "y").copy()
        held = cotangent.tobytes()
        grads = list(spec.vjp(saved, cotangent, (True,) * len(sources), **params))
    if cotangent.tobytes() != held:
        raise fault(spec, "the VJP writes into the cotangent")
    if len(grads) != len(sources):
        raise fault(spec, f"the VJP returns {len(grads)} gradients, expected {len(sources)}")
    back = []
    for slot, (grad, x) in enumerate(zip(grads, shapes, strict=True)):
        if spec.kind == "elementwise" and isinstance(grad, np.ndarray):
            grad = sum_back(grad, x, shape, len(lead))
        back.append(_expect(spec, grad, (*lead, *x), dtype, f"the gradient of source {slot}").copy())
    return Trial(y, tuple(back))


def sum_back(grad: Array, shape: Shape, full: Shape, lead: int) -> Array:
    """Return a gradient of the broadcast shape `full` summed over what was broadcast, in the source's `shape`."""
    jobs = grad.shape[:lead]
    grad = np.broadcast_to(grad, (*jobs, *full))
    padded = (1,) * (len(full) - len(shape)) + shape
    axes = tuple(lead + axis for axis, (was, now) in enumerate(zip(padded, full, strict=True)) if was != now)
    summed: Array = grad.sum(axes, keepdims=True)
    return summed.reshape(*jobs, *shape)


def _expect(spec: OpSpec, array: Any, shape: Shape, dtype: np.dtype[Any], what: str) -> Array:
    if not isinstance(array, np.ndarray | np.generic):
        raise fault(spec, f"{what}: expected an array, got {type(array).__name__}")
    if array.shape != shape:
        raise fault(spec, f"{what}: expected shape {shape}, got {array.shape}")
    if array.dtype != dtype:
        raise fault(spec, f"{what}: expected dtype {dtype}, got {array.dtype}")
    return np.asarray(array)


def fault(spec: OpSpec, text: str) -> OpCheckError:
    """Return the error that names the op."""
    return OpCheckError(f"op {spec.name!r}: {text}")
