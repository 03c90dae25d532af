"""The specification of a system: compared when it is opened, and the same after it was stored."""

from __future__ import annotations

from pathlib import Path

import pytest

import whiteboard as wb
from whiteboard.errors import SpecError


def test_a_name_with_another_specification_is_refused(tmp_path: Path) -> None:
    """Opening a system with another specification says what differs, before and after its first commit."""
    with wb.open(tmp_path / "store.db") as board:
        board.system("s", {"seed": 1, "rule": "a"}).commit()
        with pytest.raises(SpecError, match="seed is 1, asked for 2"):
            board.system("s", {"seed": 2, "rule": "a"})
    with wb.open(tmp_path / "store.db") as board:
        with pytest.raises(SpecError, match="rule is 'a', asked for 'absent'"):
            board.system("s", {"seed": 1})
        assert board.system("s", {"seed": 1, "rule": "a"}) is board.system("s")


def test_a_specification_survives_json(tmp_path: Path) -> None:
    """A specification with a tuple in it is the same one after it was stored."""
    for _ in range(2):
        with wb.open(tmp_path / "x.db") as opened:
            opened.system("s", {"shape": (1, 2)}).commit()
