"""Distances between two points: the ops of an embedding."""

from __future__ import annotations

import numpy as np

from whiteboard.ops.kernels.contract import contract
from whiteboard.ops.kernels.cotangents import pull_rows
from whiteboard.ops.kernels.lengths import mended, unit
from whiteboard.ops.registry import builtin
from whiteboard.ops.shapes import same_vectors
from whiteboard.ops.spec import Example
from whiteboard.types import Array

_EXAMPLES = tuple(Example(((d,), (d,))) for d in (2, 1, 3, 64, 0))


def _distance_vjp(
    saved: tuple[Array, Array], cotangent: Array, need: tuple[bool, ...], /
) -> tuple[Array | None, Array | None]:
    difference, length = saved
    grad = pull_rows(cotangent, unit(difference, length))
    return (grad if need[0] else None), (-grad if need[1] else None)


@builtin(
    "distance",
    arity=2,
    kind="scalar",
    exactness="portable",
    vjp=_distance_vjp,
    shape=same_vectors,
    examples=_EXAMPLES,
    subgradients="0 where the points coincide",
    doc="the Euclidean distance of two points (d,)",
)
def _distance(xs: tuple[Array, ...], out: Array | None, /) -> tuple[Array, tuple[Array, Array]]:
    a, b = xs
    difference = a - b
    length = mended(np.sqrt(contract("d,d->", difference, difference), out=out), difference)
    return length, (difference, length)


def _squared_vjp(saved: Array, cotangent: Array, need: tuple[bool, ...], /) -> tuple[Array | None, Array | None]:
    grad = saved * (2 * cotangent)[:, None]
    return (grad if need[0] else None), (-grad if need[1] else None)


@builtin(
    "squared_distance",
    arity=2,
    kind="scalar",
    exactness="portable",
    vjp=_squared_vjp,
    shape=same_vectors,
    examples=_EXAMPLES,
    doc="the squared Euclidean distance of two points (d,)",
)
def _squared_distance(xs: tuple[Array, ...], out: Array | None, /) -> tuple[Array, Array]:
    a, b = xs
    difference = a - b
    return contract("d,d->", difference, difference, out=out), difference
