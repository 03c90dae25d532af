"""``europe``: the map of Europe from a table of road distances.

21 cities are nodes in the plane, 210 road distances are edges with ``target`` = km and ``scale`` = km⁻²; the
stress Σ((L − L*)/L*)² descends from a classical scaling of the table, or from a random start.

Source of the data: The Cambridge Encyclopaedia, as R's ``datasets::eurodist``. Classical scaling: W. S. Torgerson,
"Multidimensional scaling: I. Theory and method", Psychometrika 17, 1952.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from whiteboard.experiments.definition import Experiment, Outcome, Stop
from whiteboard.identity.keys import first_token
from whiteboard.systems.jobs import JobBatch
from whiteboard.systems.rules import StressDescent
from whiteboard.systems.system import System
from whiteboard.types import Array

OMEGA = 0.95
"""Step of the descent. Rounds from the classical start: 375 at 0.5, 216 at 0.9, 206 at 0.95, 198 at 0.99."""

COMPASS = {"Lisbon": (-9.1, 38.7), "Stockholm": (18.1, 59.3), "Athens": (23.7, 38.0), "Vienna": (16.4, 48.2)}
"""Degrees east and north of four cities: they turn a drawing north up, and enter no result."""


def table() -> tuple[list[str], NDArray[np.int64], Array]:
    """Return the cities' names, the edges (210, 2) as indices into them, and their lengths (210,) in km."""
    from importlib.resources import files  # 5 ms of each command else

    text = files("whiteboard.experiments").joinpath("eurodist.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    names = sorted({row[end] for row in rows for end in ("city_a", "city_b")})
    edges = [[names.index(row["city_a"]), names.index(row["city_b"])] for row in rows]
    return names, np.array(edges, np.int64), np.array([float(row["km"]) for row in rows])


def classical_scaling(edges: NDArray[np.int64], lengths: Array, n: int) -> Array:
    """Return Torgerson's points in the plane, (n, 2), from all pairwise distances."""
    squared = np.zeros((n, n))
    squared[edges[:, 0], edges[:, 1]] = squared[edges[:, 1], edges[:, 0]] = lengths**2
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centring @ squared @ centring)
    points = vectors[:, [-1, -2]] * np.sqrt(values[[-1, -2]])
    largest = points[np.abs(points).argmax(axis=0), [0, 1]]
    signed: Array = points * np.sign(largest)  # an eigenvector's sign is the library's whim
    return signed


def europe(seed: int | None = None) -> Experiment:
    """Return the experiment; from a random start where `seed` is given."""
    names, edges, lengths = table()

    def setup(system: System) -> None:
        n = len(names)
        if seed is None:
            # To the metre: the last digits of eigenvectors are the processor's.
            start = classical_scaling(edges, lengths, n).round(3)
        else:
            start = np.random.default_rng(seed).normal(scale=lengths.mean(), size=(n, 2))
        system.add_nodes(range(n), p=start)

    return Experiment(
        "europe",
        setup,
        JobBatch("distance", edges, target=lengths, scale=1 / np.square(lengths), attr="p"),
        StressDescent(OMEGA),
        Stop(change=1e-12, rounds=10),
        settings={
            "version": 1,
            "data": first_token(lengths).hex(),
            "start": "classical scaling" if seed is None else f"random, seed {seed}",
        },
        plot=plot,
    )


def north_up(points: Array, names: list[str]) -> Array:
    """Turn and mirror points (n, 2) so that the compass cities lie as on a map; distances stay as they are."""
    at = [names.index(name) for name in COMPASS]
    degrees = np.array(list(COMPASS.values()))
    degrees[:, 0] *= np.cos(np.radians(degrees[:, 1].mean()))
    here = points[at] - points[at].mean(axis=0)
    left, _, right = np.linalg.svd(here.T @ (degrees - degrees.mean(axis=0)))
    turned: Array = (points - points.mean(axis=0)) @ (left @ right)
    return turned


def plot(system: System, outcome: Outcome, path: Path) -> None:
    """Draw the cities with their names, and the roads coloured by stress."""
    from whiteboard.experiments.draw import draw_map

    names, edges, lengths = table()
    points = np.stack([np.asarray(system.nodes[i].p) for i in range(len(names))])
    apart = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    strain = (apart - lengths) / lengths
    title = f"{system.name}: {len(names)} cities from {len(edges)} road distances"
    subtitle = f"relative stress Σσ²/{len(edges)} = {np.mean(strain**2):.8f} at commit {outcome.commit.id}"
    draw_map(north_up(points, names), names, edges, strain, title, subtitle, path)
