"""An op with its parameters as a function: what an optimizer calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from whiteboard.errors import ParamError, ShapeError
from whiteboard.evaluation.pipeline import Pipeline
from whiteboard.evaluation.progress import Reporter, shown
from whiteboard.evaluation.single import One
from whiteboard.evaluation.sources import ArraySources, one_job
from whiteboard.ops.spec import OpSpec
from whiteboard.types import Array, Params

Number: TypeAlias = Any
"""A Python float where y is a scalar, else an array: which it is, only the op knows."""

Gradient: TypeAlias = Any
"""One array where the op has one source, else a tuple of one a source: which it is, only the op knows."""


class Bound:
    """An op with its parameters: ``f(x)`` is y, from the cache or by computing.

    Made by `Board.bind`. What comes back is the caller's own, to be written to. Killed and started again, whatever
    calls it gets what was computed before, to the bit.

    Attributes
    ----------
    op : str
        Its name.
    params : mapping
        The parameters that are bound.
    """

    def __init__(self, pipeline: Callable[[], Pipeline], spec: Callable[[], OpSpec], op: str, params: Params) -> None:
        self._pipeline, self._spec = pipeline, spec
        self.op, self.params = op, params
        self.__name__ = op

    def __reduce__(self) -> NoReturn:
        msg = f"{self!r} cannot be pickled: open the store and bind the op in each process"
        raise ParamError(msg)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __call__(self, *sources: ArrayLike) -> Number:
        """Return y: a float where it is a scalar."""
        return _own(self._one(sources)[0])

    def value_and_grad(self, *sources: ArrayLike) -> tuple[float, Gradient]:
        """Return y, a scalar, and its gradient: for ``scipy.optimize.minimize(f.value_and_grad, x0, jac=True)``.

        Raises
        ------
        ShapeError
            y is no scalar.
        ParamError
            The op has no gradient.
        """
        y, grads, _ = self._one(sources)
        if y.ndim:
            msg = f"op {self.op!r}: expected a scalar y to take the gradient of, got shape {y.shape}; jacobian"
            raise ShapeError(msg + " takes any")
        if not grads:
            msg = f"op {self.op!r} has no gradient: it is registered with gradient='none'"
            raise ParamError(msg)
        return float(y), _each(grads)

    def grad(self, *sources: ArrayLike) -> Gradient:
        """Return the gradient of y, a scalar; otherwise as `value_and_grad`."""
        return self.value_and_grad(*sources)[1]

    def jacobian(self, *sources: ArrayLike) -> Gradient:
        """Return ∂y/∂xᵢ, (*y_shape, *shape of source i)."""
        done = self._pipeline().jacobian(self._spec(), self.params, one_job(self.op, sources))
        return _each([grad[0] for grad in done.grads])

    def many(self, *sources: ArrayLike, progress: bool | Reporter = False) -> Array:
        """Return y of n jobs, (n, *y_shape), whose sources are stacked on axis 0.

        Parameters
        ----------
        progress : bool or callable
            As of `Board.call_many`.
        """
        columns = ArraySources(self.op, sources)
        with shown(progress, self.op) as report:
            return np.array(self._pipeline().evaluate(self._spec(), self.params, columns, report=report).y)

    def __repr__(self) -> str:
        given = "".join(f", {name}={value!r}" for name, value in self.params.items())
        return f"<{self.op}{given}: an op of whiteboard, bound>"

    def _one(self, sources: tuple[ArrayLike, ...]) -> One:
        return self._pipeline().one(self._spec(), self.params, sources)


def _own(value: Array) -> Number:
    return np.array(value) if np.ndim(value) else float(value)


def _each(given: Sequence[Array]) -> Gradient:
    grads = tuple(np.array(grad) for grad in given)
    return grads[0] if len(grads) == 1 else grads
