"""Where packages came from: samples of them, and the values of their sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.storage.samples import Model, page_of, transaction
from whiteboard.errors import ParamError
from whiteboard.records.systems import NodeValues
from whiteboard.storage import Stores, open_store
from whiteboard.storage.commits import provenance


@pytest.fixture
def stores(path: Path) -> Iterator[Stores]:
    """A store of ten pages of 100 packages."""
    with open_store(path) as stores:
        for page in range(10):
            stores.packages.put(page_of(range(100 * page, 100 * page + 100)))
            stores.packages.flush()
        yield stores


@pytest.mark.parametrize(("sample", "pages", "packages"), [(0, 0, 0), (0.04, 2, 40), (0.25, 5, 250), (1, 10, 1000)])
def test_a_sample_reads_few_pages(stores: Stores, sample: float, pages: int, packages: int) -> None:
    """A sample has its share of the packages, on √sample of the pages; another seed gives another one."""
    parts = provenance.sampled(stores.database, sample, 0)
    assert (len(parts), sum(len(part.rows) for part in parts)) == (pages, packages)
    for part in parts:
        page = provenance.read(stores.database, part)
        assert page is not None
        assert page.src_ids is not None
        assert page.src_ids[:, 0].tolist() == (100 * (part.page_id - 1) + part.rows).tolist()
    if 0 < sample < 1:
        other = provenance.sampled(stores.database, sample, 1)
        assert [part.rows.tolist() for part in other] != [part.rows.tolist() for part in parts]


def test_a_sample_is_a_part(stores: Stores) -> None:
    """A part that is none is refused."""
    with pytest.raises(ParamError, match="between 0 and 1"):
        provenance.sampled(stores.database, 1.5, 0)


def test_a_page_that_has_gone_is_none(stores: Stores) -> None:
    """A page that was evicted or damaged since it was chosen wants nothing and is None."""
    parts = provenance.sampled(stores.database, 1, 0)
    with transaction(stores.database) as connection:
        connection.exec_driver_sql("DELETE FROM page WHERE id = 1")
        connection.exec_driver_sql("UPDATE page SET data = x'00' WHERE id = 2")
    assert [provenance.read(stores.database, part) is None for part in parts] == [True, True] + [False] * 8
    assert sorted(provenance.wanted(stores.database, parts)) == list(range(200, 1000))


def test_values_are_those_of_their_versions(stores: Stores) -> None:
    """Each wanted version comes with the bytes it had, whether written as a change or in a keyframe."""
    model = Model("a", 6)
    kept = []
    for number in range(12):
        stores.versions.append(model.record, *model.step(slice(number % 6)), model.columns)
        kept.append((model.versions.copy(), model.values.copy()))
    wanted = {int(node): list(range(13)) for node in model.ids}
    (values,) = provenance.node_values(stores.database, wanted)
    assert (values.system, values.attr) == ("a", "theta")
    for versions, rows in kept:
        for node, version, row in zip(model.ids.tolist(), versions.tolist(), rows, strict=True):
            np.testing.assert_array_equal(values.at(node, version), row)
    assert values.at(99, 0) is None


def test_only_what_is_wanted_is_kept() -> None:
    """Of a history, only the rows that answer a wanted version stay in memory."""
    values = NodeValues("a", "p")
    for version in (0, 2, 3, 3, 7, 9):
        values.keep(1, version, np.array(version), [2, 5])
    assert [None if (value := values.at(1, version)) is None else int(value) for version in (2, 5)] == [2, 3]
    assert values.at(1, 0) is None
    assert sum(len(versions) for versions, _ in values._kept.values()) == 2
