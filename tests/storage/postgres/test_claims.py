"""Claims on a server: each key is one client's at a time, and nobody's once its session is gone, however it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.engine import make_url

from tests import postgres
from tests.evaluation.test_elsewhere import computed, processes, told, until_begun
from tests.storage.cache.test_claims import parts, taken
from tests.storage.samples import assert_found, keys_of, page_of
from whiteboard.errors import ConflictError
from whiteboard.storage import Stores, open_store


@pytest.fixture
def stores(url: str) -> Iterator[Stores]:
    """Return an open store."""
    with open_store(url, memory_bytes=0) as opened:
        yield opened


def test_each_key_is_computed_once(url: str, tmp_path: Path) -> None:
    """Four processes and the same 16 keys of 100 ms: 16 are computed, and what they count agrees."""
    with processes(tmp_path, 4, 16, 0.1, store=url) as begun:
        said = [told(each) for each in begun]
    assert computed(tmp_path) == Counter(range(16))
    assert sum(each["misses"] for each in said) == 16
    assert sum(each["hits_disk"] + each["hits_memory"] for each in said) == 48
    with open_store(url) as stores:
        assert stores.info()["claims"] == 0


def test_a_killed_client_is_replaced(url: str, tmp_path: Path) -> None:
    """After kill -9 of one in the middle the others end, and only what was under way there is computed again."""
    with processes(tmp_path, 2, 12, 0.05, store=url) as begun:
        until_begun(tmp_path, 4)
        begun[0].kill()
        begun[0].wait()
        said = told(begun[1])
    again = computed(tmp_path)
    assert set(again) == set(range(12))
    assert max(again.values()) <= 2
    assert sum(again.values()) <= 12 + 4
    assert said["took"] < 20


def test_each_key_is_in_one_part(stores: Stores) -> None:
    """Found, held, mine and left are of one moment; what was given back, dropped or settled is free, or found."""
    stores.packages.put(page_of([0, 1]))
    stores.packages.flush()
    first = taken(stores.packages, range(6), 2, seconds=2.5)
    assert parts(first) == [[0, 1], [], [2, 3], [4, 5]]
    second = taken(stores.packages, [5, 3, 2, 1, 0])
    assert parts(second) == [[3, 4], [1, 2], [0], []]
    assert [each.seconds for each in stores.packages.holders(keys_of([3, 4]))] == [2.5]
    stores.packages.settle([page_of([2, 3])], first)
    assert stores.packages.holders(keys_of([2, 3])) == []
    assert_found(stores.packages.find(keys_of(range(4))), range(4), lambda _: True)
    del second
    assert stores.info()["claims"] == 1  # the row of one that was dropped, as an interrupt leaves it
    again = taken(stores.packages, [5])
    assert parts(again)[2] == [0]
    again.release()
    again.release()
    assert stores.info()["claims"] == 0


def test_claims_end_with_their_session(stores: Stores, url: str) -> None:
    """A session that the server has ended holds nothing; the next claim makes another, which holds the writer's too."""
    with open_store(url) as other:
        stores.claim("a")
        claim = taken(stores.packages, range(3))
        assert parts(taken(other.packages, range(3)))[1] == [0, 1, 2]
        postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'whiteboard'")
        assert parts(taken(other.packages, range(3)))[2] == [0, 1, 2]
        again = taken(stores.packages, [7])
        with pytest.raises(ConflictError, match="is written by"):
            other.claim("a")
        claim.release()
        again.release()


def test_damaged_rows_and_dead_ones(stores: Stores, url: str) -> None:
    """A row that says no process, or no lock's number, holds nothing; `gc` deletes those of the dead."""
    schema = make_url(url).query["schema"]
    claims = [taken(stores.packages, range(number, number + 3)) for number in (0, 3, 6)]
    with stores.database.read() as connection:
        numbers = list(connection.exec_driver_sql("SELECT id FROM claim").scalars())
    for number, change in zip(numbers, ("hashes = ''", "pid = -1", "id = -5"), strict=True):
        postgres.run(f'UPDATE "{schema}".claim SET {change} WHERE id = {number}')
    assert len(stores.packages.holders(keys_of(range(9)))) == 0
    stores.gc()
    assert stores.info()["claims"] == 1  # the lock of the first is held
    for claim in claims:
        claim.release()
    assert stores.info()["claims"] == 0
    assert np.array_equal(taken(stores.packages, range(9)).mine, np.arange(9))
