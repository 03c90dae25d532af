"""The board that tests of systems run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import whiteboard as wb


@pytest.fixture
def board() -> Iterator[wb.Board]:
    """Return a board in memory."""
    with wb.open(":memory:") as opened:
        yield opened
