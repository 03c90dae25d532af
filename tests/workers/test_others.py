"""Executors of other libraries: loky's processes, and a dask cluster of two."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.processes import run_whiteboard
from tests.workers import sample_ops
from whiteboard.errors import WorkerWarning


@contextmanager
def loky() -> Iterator[Executor]:
    """Two processes of loky's, which joblib brings."""
    from joblib.externals.loky import ProcessPoolExecutor

    with ProcessPoolExecutor(max_workers=2) as pool:
        yield pool


@contextmanager
def dask() -> Iterator[Any]:
    """A cluster of two processes on this machine, as its client's executor."""
    distributed = pytest.importorskip("distributed", reason="distributed is not installed: scripts/test --peers")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own
        with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
            yield client.get_executor(pure=False, retries=2)


@pytest.mark.parametrize("kind", [loky, pytest.param(dask, marks=pytest.mark.peers)])
def test_bins_are_computed_by_what_others_made(kind: Any) -> None:
    """In other processes, to the bits of this one; what is there is a hit that asks nobody."""
    x = np.random.default_rng(0).normal(size=(24, 3))
    with wb.open(":memory:") as alone:
        expected = alone.call_many("sample_loop", x)
    with kind() as executor, wb.open(":memory:", executor=executor) as board, warnings.catch_warnings():
        warnings.simplefilter("error", WorkerWarning)
        pids = board.call_many("sample_pid", x, params={"seconds": 0.03}).y - 0 * x[:, :1]
        assert os.getpid() not in set(pids[1:, 0].astype(int))
        result = board.call_many("sample_loop", x)
        assert (result.y.tobytes(), result.grads[0].tobytes()) == (expected.y.tobytes(), expected.grads[0].tobytes())
        assert board.call_many("sample_pid", x, params={"seconds": 0.03}).hit.tolist() == [1] * 24
    assert sample_ops.FACTOR == 2.0


@pytest.mark.peers
def test_the_command_line_computes_on_a_cluster(tmp_path: Path) -> None:
    """``--dask`` takes a scheduler's address, and changes neither digest nor what is computed."""
    run = ("run", "diabetes", "--rounds", "2", "--json", "--store")
    alone = run_whiteboard(*run, tmp_path / "alone.db")
    with dask() as executor:
        there = run_whiteboard(*run, tmp_path / "there.db", "--dask", executor._client.scheduler.address)
    assert (there.returncode, there.stderr) == (0, "")
    first, second = (json.loads(out.stdout) for out in (alone, there))
    assert (first["digest"], first["misses"]) == (second["digest"], second["misses"])
