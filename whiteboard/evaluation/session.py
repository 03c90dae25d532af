"""A whiteboard session: exactly one forward and one backward over one bin, then wiped."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from whiteboard.errors import ClosedError, DtypeError, SecondBackwardError, ShapeError
from whiteboard.ops.kernels.rows import sum_back
from whiteboard.ops.spec import OpSpec
from whiteboard.types import FLOATS, Array, Shape


class Session:
    """One bin on the whiteboard.

    Parameters
    ----------
    spec : OpSpec
    params : dict
        The op's full parameters (`OpSpec.bind`).
    xs : sequence of ndarray, each (n, *shape)
        The sources of n ≥ 1 jobs of equal signature, C-contiguous, float32 or float64.
    shape : tuple of int, optional
        y's shape of one job, where it is known; else the op's shape rule is asked, and where that does not know it
        either, the bin's first job tells.

    Use as a context manager: leaving it wipes what the forward saved, also after an error.

    Raises
    ------
    SecondBackwardError
        From a second `forward` or `backward`.
    """

    def __init__(self, spec: OpSpec, params: dict[str, Any], xs: Sequence[Array], shape: Shape | None = None) -> None:
        self._spec, self._params = spec, params
        self._shapes: tuple[Shape, ...] = tuple(x.shape[1:] for x in xs)
        self._n, self._dtype = len(xs[0]), xs[0].dtype
        self._shape = spec.shape(spec.name, self._shapes, params) if shape is None else shape
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
        out = self._rows(xs) if self._spec.batch == "loop" else self._whole(xs)
        canonical(out)
        return out

    def _whole(self, xs: tuple[Array, ...]) -> Array:
        out = None if self._shape is None else self._empty(self._shape)
        y, self._saved = self._spec.forward(xs, out, **self._params)
        if out is None:
            self._is_array(y, "forward")
            if y.shape[:1] != (self._n,):
                told = f"expected shape ({self._n}, …) for a bin of {self._n}, got {y.shape}"
                remedy = "write the function for n jobs at once, or register it with batch='loop'"
                msg = f"op {self._spec.name!r}: forward: {told}: {remedy}"
                raise ShapeError(msg)
            out = self._empty(y.shape[1:])
        self._fill(out, y)
        return out

    def _rows(self, xs: tuple[Array, ...]) -> Array:
        out = None if self._shape is None else self._empty(self._shape)
        self._saved = []
        for i in range(self._n):
            row = None if out is None else out[i, ...]
            if out is not None and self._spec.user and i and all(_same(x[i], x[i - 1]) for x in xs):
                out[i, ...] = out[i - 1, ...]  # jobs that differ in their cotangents alone share one run
                self._saved.append(self._saved[-1])
                continue
            y, saved = self._spec.forward(tuple(x[i, ...] for x in xs), row, **self._params)
            if out is None or row is None:
                self._is_array(y, "forward")
                out = self._empty(y.shape)
                row = out[i, ...]
            self._fill(row, y)
            self._saved.append(saved)
        assert out is not None  # a bin has a job
        return out

    def _empty(self, shape: Shape) -> Array:
        self._shape = shape
        return np.empty((self._n, *shape), self._dtype)

    def _fill(self, out: Array, y: Any) -> None:
        if y is not out:
            self._check(y, out.shape, "forward")
            out[...] = y

    def backward(self, cotangent: Array | None = None) -> tuple[Array, ...]:
        """Return one gradient a source, (n, *shape), in memory of their own.

        `cotangent` is (n, *y_shape); None stands for ones.
        """
        self._backwards += 1
        if self._backwards > 1:
            msg = f"op {self._spec.name!r}: a session takes exactly one backward"
            raise SecondBackwardError(msg)
        self._open()
        if cotangent is None:
            if self._shape is None:
                msg = f"op {self._spec.name!r}: a session's forward comes before its backward"
                raise ShapeError(msg)
            cotangent = _ones((self._n, *self._shape), self._dtype)
        grads = tuple(np.empty((self._n, *s), self._dtype) for s in self._shapes)
        if self._spec.batch == "loop":
            for i in range(self._n):
                self._pull(self._saved[i], cotangent[i, ...], tuple(g[i, ...] for g in grads))
        else:
            self._pull(self._saved, cotangent, grads)
        for grad in grads:
            canonical(grad)
        return grads

    def _pull(self, saved: Any, cotangent: Array, into: tuple[Array, ...]) -> None:
        given = self._spec.vjp(saved, cotangent, (True,) * len(into), **self._params)
        if len(given) != len(into):
            msg = f"op {self._spec.name!r}: vjp: expected {len(into)} gradients, got {len(given)}"
            raise ShapeError(msg)
        grad: Any
        for slot, (grad, target) in enumerate(zip(given, into, strict=True)):
            if self._spec.kind == "elementwise" and target.shape != cotangent.shape:
                self._check(grad, cotangent.shape, "vjp", slot)
                lead = self._spec.batch == "lead_axis"
                grad = sum_back(grad, target.shape[1:]) if lead else sum_back(grad[None], target.shape)[0]
            self._check(grad, target.shape, "vjp", slot)
            target[...] = grad

    def _check(self, array: Any, shape: Shape, where: str, slot: int | None = None) -> None:
        if isinstance(array, np.ndarray) and array.shape == shape and array.dtype == self._dtype:
            return
        if slot is not None:
            where = f"{where}, slot {slot}"
        self._is_array(array, where)
        if array.shape != shape:
            why = (
                f" of an op of kind {self._spec.kind!r}" if where == "forward" and self._spec.kind != "general" else ""
            )
            msg = f"op {self._spec.name!r}: {where}: expected shape {shape}{why}, got {array.shape}"
            raise ShapeError(msg)
        if array.dtype != self._dtype:
            msg = f"op {self._spec.name!r}: {where}: expected dtype {self._dtype}, got {array.dtype}"
            raise DtypeError(msg)

    def _is_array(self, array: Any, where: str) -> None:
        if not isinstance(array, np.ndarray | np.generic):
            msg = f"op {self._spec.name!r}: {where}: expected an array, got {type(array).__name__}"
            raise ShapeError(msg)

    def _open(self) -> tuple[Array, ...]:
        if self._xs is None:
            msg = f"op {self._spec.name!r}: the session is wiped"
            raise ClosedError(msg)
        return self._xs

    def _aligned(self, x: Array) -> Array:
        view = x.view()
        if self._spec.kind == "elementwise" and self._spec.batch == "lead_axis" and self._shape is not None:
            missing = len(self._shape) - (x.ndim - 1)
            if missing > 0:
                view = x.reshape(len(x), *(1,) * missing, *x.shape[1:])
        view.flags.writeable = False
        return view


_ONE = {dtype: np.ones((), dtype).tobytes() for dtype in FLOATS}


def _ones(shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Return ones of a shape: one number in memory, read-only, with no stride."""
    return np.ndarray(shape, dtype, buffer=_ONE[dtype], strides=(0,) * len(shape))


def canonical(array: Array) -> None:
    """Make every NaN the same one.

    Which of two NaNs a sum or product returns, and so its sign and payload, follows the lane of the vector register
    that the element is in (NumPy's loops and remainders differ), and with it the bin.
    """
    if not array.size:
        return
    largest = np.maximum.reduce(array, axis=None)
    if largest != largest:  # a maximum with NaN is NaN, and only NaN differs from itself
        np.copyto(array, np.nan, where=np.isnan(array))


def _same(a: Array, b: Array) -> bool:
    """Whether two rows have the same bytes."""
    return a.tobytes() == b.tobytes()
