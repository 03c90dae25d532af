"""``whiteboard log``, ``diff`` and ``fork``."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli, assert_refused

pytestmark = pytest.mark.usefixtures("europe")


def test_log_shows_the_commits(cli: Cli) -> None:
    """`log` lists commits from the last one back, with their measure and digest."""
    done = cli("log", "europe", "--json")
    assert done.code == 0
    commits = done.said["commits"]
    assert [commit["commit"] for commit in commits] == [4, 3, 2, 1, 0]
    assert commits[-1]["relative_stress"] is None
    done = cli("log", "europe", "--last", "2")
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.split()[:2] for line in lines] == [["4", commits[0]["digest"]], ["3", commits[1]["digest"]]]


def test_fork_and_diff(cli: Cli) -> None:
    """A fork stands where it was taken, goes on to the same bits, and diff says where it stands meanwhile."""
    done = cli("fork", "europe", "again", "--at", "2", "--json")
    assert done.code == 0
    assert done.said["commit"] == 2
    done = cli("diff", "europe@2", "again", "--json")
    assert done.code == 0
    assert done.said["same"]
    done = cli("diff", "europe", "again", "--json")
    assert done.code == 1
    fields = done.said
    assert (fields["commits"], fields["versions_differ"], fields["values_differ"]) == ([4, 2], 21, 21)
    assert fields["largest_difference"]["p"] > 0
    done = cli("run", "europe", "--name", "again", "--rounds", "4", "--json")
    assert done.code == 0
    assert done.said["misses"] == 0
    done = cli("diff", "europe", "again")
    assert done.code == 0
    assert "same                yes" in done.out


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
def test_mistakes_are_named(arguments: tuple[str, ...], says: str, cli: Cli) -> None:
    """An unknown system or commit is one line on stderr."""
    assert_refused(cli(*arguments), 1, says)
