"""Experiments from functions: imported from the working folder, and every failure placed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.errors import ExperimentError, UnknownExperimentError
from whiteboard.experiments import Experiment, Stop, drive, load

MODULE = """\
import numpy as np
import whiteboard as wb
from whiteboard.experiments import Experiment, Stop

def square(seed=0):
    edges = [(0, 1), (1, 2), (2, 3), (3, 0)]
    def setup(system):
        system.add_nodes(range(4), p=np.random.default_rng(seed).normal(size=(4, 2)))
    jobs = [wb.JobBatch("distance", edges[:2], target=np.ones(2), attr="p")]
    jobs += [wb.Job("distance", edge, target=1.0, attr="p") for edge in edges[2:]]
    return Experiment("square", setup, jobs, wb.rules.StressDescent(0.5), Stop(1e-6, 5), settings={"seed": seed})

def unseeded():
    return square()

def three():
    return 3

def fails():
    return 1 / 0

number = 7
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder that has the module, and forget it afterwards."""
    (tmp_path / "my_experiments.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("import whiteboard\n\ndef x(:\n")
    (tmp_path / "my_raising.py").write_text("import whiteboard\nraise RuntimeError('no data')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield
    for name in ("my_experiments", "my_broken", "my_raising"):
        sys.modules.pop(name, None)


def test_a_function_makes_an_experiment() -> None:
    """A function with batches and single jobs runs to its stop, and takes a seed where it has that parameter."""
    experiment = load("my_experiments:square", seed=3)
    assert (experiment.spec["jobs"], experiment.spec["seed"]) == (4, 3)
    with wb.open(":memory:") as board:
        outcome = drive(experiment, board.system("square", experiment.spec))
    assert outcome.done
    assert outcome.measure == pytest.approx(0, abs=1e-4)
    assert outcome.hit_rates[0] == (1, 0.0)
    assert load("my_experiments:unseeded").spec["seed"] == 0


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("my_experiments:three", "expected an Experiment, got int"),
        ("my_experiments:fails", r"my_experiments.py:20: ZeroDivisionError: division by zero"),
        ("my_experiments:nothing", "my_experiments.py has no function 'nothing'"),
        ("my_experiments:number", "has int, not a function, 'number'"),
        ("my_broken:x", r"cannot import my_broken: .*my_broken.py:3: invalid syntax"),
        ("my_raising:x", r"cannot import my_raising: .*my_raising.py:2: RuntimeError: no data"),
        ("my_missing:x", "cannot import my_missing: ModuleNotFoundError"),
        (":x", "expected module:function"),
    ],
)
def test_a_failure_is_placed(reference: str, says: str) -> None:
    """What is wrong with a user's module or function is said with its file and line."""
    with pytest.raises(ExperimentError, match=says):
        load(reference)


def test_a_seed_for_a_function_without_one_is_refused() -> None:
    """A seed that would change nothing is an error."""
    with pytest.raises(ExperimentError, match="unseeded takes no seed"):
        load("my_experiments:unseeded", seed=1)


def test_an_unknown_name_lists_what_there_is() -> None:
    """A name that is no file and no function is answered with the built-in ones."""
    with pytest.raises(UnknownExperimentError, match=r"built in: europe, diabetes; or a \.toml file"):
        load("asia")


def test_rounds_go_on_without_jobs_that_fail_where_the_experiment_says_so() -> None:
    """Else the first round ends the run; a job that fails leaves the others' impulses, and what failed is counted."""

    def setup(system: wb.System) -> None:
        system.add_nodes(range(3), p=np.array([[0.0, 0.0], [3.0, 4.0], [np.nan, 0.0]]))

    jobs = [wb.Job("distance", (0, 1), target=1.0, attr="p"), wb.Job("distance", (1, 2), target=1.0, attr="p")]
    parts: dict[str, Any] = {"setup": setup, "jobs": jobs, "rule": wb.rules.StressDescent(0.5), "stop": Stop(1e-6, 5)}
    strict, lenient = Experiment("e", **parts), Experiment("e", **parts, errors="collect")
    with wb.open(":memory:") as board:
        with pytest.raises(wb.WhiteboardError):
            drive(strict, board.system("strict", strict.spec), rounds=2)
        outcome = drive(lenient, board.system("lenient", lenient.spec), rounds=2)
    assert (outcome.rounds, outcome.failed) == (2, 2)
    assert outcome.commit.stress is not None
    assert (strict.spec.get("errors"), lenient.spec.get("errors")) == (None, "collect")
