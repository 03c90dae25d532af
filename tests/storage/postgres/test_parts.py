"""Packages that lie in parts, on a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storage.test_parts import KEYS, PART, held, put
from whiteboard.records.packages import DISK, MISS
from whiteboard.storage import open_store
from whiteboard.storage.cache.eviction import evict
from whiteboard.storage.page.codec import Encoding
from whiteboard.storage.sql import page_row
from whiteboard.storage.transfer.merge import merge
from whiteboard.storage.upkeep.recompress import recompress
from whiteboard.storage.upkeep.recompress_plan import Form
from whiteboard.storage.upkeep.remove import forget
from whiteboard.storage.upkeep.verify import verify


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_row, "MOST_DATA", PART)


def test_on_a_server(url: str, tmp_path: Path) -> None:
    """They go to a server and back, are found there, rewritten, told where damaged, and taken away."""
    put(tmp_path / "a.db")
    merge(url, [tmp_path / "a.db"])
    assert held(url) == [DISK] * 4
    recompress(url, Form(encoding=Encoding("raw", 0)))
    assert held(url) == [DISK] * 4
    merge(tmp_path / "back.db", [url])
    assert held(tmp_path / "back.db") == [DISK] * 4
    with open_store(url) as stores:
        database = stores.database
        assert verify(database).ok
        assert forget(database, key=KEYS[1].tobytes()).packages == 1
        database.write(lambda connection: connection.exec_driver_sql("DELETE FROM page_part WHERE number = 4"))
    assert held(url) == [MISS, MISS, MISS, DISK]
    put(url)
    with open_store(url) as stores:
        verify(stores.database, repair=True)
    put(url)
    assert held(url) == [DISK] * 4
    with open_store(url) as stores:
        evict(stores.database, 0)
        with stores.database.read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM page_part").scalar_one() == 0
