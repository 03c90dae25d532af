"""``whiteboard log``, ``diff`` and ``fork``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from whiteboard.cli import status


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Work in an empty folder that holds a run of four rounds."""
    monkeypatch.chdir(tmp_path)
    assert status(["run", "europe", "--rounds", "4", "--quiet"]) == 0


def test_log_shows_the_commits(capfd: pytest.CaptureFixture[str]) -> None:
    """`log` lists commits from the last one back, with their measure and digest."""
    assert status(["log", "europe", "--json"]) == 0
    commits = json.loads(capfd.readouterr().out)["commits"]
    assert [commit["commit"] for commit in commits] == [4, 3, 2, 1, 0]
    assert commits[-1]["relative_stress"] is None
    assert status(["log", "europe", "--last", "2"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["4", commits[0]["digest"]], ["3", commits[1]["digest"]]]


def test_fork_and_diff(capfd: pytest.CaptureFixture[str]) -> None:
    """A fork stands where it was taken, goes on to the same bits, and diff says where it stands meanwhile."""
    assert status(["fork", "europe", "again", "--at", "2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["commit"] == 2
    assert status(["diff", "europe@2", "again", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["same"]
    assert status(["diff", "europe", "again", "--json"]) == 1
    fields = json.loads(capfd.readouterr().out)
    assert (fields["commits"], fields["versions_differ"], fields["values_differ"]) == ([4, 2], 21, 21)
    assert fields["largest_difference"]["p"] > 0
    assert status(["run", "europe", "--name", "again", "--rounds", "4", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["misses"] == 0
    assert status(["diff", "europe", "again"]) == 0
    assert "same                yes" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("log", "asia"), "no system 'asia'; it has europe"),
        (("diff", "europe", "asia@3"), "no system 'asia'"),
        (("diff", "europe", "europe@9"), "no commit 9"),
        (("fork", "europe", "europe"), "'europe' exists already"),
        (("fork", "europe", "new", "--at", "9"), "no commit 9"),
    ],
)
def test_mistakes_are_named(arguments: tuple[str, ...], says: str, capfd: pytest.CaptureFixture[str]) -> None:
    """An unknown system or commit is one line on stderr."""
    assert status(arguments) == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says in err
