"""Ops that move elements and change none: reshape, transpose, broadcast_to, concat, stack.

Axes are those of one job.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from operator import index
from typing import Any, TypeAlias

import numpy as np

from whiteboard.ops.kernels.rows import sum_back
from whiteboard.ops.registry import builtin
from whiteboard.ops.shapes import axis_of, wrong_param, wrong_shape
from whiteboard.ops.spec import REQUIRED, Example
from whiteboard.types import Array, Params, Shape

Need: TypeAlias = tuple[bool, ...]
Grads: TypeAlias = tuple[Array | None, ...]


def _sizes(op: str, given: Any) -> Shape:
    """Return the parameter `shape` as a tuple of integers."""
    try:
        return tuple(index(size) for size in (given if isinstance(given, Sequence | np.ndarray) else (given,)))
    except TypeError:
        raise wrong_param(op, "shape", "integers", given) from None


# -- reshape, transpose, broadcast_to


def _reshaped(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    (old,), new = shapes, _sizes(op, params["shape"])
    known = prod(size for size in new if size != -1)
    if new.count(-1) == 1 and known:
        new = tuple(prod(old) // known if size == -1 else size for size in new)
    if min(new, default=0) < 0 or prod(new) != prod(old):
        raise wrong_param(op, "shape", f"a shape for {prod(old)} elements", params["shape"])
    return new


def _reshape_vjp(saved: Shape, cotangent: Array, need: Need, /, shape: Any) -> Grads:
    return (cotangent.reshape(saved) if need[0] else None,)


@builtin(
    "reshape",
    arity=1,
    kind="general",
    exactness="portable",
    vjp=_reshape_vjp,
    shape=_reshaped,
    examples=(
        Example(((2, 3),), {"shape": (3, 2)}),
        Example(((2, 3),), {"shape": -1}),
        Example(((4,),), {"shape": (2, -1, 1)}),
        Example(((1,),), {"shape": ()}),
        Example(((0, 2),), {"shape": (2, 0, 3)}),
    ),
    params={"shape": REQUIRED},
    doc="the elements in C order, in another shape; one size may be -1",
)
def _reshape(xs: tuple[Array, ...], out: Array | None, /, shape: Any) -> tuple[Array, Shape]:
    (x,) = xs
    return x.reshape(len(x), *_reshaped("reshape", (x.shape[1:],), {"shape": shape})), x.shape


def _order(op: str, axes: Any, ndim: int) -> tuple[int, ...]:
    if axes is None:
        return tuple(reversed(range(ndim)))
    order = tuple(axis_of(op, axis, ndim, name="axes") for axis in axes)
    if sorted(order) != list(range(ndim)):
        raise wrong_param(op, "axes", f"each of {ndim} axes once", axes)
    return order


def _transposed(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    (shape,) = shapes
    return tuple(shape[axis] for axis in _order(op, params["axes"], len(shape)))


def _transpose_vjp(saved: tuple[int, ...], cotangent: Array, need: Need, /, axes: Any) -> Grads:
    back = sorted(range(len(saved)), key=saved.__getitem__)
    return (cotangent.transpose(0, *(axis + 1 for axis in back)) if need[0] else None,)


@builtin(
    "transpose",
    arity=1,
    kind="general",
    exactness="portable",
    vjp=_transpose_vjp,
    shape=_transposed,
    examples=(
        Example(((2, 3),)),
        Example(((2, 3, 4),), {"axes": (1, 2, 0)}),
        Example(((2, 3),), {"axes": (0, -1)}),
        Example(((),)),
        Example(((3, 0),)),
    ),
    params={"axes": None},
    doc="the axes in another order, by default reversed",
)
def _transpose(xs: tuple[Array, ...], out: Array | None, /, axes: Any) -> tuple[Array, tuple[int, ...]]:
    (x,) = xs
    order = _order("transpose", axes, x.ndim - 1)
    return x.transpose(0, *(axis + 1 for axis in order)), order


def _broadcast_shape(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    (old,), new = shapes, _sizes(op, params["shape"])
    tail = new[len(new) - len(old) :]
    if len(old) > len(new) or any(was not in (1, now) for was, now in zip(old, tail, strict=True)):
        raise wrong_shape(op, 0, f"a shape that broadcasts to {new}", old)
    return new


def _broadcast_vjp(saved: Shape, cotangent: Array, need: Need, /, shape: Any) -> Grads:
    return (sum_back(cotangent, saved) if need[0] else None,)


@builtin(
    "broadcast_to",
    arity=1,
    kind="general",
    exactness="portable",
    vjp=_broadcast_vjp,
    shape=_broadcast_shape,
    examples=(
        Example(((3,),), {"shape": (2, 3)}),
        Example(((2, 1),), {"shape": (4, 2, 3)}),
        Example(((),), {"shape": (3,)}),
        Example(((3,),), {"shape": 3}),
        Example(((1,),), {"shape": (2, 0)}),
    ),
    params={"shape": REQUIRED},
    doc="the source repeated to a larger shape",
)
def _broadcast_to(xs: tuple[Array, ...], out: Array | None, /, shape: Any) -> tuple[Array, Shape]:
    (x,) = xs
    new = _sizes("broadcast_to", shape)
    lined_up = x.reshape(len(x), *(1,) * (len(new) - x.ndim + 1), *x.shape[1:])
    return np.broadcast_to(lined_up, (len(x), *new)), x.shape[1:]


# -- concat, stack


def _concatenated(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    first = shapes[0]
    axis = axis_of(op, params["axis"], len(first))
    for slot, shape in enumerate(shapes[1:], start=1):
        if len(shape) != len(first) or any(i != axis and s != first[i] for i, s in enumerate(shape)):
            raise wrong_shape(op, slot, f"the shape of source 0, {first}, but along axis {axis}", shape)
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def _concat_vjp(saved: tuple[int, list[int]], cotangent: Array, need: Need, /, axis: int) -> Grads:
    place, sizes = saved
    parts = np.split(cotangent, np.cumsum(sizes[:-1], dtype=np.intp), axis=place)
    return tuple(part if wanted else None for part, wanted in zip(parts, need, strict=True))


@builtin(
    "concat",
    arity=None,
    kind="general",
    exactness="portable",
    vjp=_concat_vjp,
    shape=_concatenated,
    examples=(
        Example(((2,), (3,))),
        Example(((2, 3), (2, 1), (2, 2)), {"axis": -1}),
        Example(((2, 3),)),
        Example(((0, 2), (3, 2), (0, 2))),
    ),
    params={"axis": 0},
    doc="the sources one after another along an axis",
)
def _concat(xs: tuple[Array, ...], out: Array | None, /, axis: int) -> tuple[Array, tuple[int, list[int]]]:
    place = 1 + axis_of("concat", axis, xs[0].ndim - 1)
    return np.concatenate(xs, axis=place, out=out), (place, [x.shape[place] for x in xs])


def _stacked(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    first = shapes[0]
    for slot, shape in enumerate(shapes[1:], start=1):
        if shape != first:
            raise wrong_shape(op, slot, f"the shape of source 0, {first}", shape)
    axis = axis_of(op, params["axis"], len(first) + 1)
    return (*first[:axis], len(shapes), *first[axis:])


def _stack_vjp(saved: int, cotangent: Array, need: Need, /, axis: int) -> Grads:
    parts = np.moveaxis(cotangent, saved, 0)
    return tuple(part if wanted else None for part, wanted in zip(parts, need, strict=True))


@builtin(
    "stack",
    arity=None,
    kind="general",
    exactness="portable",
    vjp=_stack_vjp,
    shape=_stacked,
    examples=(
        Example(((3,), (3,))),
        Example(((2, 3), (2, 3), (2, 3)), {"axis": -1}),
        Example(((), ()), {"axis": 0}),
        Example(((0,), (0,)), {"axis": 1}),
        Example(((3,),)),
    ),
    params={"axis": 0},
    doc="the sources side by side along a new axis",
)
def _stack(xs: tuple[Array, ...], out: Array | None, /, axis: int) -> tuple[Array, int]:
    place = 1 + axis_of("stack", axis, xs[0].ndim)
    return np.stack(xs, axis=place, out=out), place
