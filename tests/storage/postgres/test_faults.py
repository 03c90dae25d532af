"""What a network and a server do to a store: nothing that was acknowledged is lost, and each error is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sqlalchemy.engine import make_url

import whiteboard as wb
from tests import postgres
from tests.storage.cache.test_claims import parts, taken
from tests.storage.postgres.proxy import Proxy
from tests.storage.samples import Model, assert_found, assert_state, environment, key_of, page_of
from whiteboard.errors import ConflictError, ReadOnlyError, SchemaError, StoreError, UnansweredError
from whiteboard.records.systems import SystemRecord
from whiteboard.storage import Stores, open_store
from whiteboard.storage.postgres import database as server


def _end_sessions() -> None:
    """End every session of the library but this one, as a restart of the server does."""
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'whiteboard'"
    postgres.run(sql)


def _step(stores: Stores, model: Model) -> None:
    commit, changed = model.step(slice(2) if model.number >= 0 else slice(None))
    stores.versions.append(model.record, commit, changed, model.columns)


def test_ended_sessions_are_replaced(url: str) -> None:
    """After all sessions were ended, a read, a flush and a commit go through: each had sent no COMMIT."""
    with open_store(url) as stores:
        model = Model("a", 5)
        _step(stores, model)
        for number in range(3):
            stores.packages.put(page_of([number]))
            _end_sessions()
            stores.packages.flush()
            _end_sessions()
            assert_found(stores.packages.find([key_of(number)]), [number], lambda _: True)
            _end_sessions()
            _step(stores, model)
            _end_sessions()
            assert_state(stores.versions.state("a"), *model.kept[-1])


def test_a_session_that_ends_in_the_middle(url: str) -> None:
    """A session that ends between two statements of a transaction has it run again, whole and once."""
    with open_store(url) as stores:
        runs: list[int] = []

        def work(connection: Any) -> None:
            runs.append(1)
            connection.exec_driver_sql("INSERT INTO page_access VALUES (?, ?, ?)", (len(runs), 1, 1))
            if len(runs) == 1:
                _end_sessions()
            connection.exec_driver_sql("INSERT INTO page_access VALUES (?, ?, ?)", (100 + len(runs), 1, 1))

        stores.database.write(work)
        with stores.database.read() as connection:
            found = list(connection.exec_driver_sql("SELECT page_id FROM page_access ORDER BY page_id").scalars())
        assert found == [2, 102]


def _through(proxy: Proxy, url: str) -> str:
    shown = make_url(url).difference_update_query(["host"]).set(host="127.0.0.1", port=proxy.port)
    return shown.render_as_string(hide_password=False)


def _proxied(url: str) -> Proxy:
    parsed = make_url(url)
    folder = parsed.query.get("host")
    if isinstance(folder, str):
        return Proxy(f"{folder}/.s.PGSQL.5432")
    return Proxy((parsed.host or "127.0.0.1", parsed.port or 5432))


def test_a_commit_whose_answer_is_lost(url: str) -> None:
    """Where a link is cut behind COMMIT, what is there is read: commit, fork, claim and packages are done, and once."""
    with _proxied(url) as proxy, open_store(_through(proxy, url)) as stores:
        model = Model("a", 5)
        for _ in range(3):
            proxy.armed = True
            _step(stores, model)
        stores.packages.put(page_of([1, 2]))
        proxy.armed = True
        stores.packages.flush()
        proxy.armed = True
        stores.versions.fork(SystemRecord("b", "another uuid", None, ("a", 1)))
        proxy.armed = True
        claim = taken(stores.packages, range(4))
        assert parts(claim) == [[1, 2], [], [0, 3], []]
        proxy.armed = True
        claim.release()
        assert proxy.cuts == 7
        assert stores.versions.commits("a") == [commit for commit, _ in model.kept]
        assert stores.packages.stats()["packages"] == 2
        assert stores.packages.inner.pending == 0  # type: ignore[attr-defined]


def test_a_commit_of_which_nothing_is_known(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server cannot be asked either, it is an error; whoever looks next reads the head: it is done, once."""
    with _proxied(url) as proxy, wb.open(_through(proxy, url)) as board:
        system = board.system("a")
        system.add_nodes([1, 2], theta=np.ones((2, 3)))
        for number in range(2):  # of the first one the store has no system yet
            with monkeypatch.context() as patch:
                patch.setattr(server, "ASK_SECONDS", -1.0)
                patch.setattr(server, "_PAUSE_SECONDS", 0.0)
                patch.setattr(server.PostgresDatabase, "_is_over", lambda *_, **__: False)
                proxy.armed = True
                with pytest.raises(UnansweredError, match="could not be asked"):
                    system.commit()
            head = system.head
            assert head is not None
            assert head.id == number
            system.write(1, theta=np.full(3, 7.0 + number))
        assert system.commit().id == 2
        assert [commit.id for commit in system.history()] == [0, 1, 2]
        assert proxy.cuts == 2


def test_a_commit_that_never_arrived(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that still waits for its COMMIT is ended, so that what becomes of it is known: it is made again."""
    monkeypatch.setattr(server, "_END_SECONDS", 0.1)
    with _proxied(url) as proxy, open_store(_through(proxy, url)) as stores:
        model = Model("a", 5)
        _step(stores, model)
        proxy.lose = True
        _step(stores, model)
        assert proxy.cuts == 1
        assert stores.versions.commits("a") == [commit for commit, _ in model.kept]


def test_no_server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no server answers it is one line, without the password; packages wait and are written later."""
    parsed = make_url(url).difference_update_query(["host"]).set(host="127.0.0.1", port=1, password="hunter2")
    with pytest.raises(StoreError) as caught:
        open_store(parsed.render_as_string(hide_password=False))
    assert "cannot be reached" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__!r}"
    with open_store(url) as stores:
        whole = stores.database
        stores.packages.put(page_of([7]))
        monkeypatch.setattr(server, "connect", _refused)
        _end_sessions()
        with pytest.raises(StoreError, match="cannot be reached"):
            stores.packages.flush()
        monkeypatch.undo()
        stores.packages.flush()
        assert whole.query(lambda connection: connection.exec_driver_sql("SELECT count(*) FROM page").scalar()) == 1


def _refused(_: Any) -> Any:
    message = "connection refused"
    raise postgres.psycopg.OperationalError(message)


def test_a_password_is_never_shown(url: str) -> None:
    """No name of an open store, nor its representation, holds the password that it was opened with."""
    secret = make_url(url).set(password="hunter2").render_as_string(hide_password=False)
    with wb.open(secret) as board:
        store = board._store
        assert isinstance(store, Stores)
        said = f"{board!r} {board} {store} {store.url} {store.database.location!r} {store.info()}"
        assert "hunter2" not in said


def test_a_role_that_may_only_read(url: str) -> None:
    """A role without the right to write opens for reading; what it writes is a ReadOnlyError in one line."""
    name = make_url(url).query["schema"]
    with open_store(url) as stores:
        stores.packages.put(page_of([1]))
        stores.packages.flush()
    role = f"{name}_reader"
    postgres.run(f'CREATE ROLE "{role}" LOGIN; GRANT USAGE ON SCHEMA "{name}" TO "{role}"')
    try:
        postgres.run(f'GRANT SELECT ON ALL TABLES IN SCHEMA "{name}" TO "{role}"')
        theirs = make_url(url).set(username=role).render_as_string()
        with open_store(theirs, readonly=True) as stores:
            assert_found(stores.packages.find([key_of(1)]), [1], lambda _: True)
        with open_store(theirs) as stores:
            stores.packages.put(page_of([2]))
            with pytest.raises(ReadOnlyError, match="permission denied") as caught:
                stores.packages.flush()
            assert "\n" not in str(caught.value)
            stores.packages.inner._pending.clear()  # type: ignore[attr-defined]
            stores.packages.inner._used.clear()  # type: ignore[attr-defined]
    finally:
        postgres.run(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


def test_one_living_writer(url: str) -> None:
    """A second writer is told which one lives; a killed one is dead at once; a deposed one's commit is refused."""
    code = (
        "import sys, time; from whiteboard.storage import open_store\n"
        "stores = open_store(sys.argv[1]); stores.claim('a'); print('claimed', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True, env=environment(), cwd="/"
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "claimed\n"
    with open_store(url) as stores:
        with pytest.raises(ConflictError, match=f"process {other.pid} on"):
            stores.claim("a")
        other.kill()
        other.wait()
        other.stdout.close()
        stores.claim("a")
        model = Model("a", 5)
        _step(stores, model)
        with open_store(url) as usurper:
            with pytest.raises(ConflictError, match="is written by"):
                usurper.claim("a")
            usurper.claim("a", takeover=True)
            with pytest.raises(ConflictError, match="another writer"):
                _step(stores, model)
        assert len(stores.versions.commits("a")) == 1


def test_a_forked_child_makes_connections_of_its_own(url: str) -> None:
    """Parent and child both go on, and neither gets what the other asked for."""
    with open_store(url) as stores:
        stores.packages.put(page_of([1]))
        stores.packages.flush()
        child = os.fork()
        if not child:
            try:
                found = stores.packages.find([key_of(1)])
                stores.packages.put(page_of([2]))
                stores.packages.flush()
                os._exit(int(found.page[0] != 0))
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert_found(stores.packages.find([key_of(1), key_of(2)]), [1, 2], lambda _: True)


def test_racing_to_make_a_store(fresh: str) -> None:
    """Processes that make one store at the same time all find it made; readonly makes none."""
    with pytest.raises(SchemaError, match="open it once for writing"):
        open_store(fresh, readonly=True)
    code = "import sys; from whiteboard.storage import open_store; open_store(sys.argv[1]).close()"
    racing = [subprocess.Popen([sys.executable, "-c", code, fresh], env=environment(), cwd="/") for _ in range(2)]
    assert [each.wait() for each in racing] == [0, 0]
    name = make_url(fresh).query["schema"]
    postgres.run(f"UPDATE \"{name}\".whiteboard_alembic_version SET version_num = '0004'")
    with pytest.raises(SchemaError, match="whiteboard db upgrade --store postgresql"):
        open_store(fresh)
    postgres.run(f"UPDATE \"{name}\".whiteboard_alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaError, match="upgrade whiteboard"):
        open_store(fresh)


def test_columns_go_there_and_back(url: str, tmp_path: Any) -> None:
    """Stores of both kinds are copied into each other, by merge and by an archive, and stay the same to the bit."""
    from whiteboard.storage.transfer.export import export
    from whiteboard.storage.transfer.import_archive import import_archive
    from whiteboard.storage.transfer.merge import merge

    first, last = tmp_path / "first.db", tmp_path / "last.db"
    a = np.random.default_rng(0).random((300, 8))
    with wb.open(first) as board:
        board.call_many("mul", a, a)
        system = board.system("s")
        system.add_nodes(range(4), theta=np.ones((4, 3)))
        system.process([wb.Job("mul", (0, 1), 2, target=np.zeros(3))])
        system.commit(wb.rules.Relax(0.1, 1e-3, 1e-3))
        digest = system.digest()
    (done,) = merge(url, [first])
    assert (done.packages.added, done.systems.created) == (301, ["s"])
    (again,) = merge(url, [first])
    assert (again.packages.added, again.packages.present, again.systems.unchanged) == (0, 301, ["s"])
    export(url, tmp_path / "a.archive")
    import_archive(str(last), tmp_path / "a.archive")
    assert import_archive(url, tmp_path / "a.archive").packages.present == 301
    (back,) = merge(first, [url])
    assert (back.packages.added, back.systems.unchanged) == (0, ["s"])
    for where in (url, last):
        with wb.open(where) as board:
            assert board.verify().ok
            assert board.system("s").digest() == digest
            assert set(board.call_many("mul", a, a).hit.tolist()) <= {1, 2}
            assert board.audit(sample=0.1).ok
            assert len(board.table("mul")["y"]) == 301
            assert board.system("s").fork("t", at=0).digest() == digest
            assert board.remove("t").commits == 0
            board.forget(op="mul")
            assert board.stats()["packages"] == 0
