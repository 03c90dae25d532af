"""An op run once on n jobs: forward and VJP as a session calls them, with every rule checked on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from whiteboard.errors import OpCheckError
from whiteboard.ops.kernels.rows import sum_back
from whiteboard.ops.spec import OpSpec
from whiteboard.types import Array, Params, Shape, is_masked


@dataclass(frozen=True, slots=True)
class Trial:
    """What n jobs gave: y (n, *shape), and one gradient a source in the source's shape, or none."""

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
    sources = [x.copy() for x in line_up(spec, xs)]
    bench = _bench(spec, sources, [x.shape[1:] for x in xs], spec.bind(params))
    if spec.batch == "loop":
        given = [None if cotangent is None else cotangent[i, ...] for i in range(len(xs[0]))]
        trials = [bench.run([x[i, ...] for x in sources], given[i]) for i in range(len(xs[0]))]
        ys, grads = zip(*trials, strict=True)
        trial = Trial(np.stack(ys), tuple(np.stack(each) for each in zip(*grads, strict=True)))
    else:
        trial = Trial(*bench.run(sources, cotangent))
    for slot, (source, x) in enumerate(zip(sources, line_up(spec, xs), strict=True)):
        if source.tobytes() != x.tobytes():
            raise fault(spec, f"source {slot}: the op writes into it")
    return trial


def forward(spec: OpSpec, xs: Sequence[Array], params: Params | None = None) -> Array:
    """Run one forward over the jobs of `xs`; parameters and errors are `run`'s. Returns y."""
    sources = line_up(spec, xs)
    bench = _bench(spec, sources, [x.shape[1:] for x in xs], spec.bind(params))
    if spec.batch == "loop":
        return np.stack([bench.forward([x[i, ...] for x in sources])[0] for i in range(len(xs[0]))])
    return bench.forward(sources)[0]


def line_up(spec: OpSpec, xs: Sequence[Array]) -> list[Array]:
    """Return the sources as a session gives them: those of elementwise ops with their job axes one below another."""
    if spec.kind != "elementwise" or spec.batch == "loop":
        return list(xs)
    ndim = max(x.ndim for x in xs)
    return [x.reshape(len(x), *(1,) * (ndim - x.ndim), *x.shape[1:]) for x in xs]


@dataclass(frozen=True, slots=True)
class _Bench:
    """An op on sources of known shapes: n jobs at once, or one job of a ``loop`` op (`lead` is then empty)."""

    spec: OpSpec
    params: dict[str, Any]
    shapes: list[Shape]
    shape: Shape | None
    lead: Shape

    def forward(self, sources: list[Array]) -> tuple[Array, Any]:
        """Return a copy of y, and what the forward saved."""
        dtype = sources[0].dtype
        # What is not written into `out` is seen.
        out = None if self.shape is None else np.full((*self.lead, *self.shape), np.nan, dtype)
        with np.errstate(all="ignore"):
            y, saved = self.spec.forward(tuple(sources), out, **self.params)
        full = (*self.lead, *np.shape(y)[len(self.lead) :]) if out is None else out.shape
        return _expect(self.spec, y, full, dtype, "y").copy(), saved

    def run(self, sources: list[Array], cotangent: Array | None) -> tuple[Array, tuple[Array, ...]]:
        """Return copies of y and of the gradients, in the sources' shapes."""
        y, saved = self.forward(sources)
        if cotangent is None:
            cotangent = np.broadcast_to(np.ones((), y.dtype), y.shape)
        held = cotangent.tobytes()
        with np.errstate(all="ignore"):
            grads = list(self.spec.vjp(saved, cotangent, (True,) * len(sources), **self.params))
        if cotangent.tobytes() != held:
            raise fault(self.spec, "the VJP writes into the cotangent")
        expected = 0 if self.spec.gradient == "none" else len(sources)
        if len(grads) != expected:
            raise fault(self.spec, f"the VJP returns {len(grads)} gradients, expected {expected}")
        return y, tuple(self._back(grad, slot, y).copy() for slot, grad in enumerate(grads))

    def _back(self, grad: Any, slot: int, y: Array) -> Array:
        """Return a gradient as the source's: that of an elementwise op has y's shape, and is summed back."""
        what, shape, dtype = f"the gradient of source {slot}", self.shapes[slot], y.dtype
        if self.spec.kind == "elementwise" and shape != self.shape:
            grad = _expect(self.spec, grad, y.shape, dtype, what)
            rows = grad if self.lead else grad[None]
            grad = sum_back(rows, shape).reshape(*self.lead, *shape)
        return _expect(self.spec, grad, (*self.lead, *shape), dtype, what)


def _bench(spec: OpSpec, sources: list[Array], shapes: list[Shape], params: dict[str, Any]) -> _Bench:
    shape = spec.shape(spec.name, tuple(shapes), params)
    return _Bench(spec, params, shapes, shape, () if spec.batch == "loop" else (len(sources[0]),))


def _expect(spec: OpSpec, array: Any, shape: Shape, dtype: np.dtype[Any], what: str) -> Array:
    if not isinstance(array, np.ndarray | np.generic):
        raise fault(spec, f"{what}: expected an array, got {type(array).__name__}")
    if is_masked(array):
        raise fault(spec, f"{what}: a masked array is refused: return its filled(…) values")
    if array.shape != shape:
        raise fault(spec, f"{what}: expected shape {shape}, got {array.shape}")
    if array.dtype != dtype:
        raise fault(spec, f"{what}: expected dtype {dtype}, got {array.dtype}")
    return np.asarray(array)


def fault(spec: OpSpec, text: str) -> OpCheckError:
    """Return the error that names the op."""
    return OpCheckError(f"op {spec.name!r}: {text}")
