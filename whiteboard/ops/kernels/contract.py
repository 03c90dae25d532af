"""Contractions by IEEE's basic operations in one order: the same bits in any bin and on every machine.

The products are made, and then summed by `numpy.add.reduce`: along rows that lie side by side, pairwise; else row upon
row. The order follows from a job's shape alone. BLAS adds in the order of its threads and its processor; einsum's own
loops in that of the processor's vectors, and they multiply and add in one rounding where it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from whiteboard.types import Array

BLOCK = 2**15
"""So many products are made at a time: 256 KB of float64, so that they are summed while the processor has them."""


def contract(subscripts: str, *operands: Array, out: Array | None = None) -> Array:
    """Return ``einsum(subscripts, *operands)`` of each of n jobs, with all products made as einsum does by default.

    Parameters
    ----------
    subscripts : str
        Of one job, with ``->`` and without spaces or an ellipsis.
    *operands : ndarray, each (n, …)
        Multiplied from the first one on.
    out : ndarray, optional
    """
    inputs, _, result = subscripts.partition("->")
    terms = inputs.split(",")
    sizes = {key: n for term, x in zip(terms, operands, strict=True) for key, n in zip(term, x.shape[1:], strict=True)}
    summed = "".join(dict.fromkeys(key for key in inputs if key in sizes and key not in result))
    if out is None:
        out = np.empty((len(operands[0]), *(sizes[key] for key in result)), operands[0].dtype)
    upon = len(summed) == 1 and bool(result) and any(summed in term[:-1] for term in terms)
    order = result[:-1] + summed + result[-1] if upon else result + summed
    columns = [_lined_up(x, term, order) for x, term in zip(operands, terms, strict=True)]
    if summed:
        _sum_products(columns, prod(sizes[key] for key in summed), out, -2 if upon else -1)
    else:
        _multiply(columns, out)
    return out


def _lined_up(x: Array, term: str, order: str) -> Array:
    """Return a view of an operand with its axes in the order (n, *order), 1 where it has not the letter."""
    for at in reversed(range(len(term))):
        if (first := term.index(term[at])) < at:  # a letter that comes twice: the diagonal
            x = np.moveaxis(x.diagonal(axis1=1 + first, axis2=1 + at), -1, 1 + first)
            term = term[:at] + term[at + 1 :]
    turned = x.transpose(0, *(1 + term.index(key) for key in order if key in term))
    return turned[(slice(None), *(slice(None) if key in term else None for key in order))]


def _multiply(columns: Sequence[Array], out: Array) -> None:
    if len(columns) == 1:
        np.copyto(out, columns[0])
        return
    np.multiply(columns[0], columns[1], out=out)
    for each in columns[2:]:
        np.multiply(out, each, out=out)


def _sum_products(columns: Sequence[Array], width: int, out: Array, axis: int) -> None:
    """Sum the products of columns into `out`, block by block.

    Parameters
    ----------
    columns : sequence of ndarray
        They broadcast to the products, (n, *result, *summed), or with the summed axis before the last one.
    width : int
        Number of products that are one element of `out`.
    out : ndarray
    axis : {-1, -2}
        Where the summed axis is; behind -1 there may be more, which count as one.
    """
    size = out.size * width
    split = next((at for at, n in enumerate(out.shape) if n > 1), None)
    if size <= BLOCK or split is None:
        products = np.empty(np.broadcast_shapes(*(x.shape for x in columns)), out.dtype)
        _multiply(columns, products)
        np.add.reduce(products.reshape(*out.shape, width) if axis == -1 else products, axis=axis, out=out)
        return
    at = split + (axis == -2 and split == out.ndim - 1)  # behind the summed axis
    step = max(1, out.shape[split] * BLOCK // size)
    for start in range(0, out.shape[split], step):
        part = slice(start, start + step)
        some = [x[(slice(None),) * at + (part,)] if x.shape[at] > 1 else x for x in columns]
        _sum_products(some, width, out[(slice(None),) * split + (part,)], axis)
