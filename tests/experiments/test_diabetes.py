"""The experiment `diabetes`: real data, relaxed to the least-squares optimum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.experiments import drive
from whiteboard.experiments.diabetes import INTERCEPT, WEIGHTS, diabetes, table

OPTIMUM = 2859.6963
"""Mean squared error of the least-squares solution."""


def test_the_table_is_standardised() -> None:
    """442 patients, ten features of mean 0 and variance 1, and the optimum that is known of them."""
    features, progression = table()
    assert (features.shape, progression.shape) == ((442, 10), (442,))
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(features.std(0), 1)
    design = np.column_stack([features, np.ones(442)])
    weights = np.linalg.lstsq(design, progression, rcond=None)[0]
    assert np.mean((design @ weights - progression) ** 2) == pytest.approx(OPTIMUM, abs=5e-5)


def test_it_reaches_the_optimum_and_stays_small(tmp_path: Path) -> None:
    """Relaxation ends within 1e-6 of the optimum, at its weights, in a file under 50 MB."""
    experiment = diabetes()
    path = tmp_path / "d.db"
    with wb.open(path, **experiment.options) as board:
        system = board.system("diabetes", experiment.spec)
        outcome = drive(experiment, system)
        weights = np.append(np.asarray(system.nodes[WEIGHTS].theta), np.asarray(system.nodes[INTERCEPT].theta))
        assert all(system.nodes[i].version == 0 for i in range(442))
    assert outcome.done
    assert outcome.measure == pytest.approx(OPTIMUM, rel=1e-6)
    features, progression = table()
    best = np.linalg.lstsq(np.column_stack([features, np.ones(442)]), progression, rcond=None)[0]
    np.testing.assert_allclose(weights, best, rtol=1e-2, atol=0.05)
    assert path.stat().st_size < 50e6


def test_seeds_and_stores_do_not_mix_bits() -> None:
    """The same rounds give the same commits with and without the cache, and other ones from another start."""
    histories = []
    for seed, options in ((None, {}), (None, {"persist": "never", "memory_bytes": 0}), (1, {}), (1, {"bin_jobs": 5})):
        experiment = diabetes(seed)
        with wb.open(":memory:", **options) as board:
            system = board.system("diabetes", experiment.spec)
            drive(experiment, system, rounds=8)
            histories.append(system.history())
    assert histories[0] == histories[1] != histories[2] == histories[3]
