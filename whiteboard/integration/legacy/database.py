"""The SQLite file of a diskcache folder, opened for reading."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote


def connect(path: Path) -> sqlite3.Connection:
    """Open a cache's database for reading; as it stands where its folder cannot be written."""
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        connection.execute("SELECT 1 FROM sqlite_master").fetchall()
    except sqlite3.OperationalError:
        connection = sqlite3.connect(f"file:{quote(str(path))}?immutable=1", uri=True)
    return connection
