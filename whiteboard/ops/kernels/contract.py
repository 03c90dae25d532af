"""Contractions by NumPy's own einsum loops: no BLAS, whose bits follow its threads, and no bin in the bits.

Einsum is not called for empty sums. Where one operand of no elements has a stride of 0 and another does not, its inner
loop multiplies what lies behind the operand's memory by 0 (NumPy 2.4.6, `contig_stride0_outstride0_two`): NaN, if that
happens to be a NaN or an infinity.
"""

from __future__ import annotations

from math import prod

import numpy as np

from whiteboard.types import Array

WHOLE = 4096
"""Jobs of more index combinations than this are contracted one by one.

Einsum hands its inner loop up to a buffer of elements (8,192) at a time, and may cut a longer row at another place in
a bin than alone: it then adds in another order (seen at 9,000 elements with NumPy 2.4). A job this big does not notice
the cost of its own call.
"""


def contract(subscripts: str, *operands: Array, out: Array | None = None) -> Array:
    """Return ``einsum(subscripts, a, b)`` of each of n jobs, with the same bits in any bin.

    For products of two operands that sum over one index: there the order of additions does not depend on the job
    axis (`tests/ops/kernels/test_contract.py` tries all). With several summed indices it can: einsum sorts its
    loops by the strides, and a bin of one has one loop fewer. Those take `contract_each`.

    Parameters
    ----------
    subscripts : str
        Of one job, with ``->`` and without spaces or an ellipsis; not the letter n.
    *operands : ndarray, each (n, …)
        C-contiguous.
    out : ndarray, optional
    """
    inputs, _, result = subscripts.partition("->")
    terms = inputs.split(",")
    combinations = prod(_sizes(terms, operands).values())
    if not 0 < combinations <= WHOLE:
        return contract_each(subscripts, *operands, out=out)
    batched = ",".join("n" + term for term in terms) + "->n" + result
    return np.einsum(batched, *operands, out=out)


def contract_each(subscripts: str, *operands: Array, out: Array | None = None) -> Array:
    """Return ``einsum(subscripts, *operands)`` of each of n jobs, one by one; the parameters are `contract`'s."""
    inputs, _, result = subscripts.partition("->")
    sizes = _sizes(inputs.split(","), operands)
    if out is None:
        out = np.empty((len(operands[0]), *(sizes[key] for key in result)), operands[0].dtype)
    if 0 in sizes.values():
        out[...] = 0
        return out
    for job in range(len(out)):
        np.einsum(subscripts, *(x[job] for x in operands), out=out[job, ...])
    return out


def _sizes(terms: list[str], operands: tuple[Array, ...]) -> dict[str, int]:
    return {key: n for term, x in zip(terms, operands, strict=True) for key, n in zip(term, x.shape[1:], strict=True)}
