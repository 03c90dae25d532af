"""What all tests of inspection rely on: which packages share a page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.one_page import one_page


@pytest.fixture(autouse=True)
def _one_page() -> Iterator[None]:
    with one_page():
        yield
