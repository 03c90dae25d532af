"""A valid store made into hostile ones: every column by every odd value, another schema, and flipped bytes."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from scripts.torturing.mutants import Mutant, flipped

SQL_ODD: Final = {
    "null": "NULL",
    "empty": "''",
    "text": "'x'",
    "escapes": "char(27) || '[31m' || char(8238) || char(10)",
    "no-utf-8": "CAST(x'ff80fe' AS TEXT)",
    "number-text": "'7'",
    "blob": "x'00ff'",
    "no-blob": "x''",
    "zeros": "zeroblob(16)",
    "200 MB": "zeroblob(200000000)",
    "long": "hex(zeroblob(300000))",
    "json": "'[1]'",
    "deep-json": "replace(hex(zeroblob(50000)), '00', '[')",
    "wide-json": "'[' || replace(hex(zeroblob(400000)), '00', '[],') || '0]'",
    "-1": "-1",
    "0": "0",
    "1": "1",
    "2": "2",
    "2**62": "4611686018427387904",
    "least": "-9223372036854775808",
    "1.5": "1.5",
    "inf": "9e999",
    "-inf": "-9e999",
}
"""Expressions of SQL, by name."""

SCHEMA: Final = {
    "view page": "ALTER TABLE page RENAME TO page_; CREATE VIEW page AS SELECT * FROM page_",
    "view system": "ALTER TABLE system RENAME TO system_; CREATE VIEW system AS SELECT * FROM system_",
    "view package endless": "DROP TABLE package; CREATE VIEW package AS WITH RECURSIVE r(hash, page_id, slot) AS "
    "(SELECT 1, 1, 1 UNION ALL SELECT hash + 1, page_id, slot FROM r) SELECT * FROM r",
    "view system endless": "ALTER TABLE system RENAME TO system_; CREATE VIEW system AS WITH RECURSIVE r(n) AS "
    "(SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT s.* FROM system_ s, r WHERE r.n < 0",
    "trigger deletes": "CREATE TRIGGER evil AFTER INSERT ON commit_log BEGIN DELETE FROM system; END",
    "trigger copies": "CREATE TRIGGER evil AFTER INSERT ON page BEGIN INSERT INTO eviction VALUES ('x',1,1,1,1); END",
    "no head trigger": "DROP TRIGGER system_head",
    "generated column": "ALTER TABLE page ADD COLUMN more TEXT AS (op || op || op)",
    "added column": "ALTER TABLE system ADD COLUMN more TEXT DEFAULT 'x'",
    "extra table": "CREATE TABLE extra (x)",
    "extra index": "CREATE INDEX extra ON page (op, n)",
    "index on expression": "CREATE INDEX extra ON page (upper(op))",
    "virtual table": "DROP TABLE recent; CREATE VIRTUAL TABLE recent USING fts5(page_id, hashes)",
    "cycle": "UPDATE system SET origin_id = id, origin_number = 0",
    "cycle of two": "UPDATE system SET origin_number = 1, "
    "origin_id = (SELECT id FROM system s WHERE s.id <> system.id)",
    "many systems": "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3000) "
    "INSERT INTO system (name, uuid) SELECT 's' || n, n FROM r",
    "other version": "UPDATE whiteboard_alembic_version SET version_num = 'x'",
    "two versions": "INSERT INTO whiteboard_alembic_version VALUES ('0001')",
    "no version": "DELETE FROM whiteboard_alembic_version",
    "other application": "PRAGMA application_id = 7",
    "other format": "PRAGMA user_version = 99",
    **{f"dropped {name}": f"DROP TABLE {name}" for name in ("page", "package", "recent", "page_access", "eviction")},
    **{f"dropped {name}": f"DROP TABLE {name}" for name in ("system", "writer", "commit_log", "node_page")},
}
"""What is done to the schema, and to rows that hang together, by name."""


def stores(whole: Path, seed: int, flips: int) -> Iterator[Mutant]:
    """Yield all hostile stores that are made of a valid one, and some with flipped bytes."""
    with closing(sqlite3.connect(whole)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in sorted(tables):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            for column in columns:
                for label, value in SQL_ODD.items():
                    last = f" WHERE rowid = (SELECT max(rowid) FROM {table})"
                    for where in ("", last) if label != "200 MB" else (last,):
                        sql = f"UPDATE OR REPLACE {table} SET {column} = {value}{where}"
                        which = " of the last" if where else ""
                        yield Mutant(f"{table}.{column}={label}{which}", _done(whole, sql))
                yield Mutant(f"{table}.{column} dropped", _done(whole, f"ALTER TABLE {table} DROP COLUMN {column}"))
    for label, sql in SCHEMA.items():
        yield Mutant(f"schema: {label}", _done(whole, sql))
    content = whole.read_bytes()
    for number in range(flips):
        yield Mutant(f"bytes:{number}", flipped(content, seed * 1_000_003 + number))


def _done(whole: Path, sql: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        shutil.copyfile(whole, path)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA legacy_alter_table = ON")
            if "= NULL" not in sql:
                connection.executescript(sql)
                return
            # What a column is declared to be does not bind whoever writes the file.
            tables = connection.execute("SELECT sql, name FROM sqlite_master WHERE type = 'table'").fetchall()
            _declare(connection, [(text.replace(" NOT NULL", ""), name) for text, name in tables])
            connection.executescript(sql)
            _declare(connection, tables)

    return make


def _declare(connection: sqlite3.Connection, tables: Sequence[tuple[str, str]]) -> None:
    connection.execute("PRAGMA writable_schema = ON")
    connection.executemany("UPDATE sqlite_master SET sql = ? WHERE type = 'table' AND name = ?", tables)
    connection.execute("PRAGMA writable_schema = RESET")
