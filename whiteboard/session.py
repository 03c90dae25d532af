"""A whiteboard session: exactly one forward and one backward over one bin, then wiped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from whiteboard.errors import ClosedError, DtypeError, SecondBackwardError, ShapeError
from whiteboard.ops.spec import OpSpec
from whiteboard.types import Array, Shape


class Session:
    """One bin on the whiteboard.

    Parameters
    ----------
    spec : OpSpec
    params : dict
        The op's full parameters (`OpSpec.bind`).
    xs : sequence of ndarray, each (n, *shape)
        The sources of n ≥ 1 jobs of equal signature, C-contiguous, of one floating dtype.

    Use as a context manager: leaving it wipes what the forward saved, also after an error.

    Raises
    ------
    SecondBackwardError
        From a second `forward` or `backward`.
    """

    def __init__(self, spec: OpSpec, params: dict[str, Any], xs: Sequence[Array]) -> None:
        self._spec, self._params = spec, params
        self._shapes: tuple[Shape, ...] = tuple(x.shape[1:] for x in xs)
        self._n, self._dtype = len(xs[0]), xs[0].dtype
        self._shape = spec.shape(spec.name, self._shapes, params)
        self._xs: tuple[Array, ...] | None = tuple(self._aligned(x) for x in xs)
        self._saved: Any = None
        self._forwards = self._backwards = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._xs = self._saved = None

    def forward(self) -> Array:
        """Return y, (n, *y_shape), in memory of its own."""
        self._forwards += 1
        if self._forwards > 1:
            msg = f"op {self._spec.name!r}: a session takes exactly one forward"
            raise SecondBackwardError(msg)
        xs = self._open()
        out = np.empty((self._n, *self._shape), self._dtype)
        if self._spec.batch == "loop":
            self._saved = [self._one(tuple(x[i] for x in xs), out[i, ...]) for i in range(self._n)]
        else:
            self._saved = self._one(xs, out)
        return out

    def _one(self, xs: tuple[Array, ...], out: Array) -> Any:
        y, saved = self._spec.forward(xs, out, **self._params)
        if y is not out:
            self._check(y, out.shape, "forward")
            np.copyto(out, y)
        return saved

    def backward(self, cotangent: Array | None = None) -> tuple[Array, ...]:
        """Return one gradient a source, (n, *shape), in memory of their own.

        `cotangent` is (n, *y_shape); None stands for ones.
        """
        self._backwards += 1
        if self._backwards > 1:
            msg = f"op {self._spec.name!r}: a session takes exactly one backward"
            raise SecondBackwardError(msg)
        self._open()
        shape = (self._n, *self._shape)
        if cotangent is None:
            cotangent = np.broadcast_to(np.ones((), self._dtype), shape)
        grads = tuple(np.empty((self._n, *s), self._dtype) for s in self._shapes)
        if self._spec.batch == "loop":
            for i in range(self._n):
                self._pull(self._saved[i], cotangent[i, ...], tuple(g[i, ...] for g in grads))
        else:
            self._pull(self._saved, cotangent, grads)
        return grads

    def _pull(self, saved: Any, cotangent: Array, into: tuple[Array, ...]) -> None:
        given = self._spec.vjp(saved, cotangent, (True,) * len(into), **self._params)
        if len(given) != len(into):
            msg = f"op {self._spec.name!r}: vjp: expected {len(into)} gradients, got {len(given)}"
            raise ShapeError(msg)
        for slot, (grad, target) in enumerate(zip(given, into, strict=True)):
            own: Any = grad
            if self._spec.kind == "elementwise" and grad is not None:
                own = _sum_back(grad, target.shape, cotangent.shape, int(self._spec.batch == "lead_axis"))
            self._check(own, target.shape, f"vjp, slot {slot}")
            np.copyto(target, own)

    def _check(self, array: Any, shape: Shape, where: str) -> None:
        if not isinstance(array, np.ndarray | np.generic):
            msg = f"op {self._spec.name!r}: {where}: expected an array, got {type(array).__name__}"
            raise ShapeError(msg)
        if array.shape != shape:
            msg = f"op {self._spec.name!r}: {where}: expected shape {shape}, got {array.shape}"
            raise ShapeError(msg)
        if array.dtype != self._dtype:
            msg = f"op {self._spec.name!r}: {where}: expected dtype {self._dtype}, got {array.dtype}"
            raise DtypeError(msg)

    def _open(self) -> tuple[Array, ...]:
        if self._xs is None:
            msg = f"op {self._spec.name!r}: the session is wiped"
            raise ClosedError(msg)
        return self._xs

    def _aligned(self, x: Array) -> Array:
        view = x
        if self._spec.kind == "elementwise" and self._spec.batch == "lead_axis":
            missing = max(map(len, self._shapes)) - (x.ndim - 1)
            view = x.reshape(len(x), *(1,) * missing, *x.shape[1:])
        view = view.view()
        view.flags.writeable = False
        return view


def _sum_back(grad: Array, shape: Shape, full: Shape, lead: int) -> Array:
    """Sum a gradient of the broadcast shape back to a source's, with the same bits for a job in any bin.

    `shape` is the source's, `full` is y's, both with `lead` axes of jobs. The broadcast axes go last and are
    summed as one contiguous axis: the reduction that NumPy does row by row.
    """
    grad = np.broadcast_to(grad, np.broadcast_shapes(grad.shape, full))
    padded = (*shape[:lead], *(1,) * (len(full) - len(shape)), *shape[lead:])
    summed = [axis for axis, (have, want) in enumerate(zip(grad.shape, padded, strict=True)) if have != want]
    if not summed:
        return grad.reshape(shape)
    kept = [axis for axis in range(grad.ndim) if axis not in summed]
    width = math.prod(grad.shape[axis] for axis in summed)
    moved = np.ascontiguousarray(grad.transpose(*kept, *summed))
    flat = moved.reshape(*(grad.shape[axis] for axis in kept), width)
    return np.asarray(flat.sum(-1)).reshape(shape)
