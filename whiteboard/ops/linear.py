"""Products of vectors and matrices. The exact ones stay off BLAS; `matmul_gemm` and `linear_gemm` are opt-in GEMM.

OpenBLAS adds in another order with another number of threads (vecdot from 10,000 elements, matmul from 400² on two
threads), so an exact op contracts by `contract`, at about a quarter of the speed for matrices. A ``_gemm`` op is
declared `tolerance` and has a name of its own: its packages never mix with exact ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from whiteboard.ops.contract import contract
from whiteboard.ops.registry import builtin
from whiteboard.ops.shapes import same_vectors, wrong_shape
from whiteboard.ops.spec import Example
from whiteboard.types import Array, Params, Shape

Grads: TypeAlias = tuple[Array | None, ...]
Saved: TypeAlias = tuple[Array, ...]


def fitting(expected: str) -> Callable[[str, tuple[Shape, ...], Params], Shape]:
    """Return the shape rule that a signature such as ``"ij,j->i"`` says: equal letters, equal sizes."""
    inputs, _, result = expected.partition("->")
    terms = inputs.split(",")

    def shape(op: str, shapes: tuple[Shape, ...], _params: Params) -> Shape:
        sizes: dict[str, int] = {}
        for slot, (term, got) in enumerate(zip(terms, shapes, strict=True)):
            wanted = tuple(sizes.get(letter, letter) for letter in term)
            fits = len(got) == len(term)
            if not fits or any(isinstance(want, int) and want != size for want, size in zip(wanted, got, strict=True)):
                shown = f"({', '.join(map(str, wanted))}{',' * (len(wanted) == 1)})"
                raise wrong_shape(op, slot, f"shape {shown}", got)
            sizes.update(zip(term, got, strict=True))
        return tuple(sizes[letter] for letter in result)

    return shape


def _vecdot_vjp(saved: Saved, cotangent: Array, need: tuple[bool, ...], /) -> Grads:
    a, b = saved
    return tuple(cotangent[:, None] * x if wanted else None for x, wanted in zip((b, a), need, strict=True))


@builtin(
    "vecdot",
    arity=2,
    kind="scalar",
    vjp=_vecdot_vjp,
    shape=same_vectors,
    examples=tuple(Example(((d,), (d,))) for d in (3, 1, 64, 0)),
    doc="the inner product of two vectors (d,)",
)
def _vecdot(xs: tuple[Array, ...], out: Array | None, /) -> tuple[Array, Saved]:
    return contract("d,d->", *xs, out=out), xs


def product(name: str, signature: str, by: tuple[str, str], examples: tuple[Example, ...], doc: str) -> None:
    """Enter a product of two sources by its einsum signature, and those of its gradients.

    Parameters
    ----------
    name, doc : str
    signature : str
        Such as ``"ij,j->i"``.
    by : (str, str)
        For each source, the signature of (cotangent, other source) → gradient.
    """

    def vjp(saved: Saved, cotangent: Array, need: tuple[bool, ...], /) -> Grads:
        others = saved[::-1]
        cotangent = np.ascontiguousarray(cotangent)  # einsum adds a 0-stride operand's products in another order
        return tuple(
            contract(rule, cotangent, other) if wanted else None
            for rule, other, wanted in zip(by, others, need, strict=True)
        )

    @builtin(name, arity=2, kind="general", vjp=vjp, shape=fitting(signature), examples=examples, doc=doc)
    def forward(xs: tuple[Array, ...], out: Array | None, /) -> tuple[Array, Saved]:
        return contract(signature, *xs, out=out), xs


def _pairs(*shapes: tuple[Shape, Shape]) -> tuple[Example, ...]:
    return tuple(Example(pair) for pair in shapes)


product(
    "matvec",
    "ij,j->i",
    ("i,j->ij", "i,ij->j"),
    _pairs(((2, 3), (3,)), ((1, 1), (1,)), ((4, 1), (1,)), ((1, 4), (4,)), ((0, 3), (3,)), ((3, 0), (0,))),
    "the product of a matrix (i, j) and a vector (j,)",
)
product(
    "vecmat",
    "i,ij->j",
    ("j,ij->i", "j,i->ij"),
    _pairs(((3,), (3, 2)), ((1,), (1, 1)), ((1,), (1, 4)), ((4,), (4, 1)), ((3,), (3, 0)), ((0,), (0, 3))),
    "the product of a vector (i,) and a matrix (i, j)",
)
product(
    "outer",
    "i,j->ij",
    ("ij,j->i", "ij,i->j"),
    _pairs(((2,), (3,)), ((1,), (1,)), ((4,), (1,)), ((0,), (3,)), ((3,), (0,))),
    "the outer product of two vectors",
)
