"""Products of many factors that do not overflow on the way: mantissas and exponents, multiplied apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from whiteboard.types import Array


def at_risk(exponents: NDArray[np.int32], dtype: np.dtype[np.floating]) -> NDArray[np.bool_]:
    """Whether some product of a row's factors, whatever their order, may leave the normal numbers, (…,).

    `exponents` is (…, k), of `numpy.frexp`. Elsewhere a plain product has the same bits as one of mantissas.
    """
    info = np.finfo(dtype)
    largest = np.maximum(exponents, 0).sum(-1, dtype=np.int64)
    smallest = np.minimum(exponents, 0).sum(-1, dtype=np.int64) - exponents.shape[-1]
    risky: NDArray[np.bool_] = (largest >= info.maxexp) | (smallest <= info.minexp)
    return risky


def _running(mantissas: Array, exponents: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
    """Return the products of the factors before each, and of all, as mantissas and exponents, both (m, k + 1)."""
    m, k = mantissas.shape
    products, powers = np.ones((m, k + 1), mantissas.dtype), np.zeros((m, k + 1), np.int64)
    for j in range(k):
        products[:, j + 1], carry = np.frexp(products[:, j] * mantissas[:, j])
        powers[:, j + 1] = powers[:, j] + exponents[:, j] + carry
    return products, powers


def _rounded(mantissas: Array, exponents: NDArray[np.int64]) -> Array:
    y: Array = np.ldexp(mantissas, exponents.clip(-(2**30), 2**30).astype(np.int32))
    return y


def scaled_product(rows: Array) -> Array:
    """Return the product of each row, (m, k) to (m,): rounded to infinity or 0 only where it is that."""
    products, powers = _running(*_split(rows))
    return _rounded(products[:, -1], powers[:, -1])


def scaled_others(rows: Array) -> Array:
    """Return for each element of (m, k) the product of the others of its row; see `scaled_product`."""
    mantissas, exponents = _split(rows)
    before, up = _running(mantissas, exponents)
    after, down = _running(mantissas[:, ::-1], exponents[:, ::-1])
    return _rounded(before[:, :-1] * after[:, -2::-1], up[:, :-1] + down[:, -2::-1])


def _split(rows: Array) -> tuple[Array, NDArray[np.int64]]:
    mantissas, exponents = np.frexp(rows)
    return mantissas, exponents.astype(np.int64)
