"""``diabetes``: a linear model of disease progression, by relaxation.

442 patients are fixed nodes of ten standardised features, the weights are one node and the intercept another; one
`linear` job a patient has the patient's progression as its target. Relaxation goes to the least-squares optimum.

Source of the data: B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, "Least angle regression", Annals of Statistics
32, 2004; https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from whiteboard.experiments.definition import MEASURES, Experiment, Outcome, Stop
from whiteboard.identity.keys import first_token
from whiteboard.systems.jobs import JobBatch
from whiteboard.systems.rules import Relax
from whiteboard.systems.system import System
from whiteboard.types import Array

WEIGHTS, INTERCEPT = -1, -2
"""Ids of the two nodes that are learned; patients have theirs from 0."""

RULE = Relax(eta=0.48, rtol=0.1, atol=10.0)
"""The features' covariance has eigenvalues up to 4.02, so η < 2/4.02. Rounds: 3,297 at η = 0.3, 2,127 at 0.48."""


def table() -> tuple[Array, Array]:
    """Return the standardised features (442, 10) and the progression (442,)."""
    from importlib.resources import files  # 5 ms of each command else

    text = files("whiteboard.experiments").joinpath("diabetes.csv").read_text(encoding="utf-8")
    rows = np.array(list(csv.reader(text.splitlines()))[1:], np.float64)
    features, progression = rows[:, :-1], rows[:, -1]
    standard: Array = (features - features.mean(axis=0)) / features.std(axis=0)
    return np.ascontiguousarray(standard), np.ascontiguousarray(progression)


def diabetes(seed: int | None = None) -> Experiment:
    """Return the experiment; it starts from zeros, or from random weights where `seed` is given."""
    features, progression = table()
    patients = np.arange(len(features))
    src_ids = np.stack([patients, np.full_like(patients, WEIGHTS), np.full_like(patients, INTERCEPT)], axis=1)

    def setup(system: System) -> None:
        weights = np.zeros((1, 1, features.shape[1]))
        if seed is not None:
            weights = np.random.default_rng(seed).normal(scale=10.0, size=weights.shape)
        system.add_nodes(patients, theta=features, fixed=True)
        system.add_nodes([WEIGHTS], theta=weights)
        system.add_nodes([INTERCEPT], theta=np.zeros((1, 1)))

    return Experiment(
        "diabetes",
        setup,
        JobBatch("linear", src_ids, target=progression, scale=1 / len(patients)),
        RULE,
        Stop(change=1e-10, rounds=50, relative=True),
        measure="mse",
        settings={
            "version": 1,
            "data": first_token(features).hex(),
            "start": "zeros" if seed is None else f"random, seed {seed}",
        },
        plot=plot,
        options={"persist": "auto"},
        notes="packages that are cheaper to compute than to load stay off the disk (persist='auto')",
    )


def plot(system: System, outcome: Outcome, path: Path) -> None:
    """Draw the mean squared error and the hit rate over the commits."""
    from whiteboard.experiments.draw import draw_progress

    errors = [(commit.id, MEASURES["mse"](commit, (system.spec or {})["jobs"])) for commit in system.history()]
    draw_progress(
        [(number, value) for number, value in errors if value is not None],
        outcome.hit_rates,
        f"{system.name}: a linear model of 442 patients",
        "mean squared error",
        path,
    )
