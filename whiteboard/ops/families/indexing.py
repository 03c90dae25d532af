"""Ops that pick elements by constant indices, and put them back: take, gather, scatter."""

from __future__ import annotations

from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from whiteboard.ops.registry import builtin
from whiteboard.ops.shapes import axis_of, wrong_param
from whiteboard.ops.spec import REQUIRED, Example
from whiteboard.types import Array, Params, Shape

Need: TypeAlias = tuple[bool, ...]
Grads: TypeAlias = tuple[Array | None, ...]
Positions: TypeAlias = NDArray[np.intp]

MANY_ROUNDS = 32
"""Repeats of one index from which `add_at` goes element by element."""


def positions(op: str, indices: Any, size: int) -> Positions:
    """Return `indices`, or those of a slice, counted from the front of an axis of `size`.

    Raises
    ------
    ParamError
        For what is no array of integers, or out of range.
    """
    try:
        given = np.arange(size)[indices] if isinstance(indices, slice) else np.asarray(indices)
    except ValueError:
        raise wrong_param(op, "indices", "an array of integers", indices) from None
    if given.dtype.kind not in "iu" and given.size:
        raise wrong_param(op, "indices", "an array of integers", indices)
    places = given.astype(np.intp)
    if places.size and not (-size <= places.min() and places.max() < size):
        raise wrong_param(op, "indices", f"indices of an axis of {size}", indices)
    return np.where(places < 0, places + size, places)


def add_at(values: Array, places: Positions, size: int) -> Array:
    """Return zeros (a, size, b) to which values (a, k, b) are added at `places` (k,), in the order of k.

    Each round adds, at once, all the values whose index has come up equally often before. So every element is summed
    in the order of k, as `np.add.at` does it, at the speed of whole rows.
    """
    total = np.zeros((len(values), size, values.shape[-1]), values.dtype)
    order = np.argsort(places, kind="stable")
    runs = places[order]
    firsts = np.searchsorted(runs, runs)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - firsts
    rounds = int(rank.max(initial=-1)) + 1
    if rounds > MANY_ROUNDS:
        everywhere: Any = (slice(None), places)
        np.add.at(total, everywhere, values)
        return total
    for number in range(rounds):
        now = np.flatnonzero(rank == number)
        total[:, places[now]] += values[:, now]
    return total


def _split(x: Array, axis: int) -> Array:
    """Return (n, *shape) as (a, k, b), k being the job's `axis`."""
    return x.reshape(prod(x.shape[: axis + 1]), x.shape[axis + 1], prod(x.shape[axis + 2 :]))


# -- take


def _take_shape(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    (shape,) = shapes
    axis = axis_of(op, params["axis"], len(shape))
    return (*shape[:axis], *positions(op, params["indices"], shape[axis]).shape, *shape[axis + 1 :])


def _take_vjp(saved: tuple[Shape, int, Positions], cotangent: Array, need: Need, /, indices: Any, axis: int) -> Grads:
    shape, place, places = saved
    if not need[0]:
        return (None,)
    rows = cotangent.reshape(prod(shape[: place + 1]), places.size, prod(shape[place + 2 :]))
    return (add_at(rows, places.ravel(), shape[place + 1]).reshape(shape),)


@builtin(
    "take",
    arity=1,
    kind="general",
    exactness="portable",
    vjp=_take_vjp,
    shape=_take_shape,
    examples=(
        Example(((4,),), {"indices": (3, 0, 3, -1)}),
        Example(((2, 3),), {"indices": ((0, 2), (1, 1)), "axis": 1}),
        Example(((3, 2),), {"indices": 1}),
        Example(((3, 2),), {"indices": (), "axis": -1}),
        Example(((2, 0),), {"indices": (1, 1, 0)}),
        Example(((2,),), {"indices": (0,) * 40 + (1,)}),
    ),
    params={"indices": REQUIRED, "axis": 0},
    doc="the elements at `indices` along an axis",
)
def _take(
    xs: tuple[Array, ...], out: Array | None, /, indices: Any, axis: int
) -> tuple[Array, tuple[Shape, int, Positions]]:
    (x,) = xs
    place = axis_of("take", axis, x.ndim - 1)
    places = positions("take", indices, x.shape[place + 1])
    return np.take(x, places, axis=place + 1), (x.shape, place, places)


# -- gather


def _flat(op: str, indices: Any, axis: Any, shape: Shape) -> Positions:
    """Return, for each of `indices`, the place in the raveled source of what it picks along `axis`."""
    place = axis_of(op, axis, len(shape))
    places = positions(op, indices, shape[place])
    fits = places.ndim == len(shape) and all(i == place or s == shape[i] for i, s in enumerate(places.shape))
    if not fits:
        raise wrong_param(op, "indices", f"the source's shape {shape}, but along axis {place}", places.shape)
    grid = [np.arange(size).reshape(-1, *(1,) * (len(shape) - 1 - i)) for i, size in enumerate(places.shape)]
    grid[place] = places
    strides = [prod(shape[i + 1 :]) for i in range(len(shape))]
    return sum((at * stride for at, stride in zip(grid, strides, strict=True)), np.zeros(places.shape, np.intp))


def _gather_shape(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    return _flat(op, params["indices"], params["axis"], shapes[0]).shape


def _gather_vjp(saved: tuple[Shape, Positions], cotangent: Array, need: Need, /, indices: Any, axis: int) -> Grads:
    shape, places = saved
    if not need[0]:
        return (None,)
    rows = cotangent.reshape(shape[0], places.size, 1)
    return (add_at(rows, places.ravel(), prod(shape[1:])).reshape(shape),)


@builtin(
    "gather",
    arity=1,
    kind="general",
    exactness="portable",
    vjp=_gather_vjp,
    shape=_gather_shape,
    examples=(
        Example(((4,),), {"indices": (3, 0, 3, -1)}),
        Example(((2, 3),), {"indices": ((0, 2), (1, 1)), "axis": 1}),
        Example(((2, 3),), {"indices": ((0, 1, 0), (0, 0, 0), (1, 1, -1))}),
        Example(((3, 2),), {"indices": ((), (), ()), "axis": 1}),
    ),
    params={"indices": REQUIRED, "axis": 0},
    doc="along an axis, the elements at `indices`, which has y's shape (NumPy's take_along_axis)",
)
def _gather(
    xs: tuple[Array, ...], out: Array | None, /, indices: Any, axis: int
) -> tuple[Array, tuple[Shape, Positions]]:
    (x,) = xs
    places = _flat("gather", indices, axis, x.shape[1:])
    return x.reshape(len(x), prod(x.shape[1:]))[:, places], (x.shape, places)


# -- scatter


def _targets(op: str, indices: Any, size: Any, axis: Any, shape: Shape) -> tuple[int, Positions]:
    place = axis_of(op, axis, len(shape))
    if not isinstance(size, int | np.integer) or size < 0:
        raise wrong_param(op, "size", "an integer from 0", size)
    places = positions(op, indices, int(size))
    if places.shape != (shape[place],):
        raise wrong_param(op, "indices", f"{shape[place]} indices, as the source has along axis {place}", indices)
    return place, places


def _scatter_shape(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    (shape,) = shapes
    place, _ = _targets(op, params["indices"], params["size"], params["axis"], shape)
    return (*shape[:place], int(params["size"]), *shape[place + 1 :])


def _scatter_vjp(
    saved: tuple[int, Positions], cotangent: Array, need: Need, /, indices: Any, size: int, axis: int
) -> Grads:
    place, places = saved
    return (np.take(cotangent, places, axis=place + 1) if need[0] else None,)


@builtin(
    "scatter",
    arity=1,
    kind="general",
    exactness="portable",
    vjp=_scatter_vjp,
    shape=_scatter_shape,
    examples=(
        Example(((4,),), {"indices": (3, 0, 3, -1), "size": 5}),
        Example(((2, 3),), {"indices": (1, 1, 0), "size": 2, "axis": 1}),
        Example(((2, 3),), {"indices": (2, 0), "size": 4}),
        Example(((0, 2),), {"indices": (), "size": 3}),
        Example(((40,),), {"indices": (1,) * 40, "size": 2}),
    ),
    params={"indices": REQUIRED, "size": REQUIRED, "axis": 0},
    doc="zeros of `size` along an axis, with the source's elements added at `indices`: the transpose of take",
)
def _scatter(
    xs: tuple[Array, ...], out: Array | None, /, indices: Any, size: int, axis: int
) -> tuple[Array, tuple[int, Positions]]:
    (x,) = xs
    place, places = _targets("scatter", indices, size, axis, x.shape[1:])
    y = add_at(_split(x, place), places, int(size))
    return y.reshape(*x.shape[: place + 1], int(size), *x.shape[place + 2 :]), (place, places)
