"""A whiteboard session: exactly one forward and one backward over one bin, then wiped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, Self, TypeGuard

import numpy as np

from whiteboard.errors import ClosedError, DtypeError, SecondBackwardError, ShapeError, WhiteboardError
from whiteboard.evaluation import contents
from whiteboard.evaluation.canonical import all_canonical, canonical
from whiteboard.evaluation.results import Place, place
from whiteboard.memory.room import LEAST_BYTES
from whiteboard.ops.kernels.rows import sum_back
from whiteboard.ops.spec import OpSpec
from whiteboard.types import FLOATS, Array, Shape, is_masked


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

    place : callable, optional
        Gives arrays of a number and a shape a place: y is number 0, what lies beside it comes behind.

    Use as a context manager: leaving it wipes what the forward saved, also after an error.

    Raises
    ------
    SecondBackwardError
        From a second `forward` or `backward`.
    """

    def __init__(
        self,
        spec: OpSpec,
        params: dict[str, Any],
        xs: Sequence[Array],
        shape: Shape | None = None,
        place: Callable[[int, Shape], Place] | None = None,
    ) -> None:
        self._spec, self._params, self._place = spec, params, place
        self._places: list[Place] = []
        self._loop = spec.batch == "loop"
        self._shapes: tuple[Shape, ...] = tuple([x.shape[1:] for x in xs])
        self._n, self._dtype = len(xs[0]), xs[0].dtype
        self._shape = spec.shape(spec.name, self._shapes, params) if shape is None else shape
        self._xs: tuple[Array, ...] | None = tuple([self._aligned(x) for x in xs])
        self._out: Array | None = None
        self._saved: list[Any] = []
        self._forwards = self._backwards = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._xs, self._out, self._saved, self._places = None, None, [], []

    def forward(self) -> Array:
        """Return y, (n, *y_shape), in memory of its own."""
        self._start_forward()
        self._saved = [self._each(self._forward, number) for number in range(self._calls())]
        return self._y()

    def backward(self, cotangent: Array | None = None) -> tuple[Array, ...]:
        """Return one gradient a source, (n, *shape), in memory of their own; of an op without gradients, nothing.

        `cotangent` is (n, *y_shape); None stands for ones.
        """
        self._start_backward()
        self._open()
        if not self._forwards:
            msg = f"op {self._spec.name!r}: a session's forward comes before its backward"
            raise ShapeError(msg)
        grads = self._empties([] if self._spec.gradient == "none" else self._shapes)
        for number, saved in enumerate(self._saved):
            self._each(self._pull, number, saved, cotangent, grads)
        return all_canonical(grads)

    def run(self, cotangent: Array | None = None, failed: dict[int, Exception] | None = None) -> tuple[Array, ...]:
        """Return what a package holds, all in memory of its own: y, (n, *y_shape), and what `backward` gives.

        Of an op whose gradient is ``jacobian`` the Jacobians, (n, *y_shape, *shape), stand in the place of gradients.
        What is called job by job is called forward and back, then for the next job; where this one has the sources of
        the one before, as it has in a bin of cotangents, what was saved is pulled back again.

        Parameters
        ----------
        cotangent : ndarray, (n, *y_shape), optional
        failed : dict, optional
            Takes what a job raised, by row, where the op is called job by job; then the others go on, and the row's
            results are no numbers of anything. Where all have failed there are no results. Without it the first error
            is raised.
        """
        if failed is not None or self._calls() > 1:
            ((_, results),) = self.parts(cotangent, failed)
            return results
        self._start_forward()
        self._start_backward()
        beside = self._each(self._both, 0, cotangent)
        return self._done((self._whole_y(), *beside))

    def parts(
        self,
        cotangent: Array | None = None,
        failed: dict[int, Exception] | None = None,
        enough: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[slice, tuple[Array, ...]]]:
        """Yield what `run` returns in parts, each with its rows: a new one begins where `enough` says so after a job.

        It is asked where the op is called job by job.
        """
        self._start_forward()
        self._start_backward()
        beside: tuple[Array, ...] = ()
        saved: Any = None
        repeatable = False
        first, calls = 0, self._calls()
        for number in range(calls):
            try:
                if cotangent is None or not repeatable or not self._repeats(number):
                    repeatable = False
                    saved = self._each(self._forward, number)
                    repeatable = True
                beside = self._each(self._pulled, number, saved, cotangent, beside)
            except Exception as error:
                if failed is None or not self._loop:
                    raise
                failed[number] = error
            if number + 1 < calls and enough():
                yield slice(first, number + 1), self._results(slice(first, number + 1), beside, failed)
                first = number + 1
        yield slice(first, self._n), self._results(slice(first, self._n), beside, failed)

    def _both(self, number: int, cotangent: Array | None) -> tuple[Array, ...]:
        """Do a call forward and back, and return what lies beside y."""
        return self._pulled(number, self._forward(number), cotangent, ())

    def _pulled(self, number: int, saved: Any, cotangent: Array | None, beside: tuple[Array, ...]) -> tuple[Array, ...]:
        """Fill some rows of what lies beside y, which the first call makes."""
        beside = beside or self._empties(self._beside())
        step = self._take if self._spec.gradient == "jacobian" else self._pull
        step(number, saved, cotangent, beside)
        return beside

    def _results(
        self, rows: slice, beside: tuple[Array, ...], failed: dict[int, Exception] | None
    ) -> tuple[Array, ...]:
        """Return the results of some rows, in memory of their own; nothing where all of them have failed."""
        if failed and all(row in failed for row in range(rows.start, rows.stop)):
            return ()
        whole = (self._whole_y(), *beside)
        if rows == slice(0, self._n):
            return self._done(whole)
        return all_canonical(tuple(array[rows].copy() for array in whole))

    def _done(self, whole: tuple[Array, ...]) -> tuple[Array, ...]:
        """Return all results as they are to be read."""
        all_canonical(whole)
        results = {id(target): result for target, result in self._places}
        return tuple([results.get(id(array), array) for array in whole])

    def _start_forward(self) -> None:
        self._forwards += 1
        if self._forwards > 1:
            msg = f"op {self._spec.name!r}: a session takes exactly one forward"
            raise SecondBackwardError(msg)

    def _start_backward(self) -> None:
        self._backwards += 1
        if self._backwards > 1:
            msg = f"op {self._spec.name!r}: a session takes exactly one backward"
            raise SecondBackwardError(msg)

    def _calls(self) -> int:
        """How often the op is called: once, or once a job."""
        return self._n if self._loop else 1

    def _part(self, arrays: tuple[Array, ...], number: int) -> tuple[Array, ...]:
        """The rows of one call: views, or the arrays themselves where it is of all rows."""
        return tuple([array[number, ...] for array in arrays]) if self._loop else arrays

    def _each(self, step: Callable[..., Any], number: int, *given: Any) -> Any:
        """Do one step of a call; an error of it says which job it is of, where it is of one."""
        try:
            return step(number, *given)
        except WhiteboardError as error:
            error.row = number if self._loop else None
            raise

    def _forward(self, number: int) -> Any:
        """Fill some rows of y, and return what the forward saved."""
        if self._out is None and self._shape is not None:
            self._out = self._empty(self._shape)
        target = None if self._out is None else self._row_of(self._out, number)
        y, saved = self._spec.forward(self._part(self._open(), number), target, **self._params)
        if self._out is None or target is None:
            self._is_array(y, "forward")
            self._shape = y.shape if self._loop else self._shape_of(y)
            self._out = self._empty(self._shape)
            target = self._row_of(self._out, number)
        if y is not target:
            self._check(y, target.shape, "forward")
            target[...] = y
        return saved

    def _row_of(self, array: Array, number: int) -> Array:
        """A view of the rows of one call."""
        return array[number, ...] if self._loop else array.view()

    def _shape_of(self, y: Array) -> Shape:
        """The shape of one job's y, from a bin's."""
        if y.shape[:1] != (self._n,):
            told = f"expected shape ({self._n}, …) for a bin of {self._n}, got {y.shape}"
            remedy = "write the function for n jobs at once, or register it with batch='loop'"
            msg = f"op {self._spec.name!r}: forward: {told}: {remedy}"
            raise ShapeError(msg)
        return y.shape[1:]

    def _repeats(self, number: int) -> bool:
        """Whether a job has the sources of the one before, to the bit; then it has its y."""
        if not number or any(x[number].tobytes() != x[number - 1].tobytes() for x in self._open()):
            return False
        y = self._whole_y()
        y[number] = y[number - 1]
        return True

    def _y(self) -> Array:
        y = self._whole_y()
        canonical(y)
        return y

    def _whole_y(self) -> Array:
        assert self._out is not None  # there was a forward
        return self._out

    def _beside(self) -> Sequence[Shape]:
        """The shapes of one job's arrays beside y."""
        return contents.beside(self._spec.gradient, self._shape or (), self._shapes)

    def _empty(self, shape: Shape, number: int = 0) -> Array:
        if self._place is None:
            return np.empty((self._n, *shape), self._dtype)
        self._places.append(place := self._place(number, (self._n, *shape)))
        return place.target

    def _empties(self, shapes: Sequence[Shape]) -> tuple[Array, ...]:
        return tuple([self._empty(shape, number) for number, shape in enumerate(shapes, 1)])

    def _take(self, number: int, saved: Sequence[Array], _: Array | None, into: tuple[Array, ...]) -> None:
        """Copy the Jacobians that a forward has saved, and checked."""
        for given, array in zip(saved, self._part(into, number), strict=True):
            array[...] = given

    def _pull(self, number: int, saved: Any, cotangent: Array | None, grads: tuple[Array, ...]) -> None:
        if cotangent is None:
            shape = self._whole_y().shape
            part = _ones(shape[1:] if self._loop else shape, self._dtype).view()
        else:
            part = self._row_of(cotangent, number)
        into = self._part(grads, number)
        given = self._spec.vjp(saved, part, (True,) * len(into), **self._params)
        if len(given) != len(into):
            msg = f"op {self._spec.name!r}: vjp: expected {len(into)} gradients, got {len(given)}"
            raise ShapeError(msg)
        grad: Any
        for slot, (grad, target) in enumerate(zip(given, into, strict=True)):
            if self._spec.kind == "elementwise" and target.shape != part.shape:
                self._check(grad, part.shape, "vjp", slot)
                grad = sum_back(grad[None], target.shape)[0] if self._loop else sum_back(grad, target.shape[1:])
            self._check(grad, target.shape, "vjp", slot)
            target[...] = grad

    def _check(self, array: Any, shape: Shape, where: str, slot: int | None = None) -> None:
        if type(array) is np.ndarray and array.shape == shape and array.dtype == self._dtype:
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
        if is_masked(array):
            msg = f"op {self._spec.name!r}: {where}: a masked array is refused: return its filled(…) values"
            raise DtypeError(msg)

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
        view.setflags(write=False)
        return view


def alone(
    spec: OpSpec, params: dict[str, Any], sources: Sequence[Array], shape: Shape | None
) -> tuple[Array, ...] | None:
    """Return what `Session.run` gives of one job, or None where a session has to: where anything is to be lined up,
    called job by job, or said of what an op gave.

    Parameters
    ----------
    sources : sequence of ndarray
        C-contiguous, of one dtype, without an axis of jobs.
    shape : tuple of int or None
        y's.
    """
    if shape is None or spec.user or spec.batch == "loop" or spec.gradient != "vjp":
        return None
    xs = []
    for source in sources:
        if spec.kind == "elementwise" and source.shape != shape:
            return None
        x = source[None]
        x.setflags(write=False)
        xs.append(x)
    dtype = xs[0].dtype
    target, result = place((1, *shape), dtype)
    y, saved = spec.forward(tuple(xs), target, **params)
    grads = spec.vjp(saved, _ones(target.shape, dtype).view(), (True,) * len(xs), **params)
    if y is not target:
        if not _is_like(y, target):
            return None
        target[...] = y
    canonical(target)
    results = [result]
    for x, grad in zip(xs, grads, strict=True):
        if not _is_like(grad, x):
            return None
        if grad.nbytes < LEAST_BYTES:
            target = result = grad.copy()  # C-contiguous
        else:
            target, result = place(grad.shape, dtype)
            target[...] = grad
        canonical(target)
        results.append(result)
    return tuple(results)


def _is_like(array: Any, other: Array) -> TypeGuard[Array]:
    return type(array) is np.ndarray and array.shape == other.shape and array.dtype is other.dtype


_ONE = {dtype: np.ones((), dtype).tobytes() for dtype in FLOATS}


@lru_cache(maxsize=256)
def _ones(shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Return ones of a shape: one number in memory, read-only, with no stride."""
    return np.ndarray(shape, dtype, buffer=_ONE[dtype], strides=(0,) * len(shape))
