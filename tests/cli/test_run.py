"""`whiteboard run` with workers, and a cluster that is not there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import pytest

from tests.processes import run_whiteboard
from whiteboard.cli.computing import computing
from whiteboard.errors import MissingExtraError


def test_workers_give_the_same_digest(tmp_path: Path) -> None:
    """``--workers`` changes how it is computed and nothing else."""
    outs = [
        run_whiteboard("run", "diabetes", "--rounds", "2", "--json", "--store", tmp_path / f"{number}.db", *more)
        for number, more in enumerate(([], ["--workers", "2"]))
    ]
    assert [out.returncode for out in outs] == [0, 0], outs
    first, second = (json.loads(out.stdout) for out in outs)
    assert (first["digest"], first["misses"]) == (second["digest"], second["misses"])


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("tcp://127.0.0.1:9", 2), click.UsageError, "not both"),
        (("somewhere", None), click.UsageError, "expected a scheduler's address"),
        (("tcp://127.0.0.1:9", None), MissingExtraError, "pip install 'distributed"),
    ],
)
def test_a_cluster_that_is_not_there(
    arguments: tuple[str, int | None], error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ``--dask`` cannot mean is refused before anything is opened, and so is a library that is not installed."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    dask, workers = arguments
    with pytest.raises(error, match=says), computing(workers, dask):
        pass
