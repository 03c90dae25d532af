"""A store in a schema: one that is emptied after each test, as making one takes a second, or one of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.engine import make_url

from tests import postgres
from whiteboard.storage.sql.metadata import metadata


@pytest.fixture(scope="session")
def _shared() -> Iterator[str]:
    with postgres.schema() as url:
        yield url


@pytest.fixture
def url(_shared: str) -> Iterator[str]:
    """Where an empty store is, or may be made."""
    yield _shared
    empty(_shared)


def empty(url: str) -> None:
    """Empty a store, where there is one."""
    name = make_url(url).query["schema"]
    tables = ", ".join(f'"{name}".{table}' for table in metadata.tables if table not in ("recent", "gathered", "known"))
    if postgres.run(f"SELECT to_regclass('\"{name}\".page')") != [(None,)]:
        postgres.run(f"TRUNCATE {tables} RESTART IDENTITY")


@pytest.fixture
def fresh() -> Iterator[str]:
    """Where no store is yet."""
    with postgres.schema() as url:
        yield url
