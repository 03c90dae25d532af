"""Euclidean lengths that neither overflow nor vanish: rows whose squares would are scaled by a power of 2."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from whiteboard.types import Array


def _safe(length: Array) -> NDArray[np.bool_]:
    """Whether a length from plain squares is right: no square overflowed, and those that vanished do not count."""
    info = np.finfo(length.dtype)
    safe: NDArray[np.bool_] = (length >= np.sqrt(info.tiny / info.eps)) & (length < np.inf)
    return safe


def _scaled(rows: Array) -> tuple[Array, NDArray[np.int32]]:
    """Return rows (m, d) with their largest element between ½ and 1, and the exponents of 2 taken out, (m,)."""
    _, exponents = np.frexp(np.abs(rows).max(axis=-1, initial=0))
    return np.ldexp(rows, -exponents[:, None]), exponents


def _length(rows: Array) -> Array:
    length: Array = np.sqrt(np.add.reduce(np.square(rows), axis=-1))
    return length


def mended(length: Array, rows: Array) -> Array:
    """Return the lengths of rows (…, d), given those from plain squares, (…,), which are written over where wrong."""
    wrong = ~_safe(length)
    if wrong.any():
        scaled, exponents = _scaled(rows[wrong])
        length[wrong] = np.ldexp(_length(scaled), exponents)
    return length


def unit(rows: Array, length: Array) -> Array:
    """Return rows (…, d) over their lengths (…,): 0 at 0, and among infinite elements those alone, equally."""
    wrong = ~_safe(length)
    direction: Array = rows / np.where(wrong, 1, length)[..., None]
    if wrong.any():
        bad = rows[wrong]
        endless = np.isinf(bad)
        scaled, _ = _scaled(np.where(endless.any(-1, keepdims=True) & ~np.isnan(bad), np.copysign(endless, bad), bad))
        size = _length(scaled)
        direction[wrong] = scaled / np.where(size == 0, 1, size)[:, None]
    return direction
