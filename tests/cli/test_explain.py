"""The command that says why a job is a hit or a miss."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Cli, assert_refused

pytestmark = pytest.mark.usefixtures("europe")


def test_a_job_and_its_key(cli: Cli) -> None:
    """A job over moved nodes is a miss that names both versions; the key of what it found is a hit."""
    code, out, err = cli("explain", "--system", "europe", "--job", "distance", "1", "2", "--attr", "p")
    assert (code, err) == (0, "")
    assert out.startswith("a miss: the nearest package of op 'distance', computed from nodes 1 at version 3, 2 at")
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
def test_bad_input_is_one_line(cli: Cli, arguments: tuple[str, ...], code: int, word: str) -> None:
    """What cannot be explained is one line on stderr, with its status."""
    assert_refused(cli("explain", *arguments), code, word)
