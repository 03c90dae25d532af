"""Two boards over one system: one of them writes, and what the other tries is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import whiteboard as wb
from tests.systems.samples import filled
from whiteboard.errors import ConflictError


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    """A system has one writing board; others may read it, and one of them takes over when it is closed."""
    path = tmp_path / "store.db"
    with wb.open(path) as two:
        with wb.open(path) as one:
            filled(one).commit()
            second = two.system("s")
            assert len(second.history()) == 1
            for use in (second.commit, lambda: second.process([]), lambda: second.impulse(0, 1, "mul", np.ones(3))):
                with pytest.raises(ConflictError, match="'s' is written by another board of this process"):
                    use()
        second.process([wb.Job("distance", (0, 1), target=3.0, attr="p")])
        assert second.commit(wb.rules.StressDescent(0.5)).id == 1


def test_a_commit_onto_a_head_that_moved_loses_nothing(tmp_path: Path) -> None:
    """After a takeover the commit of the deposed writer is refused, and its state is what it was; the other goes on."""
    path = tmp_path / "store.db"
    with wb.open(path) as one, wb.open(path) as two:
        first = filled(one)
        first.commit()
        second = two.system("s", takeover=True)
        for system in (second, first):
            system.process([wb.Job("distance", (0, 1), target=3.0, attr="p")])
        kept = first.digest()
        second.commit(wb.rules.StressDescent(0.5))
        with pytest.raises(ConflictError, match="'s'"):
            first.commit(wb.rules.StressDescent(0.5))
        assert first.digest() == kept
        assert len(two.system("s").history()) == 2
