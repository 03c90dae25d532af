"""The command that says why a job is a hit or a miss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from whiteboard.cli import status


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs the command line in a folder with a store, and gives status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = status(arguments)
        return code, *capfd.readouterr()

    assert run("run", "europe", "--rounds", "2", "--quiet")[0] == 0
    return run


def test_a_job_and_its_key(cli: Any) -> None:
    """A job over moved nodes is a miss that names both versions; the key of what it found is a hit."""
    code, out, err = cli("explain", "--system", "europe", "--job", "distance", "1", "2", "--attr", "p")
    assert (code, err) == (0, "")
    assert out.startswith("a miss: the nearest package of op 'distance', computed from nodes 1 at version 1, 2 at")
    code, out, _ = cli("explain", "--system", "europe", "--job", "distance", "1", "2", "--attr", "p", "--json")
    said = json.loads(out)
    assert (said["hit"], said["differences"][0]["what"]) == (False, "source")
    code, out, _ = cli("explain", "--key", said["package"]["key"], "--json")
    assert (code, json.loads(out)["hit"]) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ((), 2, "--system NAME --job OP SRC"),
        (("--job", "distance", "1", "2"), 2, "--system NAME"),
        (("--system", "europe", "--job", "distance"), 2, "SRC"),
        (("--key", "xyz"), 2, "32 hexadecimal"),
        (("--system", "x", "--job", "distance", "1", "2"), 1, "no system 'x'"),
        (("--system", "europe", "--job", "distanse", "1", "2"), 1, "did you mean 'distance'"),
        (("--system", "europe", "--job", "distance", "1", "99", "--attr", "p"), 1, "no node 99"),
        (("--system", "europe", "--job", "sum", "1", "--attr", "p", "--param", "axis"), 2, "NAME=JSON"),
    ],
)
def test_bad_input_is_one_line(cli: Any, arguments: tuple[str, ...], code: int, word: str) -> None:
    """What cannot be explained is one line on stderr, with its status."""
    got, out, err = cli("explain", *arguments)
    assert (got, out) == (code, "")
    assert word in err
    assert len(err.splitlines()) == 1
