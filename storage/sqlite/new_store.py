"""What a new store is made of: but for white space what the migrations make at head, which a test compares.

Alembic takes 0.2 s and more to import and to go through its revisions; these statements take a millisecond.
"""

from __future__ import annotations

from typing import Final

from whiteboard.storage.sql.backend import Connection
from whiteboard.storage.sql.tables import FORMAT, HEAD_TRIGGER_NAME, VERSION_TABLE

STATEMENTS: Final = (
    f"""CREATE TABLE {VERSION_TABLE} (
        version_num VARCHAR(32) NOT NULL,
        CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num)
    )""",
    """CREATE TABLE page (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        op TEXT NOT NULL,
        n INTEGER NOT NULL,
        nbytes INTEGER NOT NULL,
        cost_ns INTEGER NOT NULL,
        header BLOB NOT NULL,
        digest BLOB NOT NULL,
        data BLOB NOT NULL
    )""",
    """CREATE TABLE package (
        hash INTEGER NOT NULL,
        page_id INTEGER NOT NULL,
        slot INTEGER NOT NULL,
        PRIMARY KEY (hash)
    )""",
    """CREATE TABLE page_access (
        page_id INTEGER NOT NULL,
        last_use INTEGER NOT NULL,
        hits INTEGER NOT NULL,
        PRIMARY KEY (page_id)
    )""",
    """CREATE TABLE system (
        id INTEGER NOT NULL,
        name TEXT NOT NULL,
        uuid TEXT NOT NULL,
        spec TEXT,
        origin_id INTEGER,
        origin_number INTEGER,
        head INTEGER,
        PRIMARY KEY (id),
        UNIQUE (name),
        FOREIGN KEY(origin_id) REFERENCES system (id)
    )""",
    """CREATE TABLE writer (
        name TEXT NOT NULL,
        token TEXT NOT NULL,
        host TEXT NOT NULL,
        boot TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started INTEGER NOT NULL,
        PRIMARY KEY (name)
    )""",
    """CREATE TABLE commit_log (
        id INTEGER NOT NULL,
        system_id INTEGER NOT NULL,
        number INTEGER NOT NULL,
        parent INTEGER,
        changed INTEGER NOT NULL,
        stress FLOAT,
        residual_norm FLOAT,
        digest TEXT NOT NULL,
        rows INTEGER NOT NULL,
        keyframe INTEGER NOT NULL,
        seal BLOB NOT NULL,
        PRIMARY KEY (id),
        CONSTRAINT uq_commit_log_system_number UNIQUE (system_id, number),
        FOREIGN KEY(system_id) REFERENCES system (id)
    )""",
    """CREATE TABLE node_page (
        id INTEGER NOT NULL,
        system_id INTEGER NOT NULL,
        number INTEGER NOT NULL,
        part INTEGER NOT NULL,
        header BLOB NOT NULL,
        digest BLOB NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (id),
        FOREIGN KEY(system_id) REFERENCES system (id)
    )""",
    "CREATE UNIQUE INDEX ix_node_page_system_number ON node_page (system_id, number, part)",
    f"CREATE TRIGGER {HEAD_TRIGGER_NAME} AFTER INSERT ON commit_log BEGIN "
    "UPDATE system SET head = max(coalesce(head, -1), NEW.number) WHERE id = NEW.system_id; END",
    """CREATE TABLE eviction (
        reason TEXT NOT NULL,
        pages INTEGER NOT NULL,
        packages INTEGER NOT NULL,
        nbytes INTEGER NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (reason)
    )""",
    "CREATE INDEX ix_page_op ON page (op)",
    """CREATE TABLE recent (
        page_id INTEGER NOT NULL,
        hashes BLOB NOT NULL,
        PRIMARY KEY (page_id)
    )""",
    """CREATE TABLE claim (
        id INTEGER NOT NULL,
        boot TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started INTEGER NOT NULL,
        cost_ns INTEGER,
        hashes BLOB NOT NULL,
        PRIMARY KEY (id)
    )""",
    """CREATE TABLE gathered (
        id INTEGER NOT NULL,
        page_id INTEGER NOT NULL,
        hashes BLOB NOT NULL,
        places BLOB NOT NULL,
        PRIMARY KEY (id)
    )""",
    """CREATE TABLE known (
        part INTEGER NOT NULL,
        packages INTEGER NOT NULL,
        bits BLOB NOT NULL,
        PRIMARY KEY (part)
    )""",
    """CREATE TABLE page_part (
        id INTEGER NOT NULL,
        page_id INTEGER NOT NULL,
        number INTEGER NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (id),
        FOREIGN KEY(page_id) REFERENCES page (id) ON DELETE CASCADE
    )""",
    "CREATE UNIQUE INDEX ix_page_part_page_id ON page_part (page_id, number)",
)


def make(connection: Connection, revision: str) -> None:
    """Make the tables in an empty file, within a transaction, and name the revision that they are of."""
    for statement in STATEMENTS:
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(f"INSERT INTO {VERSION_TABLE} VALUES (?)", (revision,))
    connection.exec_driver_sql(f"PRAGMA user_version={FORMAT}")
