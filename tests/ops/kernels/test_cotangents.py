"""Cotangent times partial: the same values whether ones are multiplied or seen."""

from __future__ import annotations

import numpy as np
import pytest

from whiteboard.ops.kernels.cotangents import is_ones, pull, pull_rows


@pytest.mark.parametrize(
    ("cotangent", "expected"),
    [
        (np.broadcast_to(1.0, (2, 3)), True),
        (np.broadcast_to(1.0, ()), True),
        (np.broadcast_to(2.0, (2, 3)), False),
        (np.broadcast_to(np.ones(3), (2, 3)), False),
        (np.ones((2, 3)), False),
        (np.broadcast_to(1.0, (0, 3)), False),
    ],
)
def test_ones_are_seen_by_their_strides(cotangent: np.ndarray, expected: bool) -> None:
    """Only a broadcast of the number 1 counts: nothing is read but that number."""
    assert is_ones(cotangent) is expected


@pytest.mark.parametrize("partial", [np.arange(6.0).reshape(2, 3), np.arange(3.0), -0.0, 1.0, -2.5, 0.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_seen_ones_and_multiplied_ones_agree(partial: np.ndarray | float, dtype: type[np.floating]) -> None:
    """Value, shape and dtype are the product's."""
    factor = partial.astype(dtype) if isinstance(partial, np.ndarray) else partial
    seen, multiplied = pull(np.broadcast_to(dtype(1), (2, 3)), factor), pull(np.ones((2, 3), dtype), factor)
    assert seen.dtype == multiplied.dtype == dtype
    assert np.array_equal(seen, multiplied)
    assert np.array_equal(multiplied, np.broadcast_to(partial, (2, 3)))


def test_rows_take_one_cotangent_each() -> None:
    """A scalar op's cotangent is one number a job."""
    partial = np.arange(6.0).reshape(2, 3)
    assert pull_rows(np.broadcast_to(1.0, (2,)), partial) is partial
    assert np.array_equal(pull_rows(np.array([2.0, 3.0]), partial), [[0, 2, 4], [9, 12, 15]])


def test_a_zero_partial_is_zero_beside_an_infinite_cotangent() -> None:
    """`where` takes no gradient by its condition, whatever comes in."""
    assert not pull(np.array([np.inf, np.nan]), 0.0).any()
