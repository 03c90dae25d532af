"""The schema: made by Alembic alone, equal to the tables, and not asked for when it is at head."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import BigInteger, Float, LargeBinary, Text, create_engine

from tests.storage.samples import assert_found, environment, key_of, page_of, run_python, sql
from whiteboard.errors import SchemaError, StoreError
from whiteboard.storage import open_store
from whiteboard.storage.page.codec import Encoding
from whiteboard.storage.sql import tables
from whiteboard.storage.sql.location import locate
from whiteboard.storage.sql.metadata import metadata
from whiteboard.storage.sqlite import schema
from whiteboard.storage.sqlite.database import Database
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.merge import merge
from whiteboard.storage.upkeep.recompress import recompress
from whiteboard.storage.upkeep.recompress_plan import Form


def _statements(path: Path) -> dict[str, str]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: " ".join(sql.split()).replace("( ", "(").replace(" )", ")") for name, sql in rows}


def _migrated(path: Path) -> None:
    database = Database(locate(path))
    database.prepare()
    database.migrate(partial(schema.run, revision=schema.HEAD))
    database.close()


def test_head_is_the_newest_migration() -> None:
    """The constant that spares an import of Alembic is the script directory's head."""
    assert ScriptDirectory.from_config(schema.alembic_config()).get_heads() == [schema.HEAD]


def test_migrations_make_the_tables(tmp_path: Path) -> None:
    """What the migrations make differs in nothing from the tables, to Alembic and statement by statement."""
    path = tmp_path / "a.db"
    _migrated(path)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        options = {"version_table": tables.VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    engine.dispose()
    # What Alembic does not compare, AUTOINCREMENT say, stands in the statements.
    oracle = tmp_path / "b.db"
    engine = create_engine(f"sqlite:///{oracle}")
    metadata.create_all(engine)
    engine.dispose()
    made = _statements(path)
    del made[tables.VERSION_TABLE]  # Alembic's own
    assert made == _statements(oracle)


def test_a_new_store_is_what_the_migrations_make(tmp_path: Path) -> None:
    """A store that is made without Alembic is what the migrations make, in statements, their order, and pragmas."""
    open_store(tmp_path / "a.db").close()
    _migrated(tmp_path / "b.db")
    pragmas = ("user_version", "application_id", "page_size", "auto_vacuum")
    asked = (
        "SELECT type, name, tbl_name FROM sqlite_master ORDER BY rowid",
        f"SELECT * FROM {tables.VERSION_TABLE}",
        *(f"PRAGMA {name}" for name in pragmas),
    )
    made, migrated = (
        (_statements(path), [sql(path, statement) for statement in asked])
        for path in (tmp_path / "a.db", tmp_path / "b.db")
    )
    assert made == migrated


def test_rows_are_checked_by_the_columns_that_there_are() -> None:
    """What rows are checked by says of each column what the tables say: its type, and whether there may be none."""
    kinds = {BigInteger: int, Text: str, LargeBinary: bytes, Float: float}
    assert {table.name: {name: kind[:2] for name, kind in table.kinds.items()} for table in tables.TABLES} == {
        table.name: {column.name: (kinds[type(column.type)], column.nullable) for column in table.columns}
        for table in metadata.tables.values()
    }


def test_a_store_at_head_opens_without_alembic(tmp_path: Path) -> None:
    """Opening and using a store whose schema is at head imports neither SQLAlchemy, Alembic nor Blosc2's package."""
    path = tmp_path / "a.db"
    with open_store(path) as stores:
        stores.packages.put(page_of([1]))
    code = (
        "import sys; from tests.storage.samples import key_of, page_of; from whiteboard.storage import open_store\n"
        "with open_store(sys.argv[1]) as stores:\n"
        "    assert stores.packages.find([key_of(1)])\n"
        "    stores.packages.put(page_of([2]))\n"
        "assert not {'alembic', 'blosc2', 'mako', 'sqlalchemy'} & set(sys.modules), sorted(sys.modules)"
    )
    done = run_python(code, str(path))
    assert done.returncode == 0, done.stderr


def test_first_opens_that_race(tmp_path: Path) -> None:
    """Processes that open a store that is not there yet all get the same one."""
    path = tmp_path / "a.db"
    code = (
        "import sys; from tests.storage.samples import page_of; from whiteboard.storage import open_store\n"
        "sys.stdin.read()\n"
        "with open_store(sys.argv[1]) as stores: stores.packages.put(page_of([int(sys.argv[2])]))"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(number)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tempfile.gettempdir(),
            env=environment(),
        )
        for number in range(4)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
        racer.stdin = None
    for racer in racers:
        _, errors = racer.communicate()
        assert racer.returncode == 0, errors
    with open_store(path, readonly=True) as stores:
        assert stores.packages.stats()["packages"] == 4


def _set_revision(path: Path, revision: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE {tables.VERSION_TABLE} SET version_num = ?", (revision,))
    connection.close()


def _first_schema(path: Path) -> None:
    """Make a store of the first schema with one package."""
    with open_store(path) as stores:
        stores.packages.put(page_of([1]))
    schema.downgrade(path, "0001")


def test_an_older_store_says_how_to_upgrade(tmp_path: Path) -> None:
    """A store of an older revision is refused with the command that upgrades it, and left as it is."""
    path = tmp_path / "a.db"
    _first_schema(path)
    before = path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(SchemaError, match=f"older than {schema.HEAD}; run `whiteboard db upgrade --store {path}`"):
            open_store(path, readonly=readonly)
    assert path.read_bytes() == before


def test_an_older_store_is_upgraded(tmp_path: Path) -> None:
    """After an upgrade the store is as a new one is, with what was in it."""
    path = tmp_path / "a.db"
    _first_schema(path)
    assert schema.upgrade(path).before == "0001"
    with open_store(path) as stores:
        assert_found(stores.packages.find([key_of(1)]), [1], lambda _: True)
        assert stores.info()["evicted"] == {}
    open_store(tmp_path / "b.db").close()
    assert _statements(path) == _statements(tmp_path / "b.db")


def test_upgrade(tmp_path: Path) -> None:
    """Upgrading makes a new store, does nothing to one at head, and refuses a newer one."""
    path = tmp_path / "a.db"
    assert schema.upgrade(path) == schema.Changed(None, schema.HEAD)
    assert schema.upgrade(path) == schema.Changed(schema.HEAD, schema.HEAD)
    assert schema.current(path) == schema.HEAD
    _set_revision(path, "9999")
    assert schema.current(path) == "9999"
    before = path.read_bytes()
    with pytest.raises(SchemaError, match="newer"):
        schema.upgrade(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("fails", ["rename", "fsync"])
def test_a_copy_that_cannot_be_written_keeps_the_upgrade_from_it(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the store, which is as it was."""
    _first_schema(tmp_path / "x.db")

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, failing)
        with pytest.raises(StoreError, match=r"the store .*/x.db was left as it is, as its copy cannot be written"):
            schema.upgrade(tmp_path / "x.db")
    assert schema.current(tmp_path / "x.db") == "0001"
    assert not list(tmp_path.glob("*.part"))
    assert schema.upgrade(tmp_path / "x.db").after == schema.HEAD


def test_an_interrupted_creation_is_finished(tmp_path: Path) -> None:
    """A file that says it is a store, but has no tables yet, becomes one."""
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id={tables.APPLICATION_ID}")
    connection.close()
    with open_store(path) as stores:
        assert stores.packages.stats()["packages"] == 0


def test_a_store_whose_making_was_interrupted_is_finished_by_the_next_writer(tmp_path: Path) -> None:
    """A file that was killed before its schema is named to a reader, and finished by whoever opens it for writing."""
    path = tmp_path / "x.db"
    database = Database(locate(path))
    database.exclusive(database.prepare)
    database.close()
    with pytest.raises(SchemaError, match="its making was interrupted; open it once for writing"):
        open_store(path, readonly=True)
    open_store(path).close()
    open_store(path, readonly=True).close()


_COPY = "CREATE TABLE t2 AS SELECT * FROM {0}; DROP TABLE {0}; CREATE VIEW {0} AS SELECT * FROM t2"
_AGAIN = "PRAGMA writable_schema=ON; UPDATE sqlite_master SET sql = replace(sql, '{1}', '{2}') WHERE name = '{0}'"

CHANGED = {
    "a view in place of page": (_COPY.format("page"), "index ix_page_op is missing .and 2 more"),
    "a view in place of system": (f"PRAGMA foreign_keys=OFF; {_COPY.format('system')}", "table system is missing"),
    "a view beside": ("CREATE VIEW mine AS SELECT 1", "view mine does not belong here"),
    "a trigger": (
        "CREATE TRIGGER t AFTER INSERT ON writer BEGIN DELETE FROM commit_log; END",
        "trigger t does not belong here",
    ),
    "a trigger of a foreign table": (
        "CREATE TABLE mine (a); CREATE TRIGGER t AFTER INSERT ON mine BEGIN DELETE FROM page; END",
        "trigger t does not belong here",
    ),
    "no trigger": ("DROP TRIGGER system_head", "trigger system_head is missing"),
    "another trigger of the name": (
        "DROP TRIGGER system_head; CREATE TRIGGER system_head AFTER INSERT ON page BEGIN DELETE FROM page; END",
        "trigger system_head differs",
    ),
    "a generated column": (
        "ALTER TABLE page ADD COLUMN more TEXT AS (hex(zeroblob(n))) VIRTUAL",
        "table page differs",
    ),
    "a column more": ("ALTER TABLE page ADD COLUMN more INTEGER", "table page differs"),
    "a column less": ("ALTER TABLE page DROP COLUMN cost_ns", "table page differs"),
    "another type": (_AGAIN.format("page", "op TEXT", "op BLOB"), "table page differs"),
    "a check": (_AGAIN.format("page", "n INTEGER NOT NULL", "n INTEGER NOT NULL CHECK (n > 0)"), "table page differs"),
    "a table less": ("DROP TABLE recent", "table recent is missing"),
    "an index more": ("CREATE INDEX mine ON page (length(data))", "index mine does not belong here"),
    "an index of a table in capitals": (
        "CREATE INDEX mine ON page (length(data)); PRAGMA writable_schema=ON; "
        "UPDATE sqlite_master SET tbl_name = 'PAGE' WHERE name = 'mine'",
        "index mine does not belong here",
    ),
    "an index less": ("DROP INDEX ix_page_op", "index ix_page_op is missing"),
    "a virtual table": ("DROP TABLE recent; CREATE VIRTUAL TABLE recent USING fts5(hashes)", "table recent differs"),
}

KEPT = {
    "a table of the user's": "CREATE TABLE notes (text); CREATE INDEX notes_text ON notes (text)",
    "statistics": "ANALYZE",
    "other spaces and quotes": _AGAIN.format("page", "op TEXT NOT NULL,", '\n"op"   TEXT NOT NULL  ,'),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three packages."""
    path = tmp_path_factory.mktemp("sound") / "a.db"
    with open_store(path) as stores:
        stores.packages.put(page_of(range(3)))
    return path


def changed(path: Path, sound: Path, sql: str) -> None:
    """Copy a store, and change its schema."""
    path.write_bytes(sound.read_bytes())
    connection = sqlite3.connect(path)
    connection.executescript(sql)
    connection.close()


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("change", CHANGED)
def test_a_schema_that_was_changed_is_refused(tmp_path: Path, sound: Path, change: str, readonly: bool) -> None:
    """At open, by what it is that was changed; nothing of it is run."""
    path = tmp_path / "a.db"
    sql, says = CHANGED[change]
    changed(path, sound, sql)
    with pytest.raises(SchemaError, match=f"its schema was changed: {says}"):
        open_store(path, readonly=readonly)


@pytest.mark.parametrize("read", ["merge", "export", "recompress", "upgrade"])
def test_a_schema_that_was_changed_is_refused_as_a_source(tmp_path: Path, sound: Path, read: str) -> None:
    """Whatever reads a store looks at its schema first, and leaves what it would have written to as it was."""
    path = tmp_path / "a.db"
    changed(path, sound, CHANGED["a trigger"][0])
    if read == "upgrade":
        schema_before = "UPDATE whiteboard_alembic_version SET version_num = '0003'"
        connection = sqlite3.connect(path)
        connection.executescript(schema_before)
        connection.close()
    do: dict[str, Callable[[], object]] = {
        "merge": lambda: merge(tmp_path / "b.db", [path]),
        "export": lambda: export(path, tmp_path / "a.wb"),
        "recompress": lambda: recompress(path, Form(Encoding("raw", 0), 2**20)),
        "upgrade": lambda: schema.upgrade(path),
    }
    with pytest.raises(SchemaError, match="trigger t"):
        do[read]()
    assert not (tmp_path / "a.wb").exists()


@pytest.mark.parametrize("change", KEPT)
def test_what_does_no_harm_is_left_alone(tmp_path: Path, sound: Path, change: str) -> None:
    """Tables of the user's own, SQLite's statistics, and statements that say the same."""
    path = tmp_path / "a.db"
    changed(path, sound, KEPT[change])
    with open_store(path) as stores:
        assert_found(stores.packages.find([key_of(1)]), [1], lambda _: True)
    foreign = ["index notes_text does not belong here", "table notes does not belong here"]
    assert schema.differences(path) == (foreign if "notes" in KEPT[change] else [])


def test_the_digest_of_the_statements_is_that_of_the_migrations() -> None:
    """The constant that spares the comparison is what the migrations make."""
    database = Database(locate(":memory:"))
    schema._at_head(database)
    assert schema._digest(schema._statements(database)) == schema.STATEMENTS
    database.close()
