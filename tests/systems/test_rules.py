"""Rules: StressDescent never raises the stress, Relax never steps beyond its error scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whiteboard.errors import ParamError
from whiteboard.systems.impulses import Sums
from whiteboard.systems.rules import Relax, StressDescent


def stress_and_sums(p: np.ndarray, edges: np.ndarray, lengths: np.ndarray, n: int) -> tuple[float, Sums]:
    """Return Σσ² and the summed impulses of `distance` jobs with scale L*⁻², by hand."""
    apart = p[edges[:, 0]] - p[edges[:, 1]]
    norm = np.sqrt((apart**2).sum(1))
    w = lengths**-2
    push = (w * (lengths - norm) / norm)[:, None] * apart
    vector, weight = np.zeros_like(p), np.zeros(n)
    np.add.at(vector, edges[:, 0], push)
    np.add.at(vector, edges[:, 1], -push)
    np.add.at(weight, edges[:, 0], w)
    np.add.at(weight, edges[:, 1], w)
    return float((((norm - lengths) / lengths) ** 2).sum()), Sums(vector, weight, np.ones(n, np.int64))


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.99), st.integers(2, 12), st.integers(1, 3))
def test_no_step_raises_the_stress_whichever_nodes_move(seed: int, omega: float, n: int, d: int) -> None:
    """On random graphs, a step of a random subset of nodes leaves the stress no higher."""
    rng = np.random.default_rng(seed)
    edges = np.array([(i, j) for i in range(n) for j in range(i) if rng.random() < 0.7] or [(0, 1)])
    lengths = rng.uniform(0.1, 10, len(edges))
    p = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-1, 2)
    moves = rng.random(n) < 0.6
    before, sums = stress_and_sums(p, edges, lengths, n)
    p = np.where(moves[:, None], StressDescent(omega)(p, sums), p)
    assert stress_and_sums(p, edges, lengths, n)[0] <= before * (1 + 1e-12)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6), st.floats(0, 1), st.floats(1e-9, 1))
def test_the_scaled_step_of_relax_never_exceeds_one(seed: int, eta: float, rtol: float, atol: float) -> None:
    """RMS(Δθ / (atol + rtol·|θ|)) ≤ 1 for each node, whatever its gradient."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(5, 4)) * 10.0 ** rng.integers(-6, 6, (5, 1))
    sums = Sums(rng.normal(size=(5, 4)) * 10.0 ** rng.integers(-9, 9, (5, 1)), np.ones(5), np.ones(5, np.int64))
    step = eta * sums.vector
    scale = atol + rtol * np.abs(theta)
    error = np.sqrt(((step / scale) ** 2).mean(1))
    expected = theta + step / np.maximum(1, error)[:, None]
    got = Relax(eta, rtol, atol)(theta, sums)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    rounding = 1 + np.finfo(float).eps * (np.abs(theta) / scale).max(1)
    assert (np.sqrt((((got - theta) / scale) ** 2).mean(1)) <= 1e-12 + rounding).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0,)])
def test_rules_keep_shape_and_dtype(dtype: Any, shape: tuple[int, ...]) -> None:
    """Rows of any shape come back in theirs, in their dtype, each independent of the others."""
    rng = np.random.default_rng(1)
    rows, vector = (rng.normal(size=(6, *shape)).astype(dtype) for _ in range(2))
    weight = np.array([1.0, 2.0, 0.0, 4.0, 5.0, 6.0])
    for rule in (StressDescent(0.5), Relax(0.1, 0.1, 0.1)):
        whole = rule(rows, Sums(vector, weight, np.ones(6, np.int64)))
        assert (whole.shape, whole.dtype) == (rows.shape, rows.dtype)
        assert np.isfinite(whole).all()
        for i in range(6):
            one = slice(i, i + 1)
            alone = rule(rows[one], Sums(vector[one], weight[one], np.ones(1, np.int64)))
            assert alone.tobytes() == whole[one].tobytes()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: StressDescent(0), "omega: expected 0 < omega < 1, got 0"),
        (lambda: StressDescent(1.0), "omega"),
        (lambda: StressDescent("x"), "omega: expected 0 < omega < 1, got 'x'"),  # type: ignore[arg-type]
        (lambda: Relax(None), "eta: expected a finite number > 0, got None"),  # type: ignore[arg-type]
        (lambda: Relax(0, 0.1, 0.1), "eta: expected a finite number > 0, got 0"),
        (lambda: Relax(1, -1, 0.1), "rtol: expected a finite number >= 0, got -1"),
        (lambda: Relax(1, 0, 0), "atol"),
        (lambda: Relax(float("nan"), 0, 1), "eta"),
    ],
)
def test_bad_settings_are_refused_by_name(make: Any, says: str) -> None:
    """A rule's setting out of range is named, with what was expected."""
    with pytest.raises(ParamError, match=says):
        make()
