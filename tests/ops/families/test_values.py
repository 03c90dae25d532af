"""What y is: every built-in op against NumPy's own function, one job at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import pytest

from whiteboard import ops
from whiteboard.ops.catalogue import FAMILY
from whiteboard.ops.checking.conformance import draw
from whiteboard.ops.checking.run_once import forward


def linear(x: Any, weight: Any, bias: Any) -> Any:
    """Return x Wᵀ + b."""
    return x @ weight.T + bias


def scatter(x: Any, indices: Any, size: int, axis: int) -> Any:
    """Add the elements one by one."""
    y = np.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
    for k, place in enumerate(indices):
        y[(slice(None),) * axis + (place,)] += x[(slice(None),) * axis + (k,)]
    return y


NUMPY: dict[str, Callable[..., Any]] = {
    "mul": np.multiply,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "relu": lambda x: np.where(x > 0, x, 0),
    "where": lambda c, a, b: np.where(c, a, b),
    "clip": lambda x, lo, hi: np.clip(x, lo, hi),
    "logsumexp": lambda x, axis, keepdims: np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims)),
    "softmax": lambda x, axis: np.exp(x) / np.exp(x).sum(axis, keepdims=True),
    "norm": lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)),
    "vecdot": np.dot,
    "matmul_gemm": np.matmul,
    "einsum": lambda *xs, subscripts: np.einsum(subscripts, *xs),
    "linear": linear,
    "linear_gemm": linear,
    "reshape": np.reshape,
    "broadcast_to": np.broadcast_to,
    "concat": lambda *xs, axis: np.concatenate(xs, axis),
    "stack": lambda *xs, axis: np.stack(xs, axis),
    "take": lambda x, indices, axis: np.take(x, np.array(indices, int), axis),
    "gather": lambda x, indices, axis: np.take_along_axis(x, np.array(indices, int), axis),
    "scatter": scatter,
    "sum_k": lambda *xs: sum(xs),
    "mean_k": lambda *xs: sum(xs) / len(xs),
    "prod_k": lambda *xs: reduce(np.multiply, xs),
    "distance": lambda a, b: np.linalg.norm(a - b),
    "squared_distance": lambda a, b: np.sum((a - b) ** 2),
}
"""The others have NumPy's name."""


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)])
def test_y_is_what_numpy_says(name: str, dtype: type[np.floating], tolerance: float) -> None:
    """The shape rule, the dtype and every element, for two jobs of each example."""
    spec, rng, function = ops.get(name), np.random.default_rng(5), NUMPY.get(name) or getattr(np, name)
    for example in spec.examples:
        xs = draw(rng, example, 2, dtype)
        y = forward(spec, xs, example.params)
        for job in range(2):
            with np.errstate(all="ignore"):
                expected = function(*(x[job] for x in xs), **spec.bind(example.params))
            assert y[job].shape == np.shape(expected)
            np.testing.assert_allclose(y[job], expected, rtol=tolerance, atol=tolerance)


def test_where_takes_the_second_source_where_the_first_is_nonzero() -> None:
    """NaN is not 0; both zeros are."""
    c = np.array([[0.0, -0.0, np.nan, 1e-300, -2.0]])
    y = forward(ops.get("where"), [c, np.ones((1, 5)), np.zeros((1, 5))])
    np.testing.assert_array_equal(y, [[0, 0, 1, 1, 1]])


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("sigmoid", [-800.0, 0.0, 800.0], [0.0, 0.5, 1.0]),
        ("softplus", [-800.0, 0.0, 800.0], [0.0, np.log(2.0), 800.0]),
        ("logsumexp", [1000.0, 1000.0], 1000 + np.log(2.0)),
        ("logsumexp", [-np.inf, -np.inf], -np.inf),
        ("logsumexp", [np.inf, 0.0], np.inf),
        ("softmax", [1000.0, 1000.0], [0.5, 0.5]),
    ],
)
def test_large_values_do_not_overflow(name: str, x: list[float], expected: Any) -> None:
    """Exponentials are taken of what is not above 0."""
    with np.errstate(over="raise", invalid="raise"):
        np.testing.assert_array_equal(forward(ops.get(name), [np.array([x])])[0], expected)
