"""The experiment `europe`: its data, its start, and one digest whatever the way."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.experiments.drive import drive
from whiteboard.experiments.europe import classical_scaling, europe, north_up, table
from whiteboard.systems.jobs import JobBatch


def test_the_table_is_whole() -> None:
    """21 cities, every one of the 210 pairs once, all distances positive."""
    names, edges, lengths = table()
    assert (len(names), edges.shape, lengths.shape) == (21, (210, 2), (210,))
    assert len({frozenset(edge) for edge in edges.tolist()}) == 210
    assert lengths.min() > 0


def test_classical_scaling_finds_points_from_their_distances() -> None:
    """Points in the plane come back from their distances, up to a rigid motion."""
    points = np.random.default_rng(0).normal(size=(8, 2))
    edges = np.array([(i, j) for i in range(8) for j in range(i)])
    lengths = np.sqrt(((points[edges[:, 0]] - points[edges[:, 1]]) ** 2).sum(1))
    found = classical_scaling(edges, lengths, 8)
    again = np.sqrt(((found[edges[:, 0]] - found[edges[:, 1]]) ** 2).sum(1))
    np.testing.assert_allclose(again, lengths, rtol=1e-9)


def test_a_drawing_is_turned_and_not_bent() -> None:
    """Turning north up keeps all distances, and puts Stockholm north of Athens and Lisbon west of Vienna."""
    names, edges, lengths = table()
    points = classical_scaling(edges, lengths, len(names))
    for mirror in (points, points[:, ::-1], -points):
        turned = north_up(mirror, names)
        for index in (edges[0], edges[77]):
            before, after = mirror[index[0]] - mirror[index[1]], turned[index[0]] - turned[index[1]]
            assert before @ before == pytest.approx(after @ after)
        at = {name: turned[names.index(name)] for name in ("Stockholm", "Athens", "Lisbon", "Vienna")}
        assert at["Stockholm"][1] > at["Athens"][1]
        assert at["Lisbon"][0] < at["Vienna"][0]


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no memory": {"memory_bytes": 0},
    "little memory": {"memory_bytes": 20_000},
    "bins of one": {"bin_jobs": 1},
    "bins of seven": {"bin_jobs": 7},
    "never": {"persist": "never"},
}


def test_one_digest_whatever_the_way() -> None:
    """Order of the jobs, bin size, memory tier, persistence and a warm cache leave every commit as it is."""
    experiment = europe()
    histories = []
    for options in OPTIONS.values():
        with wb.open(":memory:", **options) as board:
            for name in ("cold", "warm"):
                system = board.system(name, experiment.spec)
                drive(experiment, system, rounds=12)
                histories.append(system.history())
                if name == "warm" and options.get("persist") != "never" and options.get("memory_bytes") != 0:
                    assert board.stats()["misses"] == 12 * 210
    batch = experiment.jobs
    assert isinstance(batch, JobBatch)
    with wb.open(":memory:") as board:
        system = board.system("shuffled")
        experiment.setup(system)
        system.commit()
        rng = np.random.default_rng(0)
        for _ in range(12):
            order = rng.permutation(210)
            for part in np.split(order, [50, 51, 200]):
                system.process(batch.take(part))
            system.commit(experiment.rule)
        histories.append(system.history())
    assert all(history == histories[0] for history in histories)


def test_stress_never_rises_and_settles() -> None:
    """From commit to commit the stress goes down, to the best that is known."""
    experiment = europe()
    with wb.open(":memory:") as board:
        system = board.system("europe", experiment.spec)
        outcome = drive(experiment, system)
        stress = [commit.stress for commit in system.history() if commit.stress is not None]
    assert outcome.done
    assert outcome.measure == pytest.approx(0.01411493, abs=5e-9)
    assert all(later <= earlier for earlier, later in itertools.pairwise(stress))
