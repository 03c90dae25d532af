"""A store that is moved, removed, replaced or linked while it is open is noticed; nothing is acknowledged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import whiteboard as wb
from tests.test_takeover import step


def replaced(path: Path) -> None:
    """As a backup that is restored does."""
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


DEEDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "moved": (lambda path: path.rename(path.with_name("b.db")), "moved, removed or replaced"),
    "removed": (Path.unlink, "moved, removed or replaced"),
    "replaced": (replaced, "moved, removed or replaced"),
    "linked": (lambda path: path.with_name("b.db").hardlink_to(path), "has a second name"),
    "its log removed": (lambda path: Path(f"{path}-wal").unlink(), "the log .* was moved, removed"),
    "its folder moved": (lambda path: path.parent.rename(path.parent.with_name("other")), "moved, removed or replaced"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("deed", DEEDS)
def test_what_happens_to_the_file_is_noticed(tmp_path: Path, deed: str) -> None:
    """At the next flush and the next commit: a StoreError, and the system stands where it stood."""
    do, says = DEEDS[deed]
    place = tmp_path / "place"
    place.mkdir()
    board = wb.open(place / "a.db")
    system = board.system("s")
    step(system)
    before = system.digest()
    do(place / "a.db")
    board.call("exp", np.arange(3.0))
    with pytest.raises(wb.StoreError, match=says):
        board.flush()
    with pytest.raises(wb.StoreError, match=says):
        step(system)
    assert (system.digest(), system.head is not None and system.head.id) == (before, 0)
    with pytest.raises(wb.StoreError, match=says):
        board.close()


def test_a_second_name_may_go_again(tmp_path: Path) -> None:
    """Then the board goes on: nothing was lost meanwhile."""
    with wb.open(tmp_path / "a.db") as board:
        system = board.system("s")
        step(system)
        os.link(tmp_path / "a.db", tmp_path / "b.db")
        with pytest.raises(wb.StoreError, match="second name"):
            step(system)
        (tmp_path / "b.db").unlink()
        assert system.commit(wb.rules.Relax(0.1, 1e-3, 1e-3)).id == 1
