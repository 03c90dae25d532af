"""A store in a file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from whiteboard.storage import Stores, open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store may be made."""
    return tmp_path / "a.db"


@pytest.fixture
def stores(path: Path) -> Iterator[Stores]:
    """An empty store, opened."""
    with open_store(path) as stores:
        yield stores
