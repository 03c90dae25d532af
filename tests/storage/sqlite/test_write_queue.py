"""The queue of writers: what happens to who waits too long, and to who finds another lock file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storage.samples import database_of, page_of
from whiteboard.errors import StoreError
from whiteboard.storage import Stores, open_store
from whiteboard.storage.sqlite import write_queue


def test_a_writer_waits_its_turn(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that does not get its turn is one clear error and writes nothing; the next one works."""
    monkeypatch.setattr(write_queue, "WAIT_SECONDS", 0.05)
    path = stores.path
    assert path is not None
    with open_store(path) as other:
        other.packages.put(page_of([1]))

        def late() -> None:
            with pytest.raises(StoreError, match=r"another process has held .*a\.db\.lock for 0\.05 s"):
                other.packages.flush()

        database_of(stores).exclusive(late)
        assert stores.packages.stats()["packages"] == 0
        other.packages.flush()
    assert stores.packages.stats()["packages"] == 1


def test_a_lock_file_that_is_removed(stores: Stores) -> None:
    """Writers that lock a file which somebody removed, or put another in place of, find the new one."""
    lock = Path(f"{stores.path}.lock")
    for number in range(3):
        lock.unlink()
        stores.packages.put(page_of([number]))
        stores.packages.flush()
        assert lock.stat().st_mode & 0o777 == 0o600
    lock.unlink()
    lock.symlink_to("elsewhere")
    stores.packages.put(page_of([5]))
    with pytest.raises(StoreError, match=r"lock file .* cannot be opened"):
        stores.packages.flush()
    lock.unlink()
