"""Commits: what they count, the same bits whatever the way, and nothing done by one that fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import whiteboard as wb
from tests.systems.samples import N, edges, filled
from whiteboard.errors import NonFiniteError, ParamError, ShapeError


def test_versions_count_the_commits_that_change_bytes(board: wb.Board) -> None:
    """A node's version goes up by one at each commit that changes it, and only then."""
    system = filled(board)
    assert system.head is None
    first = system.commit()
    assert (first.id, first.parent, first.changed, first.stress) == (0, None, N, None)
    system.process([wb.Job("distance", (0, 1), target=3.0, attr="p")])
    second = system.commit(wb.rules.StressDescent(0.5))
    assert (second.id, second.parent, second.changed) == (1, 0, 2)
    assert [system.nodes[i].version for i in range(N)] == [1, 1] + [0] * (N - 2)
    assert system.commit().changed == 0
    assert [commit.id for commit in system.history()] == [0, 1, 2]


@settings(deadline=None, max_examples=25)
@given(
    st.permutations(range(40)), st.lists(st.integers(0, 40), max_size=4), st.sampled_from([1, 3, 1024]), st.booleans()
)
def test_one_digest_for_any_order_split_bin_and_tier(
    order: list[int], cuts: list[int], bin_jobs: int, memory: bool
) -> None:
    """Order and split of the jobs, bin size, memory tier, and batch or list leave the digest as it is."""
    pairs, lengths = edges()
    scale = 1 / lengths**2
    with wb.open(":memory:") as plain:
        reference = filled(plain)
        for _ in range(3):
            reference.process(wb.JobBatch("distance", pairs, target=lengths, scale=scale, attr="p"))
            reference.commit(wb.rules.StressDescent(0.9))
    with wb.open(":memory:", memory_bytes=10**6 if memory else 0, bin_jobs=bin_jobs) as board:
        system = filled(board)
        for _ in range(3):
            for rows in np.split(np.array(order), sorted(cuts)):
                system.process(
                    [wb.Job("distance", pairs[i], target=lengths[i], scale=scale[i], attr="p") for i in rows]
                )
            commit = system.commit(wb.rules.StressDescent(0.9))
        assert reference.head == commit
        assert system.digest() == commit.digest


def test_a_rule_that_fails_changes_nothing(board: wb.Board) -> None:
    """A rule with a non-finite, misshapen or failing result leaves state, impulses and history as they were."""
    system = filled(board)
    system.commit()
    before = system.digest()
    system.process([wb.Job("distance", (0, 1), target=3.0, attr="p")])
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda rows, sums: rows * np.nan, NonFiniteError, "the new p of node 0, 1 is not finite"),
        (lambda rows, sums: rows[:1], ShapeError, r"expected float64 of shape \(2, 2\), got float64 of shape \(1, 2\)"),
        (lambda rows, sums: rows.astype("f4"), ShapeError, "got float32"),
        (lambda rows, sums: 1 / 0, ZeroDivisionError, "division"),
        (lambda rows, sums: rows.sort() or rows, ValueError, "read-only"),
        (None, ParamError, "2 impulses wait, so a rule is needed"),
    ]
    for rule, error, says in cases:
        with pytest.raises(error, match=says):
            system.commit(rule)
        assert (system.digest(), len(system.history())) == (before, 1)
    assert system.commit(wb.rules.StressDescent(0.5)).changed == 2
