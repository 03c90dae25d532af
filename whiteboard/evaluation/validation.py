"""Packages that come from elsewhere: whether they have the shapes and dtypes that their op gives for these sources."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from whiteboard.errors import DtypeError, ShapeError
from whiteboard.evaluation import contents
from whiteboard.evaluation.canonical import canonical
from whiteboard.evaluation.sources import Sources
from whiteboard.ops.spec import OpSpec
from whiteboard.records.packages import Page
from whiteboard.types import Array, Ids, Params, Shape


def shape(spec: OpSpec, params: Params, sources: Sources) -> Shape | None:
    """Return y's shape of one job, or None where only a run of the op tells.

    Raises
    ------
    ShapeError
        The op does not take so many sources, or sources of these shapes.
    """
    return shape_of(spec, params, sources.shapes)


def shape_of(spec: OpSpec, params: Params, shapes: tuple[Shape, ...]) -> Shape | None:
    """The same of sources of these shapes."""
    if spec.arity not in (None, len(shapes)):
        msg = f"op {spec.name!r}: expected {spec.arity} sources, got {len(shapes)}"
        raise ShapeError(msg)
    return spec.shape(spec.name, shapes, params)


def check(spec: OpSpec, params: Params, sources: Sources, y: Array, grads: Sequence[Array]) -> Shape:
    """Return y's shape of one job, once y and the gradients, stacked on axis 0, have the shapes and dtype they must.

    Raises
    ------
    ShapeError, DtypeError
        The message names op, array, expected and got.
    """
    told = shape(spec, params, sources)
    one = y.shape[1:] if told is None else told
    beside = contents.beside(spec.gradient, one, sources.shapes)
    if len(grads) != len(beside):
        msg = f"op {spec.name!r}: expected one gradient for each of {len(beside)} sources, got {len(grads)}"
        raise ShapeError(msg)
    columns = [("y", y, one), *((f"grads[{i}]", g, s) for i, (g, s) in enumerate(zip(grads, beside, strict=True)))]
    for name, column, wanted in columns:
        if column.shape != (sources.n, *wanted):
            msg = f"op {spec.name!r}, {name}: expected shape {wanted}, got {column.shape[1:]}"
            raise ShapeError(msg)
        if column.dtype != sources.dtype:
            msg = f"op {spec.name!r}, {name}: expected dtype {sources.dtype} as the sources', got {column.dtype}"
            raise DtypeError(msg)
    return one


def one_shape(spec: OpSpec, pages: Sequence[Page], page: Ids) -> Shape:
    """Return y's shape of one job, as the packages of all n jobs have it; () where there are none.

    Parameters
    ----------
    pages : sequence of Page
    page : ndarray of int64, shape (n,)
        In which of them each job's package lies; -1 for a job without one.

    Raises
    ------
    ShapeError
        A function whose y has another shape for other values cannot be asked for several jobs at once.
    """
    if not (there := np.flatnonzero(page >= 0)).size:
        return ()
    shapes = [each.arrays["y"].shape[1:] for each in pages]
    first: Shape = shapes[page[there[0]]]
    odd = [number for number, each in enumerate(shapes) if each != first]
    if odd and (jobs := np.flatnonzero(np.isin(page, odd))).size:
        got = shapes[page[jobs[0]]]
        msg = f"op {spec.name!r}, y: expected shape {first} as of job {there[0]}, got {got} of job {jobs[0]}"
        raise ShapeError(msg)
    return first


def owned(column: Array, rows: Ids) -> Array:
    """Return some rows of a column in memory of their own, every NaN the one that a session gives."""
    taken = np.array(column[rows], order="C")
    canonical(taken)
    return taken
