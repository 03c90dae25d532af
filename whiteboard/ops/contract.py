"""Contractions by NumPy's own einsum loops: no BLAS, whose bits follow its threads, and no bin in the bits."""

from __future__ import annotations

from math import prod

import numpy as np

from whiteboard.types import Array

WHOLE = 4096
"""Jobs of more index combinations than this are contracted one by one.

Einsum hands its inner loop up to a buffer of elements (8,192) at a time and may cut a longer row at another place in
a bin than alone; it then adds in another order (seen at 9,000 elements with NumPy 2.4). A job this big does not
notice the cost of its own call.
"""


def contract(subscripts: str, *operands: Array, out: Array | None = None) -> Array:
    """Return ``einsum(subscripts, *operands)`` of each of n jobs, with the same bits in any bin.

    Parameters
    ----------
    subscripts : str
        Of one job, with ``->`` and without spaces or an ellipsis.
    *operands : ndarray, each (n, …)
        In C order.
    out : ndarray, optional
    """
    inputs, _, result = subscripts.partition("->")
    terms = inputs.split(",")
    sizes = {
        key: size for term, x in zip(terms, operands, strict=True) for key, size in zip(term, x.shape[1:], strict=True)
    }
    n = len(operands[0])
    if prod(sizes.values()) <= WHOLE:
        job = next(letter for letter in "nNzZ" if letter not in sizes) if len(sizes) < 52 else ""
        if job:
            batched = ",".join(job + term for term in terms) + f"->{job}{result}"
            return np.einsum(batched, *operands, out=out)
    if out is None:
        out = np.empty((n, *(sizes[key] for key in result)), operands[0].dtype)
    for i in range(n):
        np.einsum(subscripts, *(x[i] for x in operands), out=out[i, ...])
    return out
