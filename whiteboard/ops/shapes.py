"""Shape rules: what shape y has for given source shapes, and errors that name op, slot, expected and got."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from operator import index
from typing import Any, TypeAlias

from whiteboard.errors import ParamError, ShapeError
from whiteboard.types import Params, Shape, shown

ShapeRule: TypeAlias = Callable[[str, tuple[Shape, ...], Params], Shape]


def wrong_shape(op: str, slot: int, expected: object, got: object) -> ShapeError:
    """Return the `ShapeError` of one source slot."""
    return ShapeError(f"op {op!r}: source {slot}: expected {expected}, got {got}")


def wrong_param(op: str, name: str, expected: object, got: object) -> ParamError:
    """Return the `ParamError` of one parameter's value."""
    return ParamError(f"op {op!r}: parameter {name!r}: expected {expected}, got {shown(got)!r}")


def counted(
    arity: int | None, rule: Callable[[str, tuple[Shape, ...], Params], Shape | None]
) -> Callable[[str, tuple[Shape, ...], Params], Shape | None]:
    """Return `rule` behind a check of the number of sources."""

    def shape(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape | None:
        if arity is None and not shapes:
            msg = f"op {op!r}: expected 1 source or more, got 0"
            raise ShapeError(msg)
        if arity is not None and len(shapes) != arity:
            msg = f"op {op!r}: expected {arity} source{'s' * (arity != 1)}, got {len(shapes)}"
            raise ShapeError(msg)
        return rule(op, shapes, params)

    return shape


def broadcast(op: str, shapes: tuple[Shape, ...], _params: Params) -> Shape:
    """Return the shape that NumPy broadcasts `shapes` to."""
    result: list[int] = []  # in reverse, as broadcasting lines up the last axes
    for slot, shape in enumerate(shapes):
        for axis, size in enumerate(reversed(shape)):
            if axis == len(result):
                result.append(size)
            elif result[axis] == 1:
                result[axis] = size
            elif size not in (1, result[axis]):
                raise wrong_shape(op, slot, f"a shape that broadcasts with {tuple(reversed(result))}", shape)
    return tuple(reversed(result))


def scalar(_op: str, _shapes: tuple[Shape, ...], _params: Params) -> Shape:
    """Return ()."""
    return ()


def unknown(_op: str, _shapes: tuple[Shape, ...], _params: Params) -> None:
    """Return None: what y's shape is only a run of the op tells."""


def same_vectors(op: str, shapes: tuple[Shape, ...], _params: Params) -> Shape:
    """Return () for sources that are vectors of one length."""
    first = shapes[0]
    if len(first) != 1:
        raise wrong_shape(op, 0, "a vector (d,)", first)
    for slot, shape in enumerate(shapes[1:], start=1):
        if shape != first:
            raise wrong_shape(op, slot, f"the shape of source 0, {first}", shape)
    return ()


def axis_of(op: str, axis: Any, ndim: int, *, name: str = "axis") -> int:
    """Return `axis` counted from the front, or raise `ParamError`."""
    try:
        place = index(axis)
    except TypeError:
        raise wrong_param(op, name, "an integer", axis) from None
    if not -ndim <= place < ndim:
        raise wrong_param(op, name, f"an axis of {ndim} dimensions", axis)
    return place % ndim


def axes_of(op: str, axis: Any, ndim: int, *, name: str = "axis") -> tuple[int, ...]:
    """Return the axes that `axis` (None for all, an integer or a sequence) names, in rising order."""
    if axis is None:
        return tuple(range(ndim))
    given = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    axes = sorted(axis_of(op, one, ndim, name=name) for one in given)
    if len(set(axes)) != len(axes):
        raise wrong_param(op, name, "distinct axes", axis)
    return tuple(axes)


def reduced(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    """Return the shape left when `axis` is reduced, with ones in its place where `keepdims` is true."""
    (shape,) = shapes
    gone = axes_of(op, params["axis"], len(shape))
    if params["keepdims"]:
        return tuple(1 if axis in gone else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in gone)


def reduced_nonempty(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    """Return what `reduced` does, and refuse a reduction over no elements, which has no value."""
    (shape,) = shapes
    gone = axes_of(op, params["axis"], len(shape))
    if prod(shape[axis] for axis in gone) == 0:
        raise wrong_shape(op, 0, "at least one element along the reduced axes", shape)
    return reduced(op, shapes, params)


def along_axis(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    """Return the source's own shape, for an op that works along its `axis`."""
    (shape,) = shapes
    axis_of(op, params["axis"], len(shape))
    return shape
