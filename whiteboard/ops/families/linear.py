"""Products of vectors and matrices. The portable ones stay off BLAS; `matmul_gemm` and `linear_gemm` are opt-in GEMM.

OpenBLAS adds in another order with another number of threads (vecdot from 10,000 elements, matmul from 400² on two
threads) or another processor, so a portable op contracts by `contract`, for large matrices at a twentieth of the speed.
A ``_gemm`` op is declared `tolerance` and has a name of its own: its packages never mix with portable ones.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TypeAlias

import numpy as np

from whiteboard.ops.kernels.contract import contract
from whiteboard.ops.kernels.cotangents import pull_rows
from whiteboard.ops.kernels.rows import fold
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


def _pairs(*shapes: tuple[Shape, Shape]) -> tuple[Example, ...]:
    return tuple(Example(pair) for pair in shapes)


_MATRICES = _pairs(
    ((2, 3), (3, 4)), ((1, 1), (1, 1)), ((4, 1), (1, 3)), ((1, 9), (9, 1)), ((2, 0), (0, 3)), ((0, 2), (2, 3))
)
_AFFINE = tuple(
    Example((x, weight, weight[:1]))
    for x, weight in (
        ((3,), (2, 3)),
        ((4, 3), (2, 3)),
        ((2, 2, 3), (1, 3)),
        ((1,), (1, 1)),
        ((0, 3), (2, 3)),
        ((0,), (2, 0)),
    )
)


def _vecdot_vjp(saved: Saved, cotangent: Array, need: tuple[bool, ...], /) -> Grads:
    a, b = saved
    return tuple(pull_rows(cotangent, x) if wanted else None for x, wanted in zip((b, a), need, strict=True))


@builtin(
    "vecdot",
    arity=2,
    kind="scalar",
    exactness="portable",
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
        return tuple(
            contract(rule, cotangent, other) if wanted else None
            for rule, other, wanted in zip(by, others, need, strict=True)
        )

    @builtin(
        name,
        arity=2,
        kind="general",
        exactness="portable",
        vjp=vjp,
        shape=fitting(signature),
        examples=examples,
        doc=doc,
    )
    def forward(xs: tuple[Array, ...], out: Array | None, /) -> tuple[Array, Saved]:
        return contract(signature, *xs, out=out), xs


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
product(
    "matmul",
    "ik,kj->ij",
    ("ij,kj->ik", "ij,ik->kj"),
    _MATRICES,
    "the product of two matrices",
)


# -- affine maps


def _linear_shape(op: str, shapes: tuple[Shape, ...], _params: Params) -> Shape:
    x, weight, bias = shapes
    if not x:
        raise wrong_shape(op, 0, "shape (..., i)", x)
    fitting("i,oi,o->o")(op, (x[-1:], weight, bias), _params)
    return (*x[:-1], weight[0])


def _linear_rows(x: Array) -> Array:
    """Return (n, ..., i) as (n, rows, i)."""
    return x.reshape(len(x), prod(x.shape[1:-1]), x.shape[-1])


def _linear_vjp(saved: Saved, cotangent: Array, need: tuple[bool, ...], /) -> Grads:
    x, weight = saved
    up = _linear_rows(cotangent)
    return (
        contract("ro,oi->ri", up, weight).reshape(x.shape) if need[0] else None,
        contract("ro,ri->oi", up, _linear_rows(x)) if need[1] else None,
        np.add.reduce(fold(up, (0,)), axis=-1) if need[2] else None,
    )


@builtin(
    "linear",
    arity=3,
    kind="general",
    exactness="portable",
    vjp=_linear_vjp,
    shape=_linear_shape,
    examples=_AFFINE,
    doc="x Wᵀ + b, of x (..., i), W (o, i) and b (o,)",
)
def _linear(xs: tuple[Array, ...], out: Array | None, /) -> tuple[Array, Saved]:
    x, weight, bias = xs
    y = contract("ri,oi->ro", _linear_rows(x), weight)
    y += bias[:, None]
    return y.reshape(*x.shape[:-1], weight.shape[1]), (x, weight)


# -- GEMM, whose bits may follow the bin and the BLAS threads


def _turned(x: Array) -> Array:
    return x.swapaxes(-1, -2)


def _matmul_gemm_vjp(saved: Saved, cotangent: Array, need: tuple[bool, ...], /) -> Grads:
    a, b = saved
    return (cotangent @ _turned(b) if need[0] else None, _turned(a) @ cotangent if need[1] else None)


@builtin(
    "matmul_gemm",
    arity=2,
    kind="general",
    exactness="tolerance",
    vjp=_matmul_gemm_vjp,
    shape=fitting("ik,kj->ij"),
    examples=_MATRICES,
    doc="the product of two matrices by BLAS: faster than matmul, and its bits may follow the BLAS threads",
)
def _matmul_gemm(xs: tuple[Array, ...], out: Array | None, /) -> tuple[Array, Saved]:
    a, b = xs
    return (np.matmul(a, b) if out is None else np.matmul(a, b, out=out)), xs


def _is_shared(weight: Array) -> bool:
    """Whether all jobs have one weight: a bin of one, or a 0-stride broadcast."""
    return len(weight) == 1 or weight.strides[0] == 0


def _times(rows: Array, weight: Array) -> Array:
    """Return (n, r, k) · (n, k, j): one GEMM over the stacked rows of all jobs where they share the matrix."""
    n, r, k = rows.shape
    shared = _is_shared(weight)
    y: Array = rows.reshape(n * r, k) @ weight[0] if shared else rows @ weight
    return y.reshape(n, r, weight.shape[-1])


def _outer_rows(up: Array, rows: Array) -> Array:
    """Return (n, r, o), (n, r, i) → (n, o, i), summed over r; BLAS is slow at the outer product of one row."""
    return up[:, 0, :, None] * rows[:, 0, None] if up.shape[1] == 1 else _turned(up) @ rows


def _linear_gemm_vjp(saved: Saved, cotangent: Array, need: tuple[bool, ...], /) -> Grads:
    x, weight = saved
    up = _linear_rows(cotangent)
    return (
        _times(up, weight).reshape(x.shape) if need[0] else None,
        _outer_rows(up, _linear_rows(x)) if need[1] else None,
        up.sum(1) if need[2] else None,
    )


@builtin(
    "linear_gemm",
    arity=3,
    kind="general",
    exactness="tolerance",
    vjp=_linear_gemm_vjp,
    shape=_linear_shape,
    examples=_AFFINE,
    doc="x Wᵀ + b by BLAS, as one GEMM where the jobs share W: faster than linear, and its bits may follow the bin",
)
def _linear_gemm(xs: tuple[Array, ...], out: Array | None, /) -> tuple[Array, Saved]:
    x, weight, bias = xs
    y = _times(_linear_rows(x), _turned(weight))
    y += bias[:, None]
    return y.reshape(*x.shape[:-1], weight.shape[1]), (x, weight)
