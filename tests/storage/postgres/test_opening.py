"""Opening a store on a server: behind a pooler, of an older schema, and beside another who begins the same."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from tests.storage.samples import Model, assert_found, assert_state, keys_of, page_of
from whiteboard.errors import SchemaError, SpecError, StoreError
from whiteboard.records.systems import SystemRecord
from whiteboard.storage import open_store, opening
from whiteboard.storage.commits import versions
from whiteboard.storage.postgres.connecting import connect
from whiteboard.storage.sql.location import locate
from whiteboard.storage.sqlite.schema import HEAD, run


def test_a_pooler_in_front(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process that answers is not the one that was connected to, sessions are shared: it is refused."""
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", 7)
    with pytest.raises(StoreError, match="a pooler of connections is in front"):
        open_store(url)


def test_a_search_path_of_its_own(url: str) -> None:
    """An option that leads to other tables is refused as well."""
    other = make_url(url).update_query_dict({"options": "-csearch_path=public"})
    with pytest.raises(StoreError, match="name the server itself"):
        open_store(other.render_as_string())


def test_an_older_schema(fresh: str) -> None:
    """A store of an older schema is refused with the command that upgrades it, and then has all that it had."""
    model = Model("a", 5)
    with open_store(fresh) as stores:
        stores.packages.put(page_of(range(20)))
        stores.versions.append(model.record, *model.step(), model.columns)
    engine = create_engine("postgresql+psycopg://", creator=lambda: connect(locate(fresh)), use_native_hstore=False)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        run(connection, "0001")
        connection.exec_driver_sql("COMMIT")
    engine.dispose()
    with pytest.raises(SchemaError, match=f"0001 is older than {HEAD}; run `whiteboard db upgrade"):
        open_store(fresh)
    assert opening.revision(fresh) == "0001"
    assert (opening.upgrade(fresh).before, opening.revision(fresh)) == ("0001", HEAD)
    with open_store(fresh) as stores:
        assert_found(stores.packages.find(keys_of(range(20))), range(20), lambda _: True)
        assert_state(stores.versions.state("a"), *model.kept[-1])
        assert stores.packages.claim() is not None
        stores.gc(max_bytes=0)
        assert stores.info()["evicted"]["gc"]["packages"] == 20


def test_another_is_faster(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two first commits that are written at the same time, the later one is told what a late one is."""
    mine, theirs = Model("a", 5, seed=9), Model("a", 5)
    insert: Any = versions.__dict__["add_system"]
    with open_store(url) as one, open_store(url) as two:

        def late(*given: Any) -> Any:
            """Let the other commit within the transaction of the first, once it has looked."""
            monkeypatch.undo()
            two.versions.append(theirs.record, *theirs.step(), theirs.columns)
            return insert(*given)

        monkeypatch.setattr(versions, "add_system", late)
        with pytest.raises(SpecError, match="exists already"):
            one.versions.append(SystemRecord("a", "another uuid"), *mine.step(), mine.columns)
        assert one.versions.commits("a") == [commit for commit, _ in theirs.kept]
