"""The benchmarks: that they run and what they report, never how fast; and the measuring they share."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.processes import run_script
from whiteboard import ops
from whiteboard.ops.checking.run_once import run

ROOT = Path(__file__).parents[1]


def loaded(name: str) -> Any:
    """Return a module of scripts/benching, which is no package that is installed."""
    path = ROOT / "scripts" / "benching" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benching_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


measure, peers = loaded("measure"), loaded("peers")


def test_compute_reports_every_table(tmp_path: Path) -> None:
    """A short run prints the tables and the machine, and writes the same as JSON."""
    file = tmp_path / "figures.json"
    done = run_script(ROOT / "scripts/benching/compute.py", "--runs", "1", "--jobs", "40", "--json", file)
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(file.read_text("utf-8"))
    assert {"processor", "python", "sqlite", "numpy", "jax"} <= figures["machine"].keys()
    assert all(title in done.stdout for title in figures["tables"])
    misses = figures["tables"]["Misses (µs a job)"]
    asked = [(row["op"], row["D"], row["bin"]) for row in misses]
    assert asked[:9] == [("mul", d, size) for d in (8, 64, 1024) for size in (1, 16, 256)]
    assert {"pipeline", "kernel", "autograd"} <= misses[0].keys()
    stages = [row["stage"] for row in figures["tables"]["Where the time goes (µs a job)"]]
    assert {"queue", "triage", "key", "bin", "gather", "forward", "backward", "separate", "sink", "whole"} <= set(
        stages
    )


def test_moving_reports_every_task(tmp_path: Path) -> None:
    """A short run measures each way to move a cache beside SQLite's own copy, with its peak of memory."""
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/benching/moving.py", "--runs", "1", "--count", "600", "--json", file],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (rows,) = json.loads(file.read_text("utf-8"))["tables"].values()
    assert [row["what"] for row in rows] == [
        "sqlite3's own copy",
        "merge",
        "merge of what is there",
        "export",
        "import into a new store",
        "import of what is there",
        "recompress",
    ]
    assert all(row["s"] > 0 and row["peak MB"] > 1 for row in rows)


def test_sources_reports_every_size(tmp_path: Path) -> None:
    """A short run measures what keeping sources takes, of random numbers and of smooth ones."""
    file = tmp_path / "figures.json"
    done = run_script(ROOT / "scripts/benching/sources.py", "--runs", "1", "--sizes", "8", "512", "--json", file)
    assert (done.returncode, done.stderr) == (0, "")
    (rows,) = json.loads(file.read_text("utf-8"))["tables"].values()
    assert [(row["source bytes"], row["numbers"]) for row in rows] == [
        (64, "random"),
        (4096, "random"),
        (64, "smooth"),
        (4096, "smooth"),
    ]
    assert all(row["bytes"] < row["bytes, kept"] < 2.5 * row["bytes"] for row in rows)


def test_calls_reports_hits_and_misses(tmp_path: Path) -> None:
    """A short run measures one call at a time in each way, beside diskcache and joblib."""
    file = tmp_path / "figures.json"
    done = run_script(
        ROOT / "scripts/benching/calls.py", "--runs", "1", "--calls", "20", "--packages", "600", "--json", file
    )
    assert (done.returncode, done.stderr) == (0, "")
    (rows,) = json.loads(file.read_text("utf-8"))["tables"].values()
    assert [row["what"] for row in rows] == ["hit"] * 5 + ["miss"] * 3 + ["cold"] * 2
    assert all(row["µs"] > 0 for row in rows)


def test_start_reports_what_a_fresh_process_waits_for(tmp_path: Path) -> None:
    """A short run has a process open a store, and one that asks for what lies in it."""
    file = tmp_path / "figures.json"
    done = run_script(ROOT / "scripts/benching/start.py", "--runs", "1", "--what", "first hit", "--json", file)
    assert (done.returncode, done.stderr) == (0, "")
    (rows,) = json.loads(file.read_text("utf-8"))["tables"].values()
    assert [row["what"] for row in rows] == ["first hit after open"]
    assert 0 < rows[0]["least"] <= rows[0]["median"]


def test_growth_reports_each_size_beside_the_first(tmp_path: Path) -> None:
    """A short run measures two small stores, and says of every figure how many times the first the second is."""
    file = tmp_path / "figures.json"
    given = ("--runs", "1", "--sizes", "10000", "20000", "--batches", "1", "--json", file)
    done = run_script(ROOT / "scripts/benching/growth.py", *given)
    assert (done.returncode, done.stderr) == (0, "")
    (rows,) = json.loads(file.read_text("utf-8"))["tables"].values()
    found = {row["what"]: row for row in rows}
    assert {"open, ms", "hit, µs a job", "one key, µs", "miss, durable, µs a job", "diskcache get, µs"} <= found.keys()
    for row in rows:
        first, other = row["10,000"], row["20,000"]
        assert first is None or first > 0  # what took too short a time to tell has no figure
        assert row["20,000 ÷ first"] == (other / first if first and other else None)


def test_large_reports_each_kind(tmp_path: Path) -> None:
    """A short run measures misses and hits of one size beside diskcache and raw sqlite3."""
    file = tmp_path / "figures.json"
    given = ("--runs", "1", "--sizes", "49152", "--dtypes", "float32", "--kinds", "smooth", "--json", file)
    done = run_script(ROOT / "scripts/benching/large.py", *given)
    assert (done.returncode, done.stderr) == (0, "")
    ((row,),) = json.loads(file.read_text("utf-8"))["tables"].values()
    assert (row["bytes"], row["dtype"], row["numbers"]) == (49_152, "float32", "smooth")
    assert all(row[f"{what}, {by}"] > 0 for what in ("miss", "hit") for by in ("nodes", "call", "diskcache", "sqlite3"))


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("measure",), ("../setup",)])
def test_an_unknown_benchmark_is_answered_with_those_there_are(arguments: tuple[str, ...]) -> None:
    """Without a kind, or with one that is no benchmark, the script says which there are, with status 2."""
    done = subprocess.run([ROOT / "scripts/bench", *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: scripts/bench KIND [OPTIONS…], where KIND is one of: calls compute")


@pytest.mark.parametrize("name", peers.PEERS)
def test_the_peers_compute_what_whiteboard_does(name: str) -> None:
    """By hand and by autograd the same op gives the same results, so that the comparison is of the same work."""
    peer, rng = peers.PEERS[name], np.random.default_rng(0)
    stacked = [rng.normal(size=(7, 5)) for _ in range(peer.arity)]
    trial = run(ops.get(name), stacked)
    jobs = list(zip(*(list(x) for x in stacked), strict=True))
    for results in (peers.stack_and_split(peer.by_hand, 3)(jobs), peers.autograd_jobs(name)(jobs)):
        for i, (y, *grads) in enumerate(results):
            for got, expected in zip((y, *grads), (trial.y[i], *(grad[i] for grad in trial.grads)), strict=True):
                np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)


class Clock:
    """Something whose methods call one another."""

    def outer(self) -> int:
        """Call the inner one twice."""
        return self.inner() + self.inner()

    def inner(self) -> int:
        """Return 1."""
        return 1


def test_stages_are_timed_without_what_they_call_and_put_back_afterwards() -> None:
    """Each function named has a stage, its results pass through, and it is itself again after the block."""
    before = dict(Clock.__dict__)
    stages = measure.Stages()
    with stages.watching([(Clock, "outer", "a"), (Clock, "inner", "b")]):
        assert Clock().outer() == 2
    assert stages.seconds.keys() == {"a", "b"}
    assert all(seconds > 0 for seconds in stages.seconds.values())
    assert dict(Clock.__dict__) == before


def test_a_median_is_of_the_work_alone() -> None:
    """The setup runs before each run, and what it returns is what the work gets."""
    seen: list[int] = []
    numbers = iter(range(10))
    assert len(measure.timings(seen.append, lambda: next(numbers), runs=3)) == 3
    measure.interleaved({"a": (seen.append, lambda: 10), "b": (seen.append, lambda: 20)}, runs=2)
    assert seen == [0, 1, 2, 10, 20, 10, 20]


def test_a_table_is_aligned() -> None:
    """Numbers are to the right, text to the left, and what a row does not have is empty."""
    text = measure.table("title", [{"what": "a", "n": 12_345}, {"what": "bcd", "n": 1, "x": 0.12345}])
    assert text.splitlines() == [
        "title",
        "",
        "what       n      x",
        "-------------------",
        "a     12,345",
        "bcd        1  0.123",
    ]
