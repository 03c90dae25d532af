"""What was committed: its history, the states of it, a system opened again, and forks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import whiteboard as wb
from tests.systems.samples import N, edges, filled
from whiteboard.errors import ParamError, SpecError, UnknownCommitError


@pytest.mark.parametrize("where", ["store.db", ":memory:"])
def test_history_and_past_states_are_kept(where: str, tmp_path: Path) -> None:
    """Every commit can be read again, with its digest, and an unknown one is named."""
    pairs, lengths = edges()
    with wb.open(where if where == ":memory:" else tmp_path / where) as board:
        system = filled(board)
        commits = [system.commit()]
        for _ in range(5):
            system.process(wb.JobBatch("distance", pairs[:7], target=lengths[:7], attr="p"))
            commits.append(system.commit(wb.rules.StressDescent(0.4)))
        assert system.history() == commits
        for commit in commits:
            past = system.at(np.int64(commit.id))  # type: ignore[arg-type]
            assert (past.digest(), past.commit) == (commit.digest, commit)
        with pytest.raises(UnknownCommitError, match="99"):
            system.at(99)
        with pytest.raises(ParamError, match=r"expected the number of a commit, got 'last'"):
            system.at("last")  # type: ignore[arg-type]


def test_a_system_resumes_at_its_last_commit(tmp_path: Path) -> None:
    """Closed and opened again, a system has its nodes, versions, digest and history; what was not committed is gone."""
    path = tmp_path / "store.db"
    with wb.open(path) as board:
        system = filled(board)
        system.process([wb.Job("distance", (0, 1), target=3.0, attr="p")])
        commit = system.commit(wb.rules.StressDescent(0.5))
        kept = [system.nodes[i] for i in range(N)]
        system.add_nodes([100], theta=np.ones((1, 3)))
    with wb.open(path) as board:
        system = board.system("s")
        assert (system.head, system.digest(), list(system.nodes)) == (commit, commit.digest, list(range(N)))
        for before in kept:
            now = system.nodes[before.id]
            assert (now.version, now.fixed) == (before.version, before.fixed)
            assert np.asarray(now.theta).tobytes() == np.asarray(before.theta).tobytes()
            assert np.asarray(now.p).tobytes() == np.asarray(before.p).tobytes()


def test_a_system_is_written_with_its_first_commit(tmp_path: Path) -> None:
    """A system that was opened and never committed leaves nothing behind."""
    with wb.open(tmp_path / "store.db") as board:
        filled(board)
        assert board.systems() == []
        assert board.system("s").history() == []


@pytest.mark.parametrize("where", ["store.db", ":memory:"])
def test_a_fork_shares_the_past_and_goes_its_own_way(where: str, tmp_path: Path) -> None:
    """A fork has its origin's history up to a commit, and neither's later commits reach the other."""
    pairs, lengths = edges()
    rule = wb.rules.StressDescent(0.5)

    def go_on(system: wb.System, rounds: int) -> None:
        for _ in range(rounds):
            system.process(wb.JobBatch("distance", pairs, target=lengths, scale=1 / lengths**2, attr="p"))
            system.commit(rule)

    with wb.open(where if where == ":memory:" else tmp_path / where) as board:
        origin = filled(board)
        go_on(origin, 4)
        pages = board.stats()["bytes_disk"]
        fork = origin.fork("fork", at=2)
        assert board.system("fork") is fork
        assert board.stats()["bytes_disk"] - pages < 20_000
        assert fork.digest() == origin.at(2).digest()
        assert fork.history() == origin.history()[:3]
        go_on(fork, 1)
        assert fork.history() == origin.history()
        fork.write(0, theta=[0.0] * 3)
        fork.commit()
        go_on(fork, 1)
        go_on(origin, 2)
        assert len(fork.history()) == 6
        assert fork.history()[4:] != origin.history()[4:]
        twice = fork.fork("twice")
        go_on(twice, 1)
        for system in (origin, fork, twice):
            for commit in system.history():
                assert system.at(commit.id).digest() == commit.digest
        for name, at, error, says in (
            ("fork", 1, SpecError, "fork"),
            ("new", 99, UnknownCommitError, "99"),
        ):
            with pytest.raises(error, match=says):
                origin.fork(name, at=at)
        with pytest.raises(UnknownCommitError, match="no commit yet"):
            board.system("empty").fork("x")
