"""Progress of a batch: what is told, and that nothing is shown where nobody looks."""

from __future__ import annotations

import io
import sys
import types
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.errors import ParamError
from whiteboard.evaluation.progress import Progress


@wb.op("progress_fussy", gradient="none", identity="fussy")
def fussy(x: Any) -> Any:
    """Raise where x is 3."""
    if x[0] == 3:
        raise ValueError("three")
    return x


class Terminal(io.StringIO):
    """What says that somebody looks."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("executor", [None, 1])
def test_what_is_told_adds_up(executor: int | None) -> None:
    """Hits, computed and failed are what the result says; nothing is computing at the end, and counts only grow."""
    x = np.array([0.0, 1, 2, 3, 4, 4, 5])[:, None]
    told: list[Progress] = []
    with wb.open(":memory:", executor=executor) as board:
        board.call_many("progress_fussy", x[:2])
        done = board.call_many("progress_fussy", x, errors="collect", progress=told.append)
        assert board.bind("progress_fussy").many(x[:2], progress=told.append).shape == (2, 1)
    first, last, other = told[0], told[-2], told[-1]
    assert (first.n, first.hits, first.computed, first.computing) == (7, 2, 0, 0)
    assert (last.hits, last.computed, last.failed, last.computing) == (3, 3, 1, 0)
    assert (last.done, last.left) == (7, 0.0)
    assert np.count_nonzero(done.hit) == last.hits
    assert (other.n, other.hits, other.rate) == (2, 2, None)
    counts = [each.done for each in told[:-1]]
    assert counts == sorted(counts)


def test_nothing_is_shown_where_nobody_looks(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """True is silent without a terminal, and a line of counts with one."""
    x = np.arange(3.0)[:, None]
    with wb.open(":memory:") as board:
        board.call_many("progress_fussy", x, progress=True)
        assert capfd.readouterr() == ("", "")
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("TERM", "xterm")
        board.call_many("progress_fussy", x, progress=True)
    assert "progress_fussy" in screen.getvalue()
    assert "3/3" in screen.getvalue()
    assert "hits 3" in screen.getvalue()


def test_a_notebook_has_a_line_that_is_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """One display, of plain text, whose last state has all jobs."""
    shown: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], *, raw: bool) -> None:
            shown.append(data["text/plain"])

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        shown.append(data["text/plain"])
        return Handle()

    kernel = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    with wb.open(":memory:") as board:
        board.call_many("progress_fussy", np.arange(3.0)[:, None], progress=True)
    assert shown[0] == "progress_fussy"
    assert shown[-1].startswith("progress_fussy: 3 of 3  hits 0  computing 0")


def test_words_are_refused() -> None:
    """What is neither a bool nor a function."""
    with wb.open(":memory:") as board, pytest.raises(ParamError, match="progress: expected True, False or a function"):
        board.call_many("progress_fussy", np.ones((1, 1)), progress="yes")  # type: ignore[arg-type]
