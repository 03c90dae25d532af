"""Folding axes into contiguous rows, and back."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from whiteboard.ops.kernels.rows import fold, sum_back, unfold

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@given(shape=SHAPES, data=st.data(), n=st.integers(1, 3))
def test_unfold_undoes_fold(shape: tuple[int, ...], data: st.DataObject, n: int) -> None:
    """Any shape and axes come back as they were, and the rows are contiguous."""
    axes = tuple(sorted(data.draw(st.sets(st.sampled_from(range(len(shape)))) if shape else st.just(set()))))
    x = np.arange(n * np.prod(shape, dtype=int)).reshape(n, *shape)
    rows = fold(x, axes)
    assert rows.ndim == 3
    assert rows.flags.c_contiguous
    assert np.array_equal(unfold(rows, shape, axes), x)
    kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    assert np.array_equal(rows.sum(-1).reshape(n, *kept), x.sum(tuple(axis + 1 for axis in axes)))


@given(full=SHAPES, data=st.data())
def test_sum_back_undoes_broadcasting(full: tuple[int, ...], data: st.DataObject) -> None:
    """It is the transpose of `broadcast_to`: ⟨B x, y⟩ = ⟨x, Bᵀ y⟩."""
    cut = data.draw(st.integers(0, len(full)))
    shape = tuple(1 if data.draw(st.booleans()) else size for size in full[cut:])
    y = np.arange(2.0 * np.prod(full, dtype=int)).reshape(2, *full)
    back = sum_back(y, shape)
    assert back.shape == (2, *shape)
    x = np.random.default_rng(0).integers(-3, 4, shape)
    assert np.sum(np.broadcast_to(x, full) * y) == np.sum(x * back)
