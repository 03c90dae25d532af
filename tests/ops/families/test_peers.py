"""Gradients beside JAX's: every built-in op against `jax.vjp` in float64, and a table of where conventions differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.ops.conventions import CONVENTIONS, Convention
from whiteboard import ops
from whiteboard.ops.catalogue import FAMILY
from whiteboard.ops.checking.conformance import draw
from whiteboard.ops.checking.run_once import run

pytestmark = pytest.mark.peers

jax = pytest.importorskip("jax", reason="JAX is not installed: scripts/test --peers installs it")
jax.config.update("jax_enable_x64", True)
jnp = jax.numpy
nn = jax.nn

RELATIVE = 1e-12


def _axes(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axis, keepdims, **more: function(x, axis=_axes(axis), keepdims=keepdims, **more)


def _linear(x: Any, w: Any, b: Any) -> Any:
    return x @ w.T + b


def _scatter(x: Any, indices: Any, size: int, axis: int) -> Any:
    moved = jnp.moveaxis(x, axis, 0)
    put = jnp.zeros((size, *moved.shape[1:])).at[np.asarray(indices, int)].add(moved)
    return jnp.moveaxis(put, 0, axis)


PEERS: dict[str, Callable[..., Any]] = {
    "add": jnp.add,
    "subtract": jnp.subtract,
    "mul": jnp.multiply,
    "divide": jnp.divide,
    "negative": jnp.negative,
    "power": jnp.power,
    "square": jnp.square,
    "sqrt": jnp.sqrt,
    "exp": jnp.exp,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
    "softplus": nn.softplus,
    "relu": nn.relu,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "abs": jnp.abs,
    "maximum": jnp.maximum,
    "minimum": jnp.minimum,
    "where": lambda c, a, b: jnp.where(c != 0, a, b),
    "clip": lambda x, lo, hi: jnp.clip(x, lo, hi),
    "sum": _reduction(jnp.sum),
    "mean": _reduction(jnp.mean),
    "var": _reduction(jnp.var),
    "max": _reduction(jnp.max),
    "logsumexp": _reduction(nn.logsumexp),
    "softmax": nn.softmax,
    "norm": _reduction(lambda x, axis, keepdims: jnp.sqrt(jnp.sum(x * x, axis=axis, keepdims=keepdims))),
    "cumsum": jnp.cumsum,
    "prod": _reduction(jnp.prod),
    "vecdot": jnp.dot,
    "matvec": jnp.matmul,
    "vecmat": jnp.matmul,
    "matmul": jnp.matmul,
    "matmul_gemm": jnp.matmul,
    "outer": jnp.outer,
    "einsum": lambda *xs, subscripts: jnp.einsum(subscripts.replace(" ", ""), *xs),
    "linear": _linear,
    "linear_gemm": _linear,
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": jnp.transpose,
    "broadcast_to": lambda x, shape: jnp.broadcast_to(x, shape),
    "concat": lambda *xs, axis: jnp.concatenate(xs, axis),
    "stack": lambda *xs, axis: jnp.stack(xs, axis),
    "take": lambda x, indices, axis: jnp.take(x, np.asarray(indices, int), axis, mode="wrap"),
    "gather": lambda x, indices, axis: jnp.take_along_axis(x, np.asarray(indices, int) % x.shape[axis], axis),
    "scatter": _scatter,
    "sum_k": lambda *xs: sum(xs),
    "mean_k": lambda *xs: sum(xs) / len(xs),
    "prod_k": lambda *xs: _product(xs),
    "distance": lambda a, b: jnp.sqrt(jnp.sum((a - b) ** 2)),
    "squared_distance": lambda a, b: jnp.sum((a - b) ** 2),
}


def _product(xs: tuple[Any, ...]) -> Any:
    y = xs[0]
    for x in xs[1:]:
        y = y * x
    return y


def beside(name: str, xs: list[np.ndarray], params: Any, cotangent: np.ndarray) -> tuple[Any, tuple[Any, ...]]:
    """Return JAX's y and gradients of one job."""
    y, back = jax.vjp(lambda *sources: PEERS[name](*sources, **ops.get(name).bind(params)), *xs)
    return y, back(jnp.asarray(cotangent))


def test_every_builtin_op_has_a_peer() -> None:
    """An op that is added gets a line here."""
    assert sorted(PEERS) == sorted(FAMILY)


@pytest.mark.parametrize("name", FAMILY)
def test_gradients_are_those_of_jax(name: str) -> None:
    """y and every gradient of three jobs of each example, to 1e-12 of the largest element."""
    spec, rng = ops.get(name), np.random.default_rng(4)
    for example in spec.examples:
        xs = draw(rng, example, 3, np.float64)
        cotangent = rng.standard_normal(run(spec, xs, example.params).y.shape)
        trial = run(spec, xs, example.params, cotangent)
        for job in range(3):
            y, grads = beside(name, [x[job] for x in xs], example.params, cotangent[job])
            for got, expected in zip((trial.y, *trial.grads), (y, *grads), strict=True):
                expected = np.asarray(expected)
                room = RELATIVE * max(np.abs(expected).max(initial=0), 1e-3)
                if np.isnan(expected).any():  # distance and norm of no elements
                    assert not expected.size or name in ("norm", "distance")
                else:
                    np.testing.assert_allclose(got[job], expected, rtol=0, atol=room)


@pytest.mark.skipif(jax.__version_info__ < (0, 10), reason="the table is of the conventions of JAX 0.10")
@pytest.mark.parametrize("row", CONVENTIONS, ids=CONVENTIONS.index)
def test_the_table_says_what_jax_does(row: Convention) -> None:
    """At points without a derivative JAX returns what the table says of it."""
    xs = [np.array(x) for x in row.xs]
    y = run(ops.get(row.name), [x[None] for x in xs], row.params).y
    for got, expected in zip(beside(row.name, xs, row.params, np.ones(y.shape[1:]))[1], row.theirs, strict=True):
        np.testing.assert_array_equal(got, expected)
