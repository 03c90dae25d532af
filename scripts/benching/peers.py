"""What whiteboard's computing is measured against: the same ops by hand in NumPy, by HIPS autograd and by JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Results = tuple[Array, ...]
"""y, then one gradient a source."""


class Peer(NamedTuple):
    """One op: how many sources (each (D,)), stacked by hand, and as a function of one job for autograd and JAX."""

    arity: int
    by_hand: Callable[..., Results]
    """Stacked sources (B, D) → stacked results, each an array of its own."""
    one: Callable[..., Any]
    """``one(np, *sources) → y``, where np is ``autograd.numpy`` or ``jax.numpy``."""


def _mul(a: Array, b: Array) -> Results:
    return a * b, b.copy(), a.copy()


def _tanh(x: Array) -> Results:
    y = np.tanh(x)
    return y, 1 - y * y


def _softmax(x: Array) -> Results:
    y = np.exp(x - x.max(-1, keepdims=True))
    y /= y.sum(-1, keepdims=True)
    return y, y * (1 - y.sum(-1, keepdims=True))


def _distance(a: Array, b: Array) -> Results:
    apart = a - b
    y = np.sqrt((apart * apart).sum(-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        grad = np.where(y[:, None] > 0, apart / y[:, None], 0)
    return y, grad, -grad


def _one_softmax(np: Any, x: Any) -> Any:
    y = np.exp(x - np.max(x))
    return y / np.sum(y)


PEERS: dict[str, Peer] = {
    "mul": Peer(2, _mul, lambda np, a, b: np.multiply(a, b)),
    "tanh": Peer(1, _tanh, lambda np, x: np.tanh(x)),
    "softmax": Peer(1, _softmax, _one_softmax),
    "distance": Peer(2, _distance, lambda np, a, b: np.sqrt(np.sum((a - b) ** 2))),
}


def autograd_jobs(name: str) -> Callable[[list[tuple[Array, ...]]], list[Results]]:
    """Return what answers a list of jobs one by one with HIPS autograd."""
    import autograd.numpy as anp
    from autograd import make_vjp

    peer = PEERS[name]

    def one(*xs: Any) -> Any:
        return peer.one(anp, *xs)

    pulling = make_vjp(one, tuple(range(peer.arity)))

    def run(jobs: list[tuple[Array, ...]]) -> list[Results]:
        done = []
        for xs in jobs:
            vjp, y = pulling(*xs)
            done.append((y, *vjp(np.ones_like(y))))
        return done

    return run


def jax_bin(name: str) -> Callable[..., Results] | None:
    """Return ``jit(vmap(vjp))`` over stacked sources, results back in NumPy; None where JAX is not installed."""
    try:
        import jax
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call, unused-ignore]
    peer = PEERS[name]

    def one(*xs: Any) -> Any:
        y, pull = jax.vjp(lambda *sources: peer.one(jax.numpy, *sources), *xs)
        return (y, *pull(jax.numpy.ones_like(y)))

    compiled = jax.jit(jax.vmap(one))
    return lambda *stacked: tuple(np.asarray(column) for column in compiled(*stacked))


def stack_and_split(kernel: Callable[..., Results], size: int) -> Callable[[list[tuple[Array, ...]]], list[Results]]:
    """Return what answers a list of jobs by stacking `size` at a time, one call, and splitting the results again."""

    def run(jobs: list[tuple[Array, ...]]) -> list[Results]:
        done: list[Results] = []
        for start in range(0, len(jobs), size):
            part = jobs[start : start + size]
            columns = kernel(*(np.stack(slot) for slot in zip(*part, strict=True)))
            done += zip(*columns, strict=True)
        return done

    return run


def in_bins(kernel: Callable[..., Results], size: int, sources: list[Array], gather: list[Array] | None) -> None:
    """Call a kernel on stacked sources, or on rows gathered from them, and put its results into columns.

    With `gather`, a row index a slot, the sources are matrices of nodes, and the columns hold all jobs.
    """
    columns: list[Array] = []
    n = len(sources[0]) if gather is None else len(gather[0])
    for start in range(0, n, size):
        some = slice(start, start + size)
        if gather is None:
            kernel(*(x[some] for x in sources))
            continue
        results = kernel(*(x[rows[some]] for x, rows in zip(sources, gather, strict=True)))
        if not columns:
            columns = [np.empty((n, *result.shape[1:]), result.dtype) for result in results]
        for column, result in zip(columns, results, strict=True):
            column[some] = result
