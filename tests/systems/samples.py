"""A system of a few nodes, and the edges between them: what the tests here begin with."""

from __future__ import annotations

import numpy as np

import whiteboard as wb

N = 9


def filled(board: wb.Board, name: str = "s", seed: int = 0) -> wb.System:
    """Return a new system of N nodes with theta (3,) and p (2,); the last node is fixed."""
    rng = np.random.default_rng(seed)
    system = board.system(name)
    system.add_nodes(range(N), theta=rng.normal(size=(N, 3)), p=rng.normal(size=(N, 2)), fixed=np.arange(N) == N - 1)
    return system


def edges(seed: int = 1, m: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return random edges and lengths."""
    rng = np.random.default_rng(seed)
    pairs = np.array([rng.choice(N, 2, replace=False) for _ in range(m)])
    return pairs, rng.uniform(0.5, 2, m)
