"""Residuals: from targets and values to what drives the impulses, and to what a commit records."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import ShapeError
from whiteboard.evaluation.columns import plain
from whiteboard.systems.impulses import Measure
from whiteboard.systems.jobs import JobBatch
from whiteboard.types import Array


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """The residuals of n jobs: `values` (n, *y_shape) in y's dtype, `constant` (n,): all of a job's are equal."""

    values: Array
    constant: NDArray[np.bool_]

    @property
    def first(self) -> Array:
        """The first element of each job, (n,): the constant c of the constant ones."""
        flat = self.values.reshape(len(self.values), -1)
        return flat[:, 0] if flat.shape[1] else np.zeros(len(flat), flat.dtype)


def residual(batch: JobBatch, y: Array) -> tuple[Residual, Measure] | None:
    """Return the residuals of a batch and their measure, or None where it has neither residual nor target.

    Raises
    ------
    ShapeError
        Where residual or target does not fit y; the message names op, job, expected and got.
    """
    if batch.target is not None:
        target = _column(batch, "target", plain(batch.target, f"op {batch.op!r}: target"), y)
        values = y - target
        with np.errstate(divide="ignore", invalid="ignore"):
            stress = _squares(values / target) if np.all(target) else None
    elif batch.residual is not None:
        values, stress = _column(batch, "residual", plain(batch.residual, f"op {batch.op!r}: residual"), y), None
    else:
        return None
    return Residual(values, _constant(values)), Measure(stress, _squares(values))


def _squares(values: Array) -> NDArray[np.float64]:
    """Return the sum of squares of each job, (n,): a last-axis reduction, so the same bits in any batch."""
    with np.errstate(over="ignore"):  # an infinite stress is one
        squares = np.square(values, dtype=np.float64)
        return np.asarray(squares.reshape(len(values), math.prod(values.shape[1:])).sum(-1))


def _column(batch: JobBatch, name: str, given: Array, y: Array) -> Array:
    """Broadcast a scalar, one constant a job, or a full column to y's shape."""
    n = len(y)
    if y.ndim == 1 and given.shape == (n, 1):  # a list of one number, for a y that is one
        given = given.reshape(n)
    if given.ndim and given.shape not in ((n,), y.shape):
        msg = f"{batch.name(0)}: {name}: expected a scalar or shape {y.shape[1:]} for each job, got {given.shape[1:]}"
        raise ShapeError(msg)
    if given.shape == (n,):
        given = given.reshape(n, *(1,) * (y.ndim - 1))
    return np.broadcast_to(given.astype(y.dtype), y.shape)


def _constant(values: Array) -> NDArray[np.bool_]:
    """Return where all elements of a job's residual have the same bytes."""
    n, size = len(values), math.prod(values.shape[1:])
    if size <= 1:
        return np.ones(n, np.bool_)
    bits = np.ascontiguousarray(values).reshape(n, size).view(f"u{values.itemsize}")
    return np.asarray((bits == bits[:, :1]).all(axis=1))
