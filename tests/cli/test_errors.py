"""Errors of the command line: one line that names the thing, and its status, whatever it is given."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.cli.conftest import Cli, assert_refused

HUGE = "9" * 30


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (f"gc --max-bytes {HUGE}", 2, "too large"),
        (f"gc --older-than {HUGE}", 2, "too large"),
        ("gc --max-bytes -1", 2, "not a size"),
        ("gc --max-bytes nan", 2, "not a size"),
        (f"log s --last {HUGE}", 2, "--last"),
        (f"run europe --rounds {HUGE}", 2, "--rounds"),
        (f"run europe --seed {HUGE}", 2, "--seed"),
        (f"diff s@{HUGE} s", 1, "has no commit"),
        (f"diff s@{'9' * 5000} s", 1, "has no system"),
        ("fork s y --at 9223372036854775807", 1, "has no commit 9223372036854775807"),
        (f"fork s y --at {HUGE}", 2, "--at"),
        (f"explain --system s --job mul {HUGE} 1", 2, "range"),
        ("explain --system s --job mul 9223372036854775807 1 --attr p", 1, "no node 9223372036854775807"),
        (f"forget --op mul --version {HUGE}", 2, "--version"),
        ("verify --sample nan", 1, "sample must lie between 0 and 1"),
        ("verify --sample inf", 2, "--sample"),
        (f"verify --seed {HUGE}", 2, "--seed"),
    ],
)
def test_numbers_that_are_none(small: Path, cli: Cli, command: str, code: int, says: str) -> None:
    """An option of any digits is one line."""
    assert_refused(cli(*command.split(), "--store", "s.db"), code, says)


@pytest.mark.parametrize(
    "spec",
    [
        {"measure": "mse"},
        {"measure": "mse", "jobs": 0},
        {"measure": "mse", "jobs": "many"},
        {"measure": "mse", "jobs": 10**40},
        {"measure": "relative_stress", "jobs": None},
        {"measure": ["mse"]},
        {"measure": {"a": 1}, "jobs": [1]},
        {"jobs": 3},
    ],
)
def test_any_specification_is_shown(tmp_path: Path, cli: Cli, spec: dict[str, Any]) -> None:
    """Words that experiments use may mean something else in a system of a user's own."""
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("x", spec)
        system.add_nodes([0, 1], p=np.array([[0.0, 0.0], [3.0, 4.0]]))
        system.commit()
        system.process([wb.Job("distance", (0, 1), attr="p", target=1.0)])
        system.commit(wb.rules.StressDescent(0.5))
    for command in ("show x", "log x", "ls"):
        done = cli(*command.split(), "--store", "a.db", "--json")
        assert (done.code, done.err) == (0, "")
    assert json.loads(cli("show", "x", "--store", "a.db", "--json").out)["spec"] == spec


def test_what_is_not_finite_is_null_with_a_note(tmp_path: Path, cli: Cli) -> None:
    """JSON stays JSON: a residual whose square overflows is null, and what it was stands beside."""
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("x", {"measure": "mse", "jobs": 1})
        system.add_nodes([0, 1], p=np.array([[0.0], [1e200]]))
        system.commit()
        system.process([wb.Job("distance", (0, 1), attr="p", target=1.0, scale=1e-200)])
        system.commit(wb.rules.StressDescent(0.5))
    said = {}
    for command in ("show x", "log x", "ls"):
        done = cli(*command.split(), "--store", "a.db", "--json")
        assert (done.code, done.err) == (0, "")
        said[command] = json.loads(done.out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert (said["show x"]["mse"], said["show x"]["not_finite"]) == (None, {"mse": "Infinity"})
    assert said["log x"]["commits"][0]["mse"] is None
    assert said["log x"]["not_finite"] == {"commits[0].mse": "Infinity"}
    assert said["ls"]["systems"][0]["not_finite"] == {"mse": "Infinity"}


# -- many systems


def test_systems_are_listed_as_they_are_read(tmp_path: Path, cli: Cli) -> None:
    """One after another: the first line is out before the last system is read, and a damaged one costs only its own."""
    with wb.open(tmp_path / "a.db") as board:
        for number in range(4):
            system = board.system(f"s{number}")
            system.add_nodes([0], theta=[float(number)])
            system.commit()
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.execute("UPDATE commit_log SET seal = x'00' WHERE system_id = (SELECT id FROM system WHERE name = 's2')")
    connection.close()
    done = cli("ls", "--store", "a.db")
    lines = done.out.splitlines()
    assert (done.code, done.err, len(lines)) == (1, "", 4)
    assert [line.split()[0] for line in lines] == ["s0", "s1", "s2", "s3"]
    assert "s2  damaged: system 's2', commit 0" in lines[2]
    done = cli("ls", "--store", "a.db", "--json")
    assert ["damaged" in row for row in json.loads(done.out)["systems"]] == [False, False, True, False]
