"""What a statement may take: no file makes one endless, and Ctrl-C ends those that are long."""

from __future__ import annotations

import signal
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import whiteboard as wb
from tests.processes import run_code
from whiteboard.storage.sql.location import locate
from whiteboard.storage.sqlite.bounds import VALUE_BYTES
from whiteboard.storage.sqlite.database import Database

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT sum(x) FROM c"
TABLES = (
    "page",
    "page_part",
    "package",
    "recent",
    "gathered",
    "known",
    "page_access",
    "system",
    "commit_log",
    "node_page",
    "writer",
    "eviction",
    "claim",
)


def folded(path: Path, table: str, levels: int = 4) -> None:
    """Make a table's tree one whose pages each hold the next a thousand times: 20 KB of rows without end."""
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    count = len(data) // size
    place = slice((root - 1) * size, root * size)
    added = [data[place], *(_interior(size, count + level) for level in range(1, levels))]
    data[place] = _interior(size, count + levels)
    struct.pack_into(">I", data, 28, count + levels)
    data[92:96] = data[24:28]  # the count of pages is valid
    path.write_bytes(data + b"".join(added))


def _interior(size: int, child: int) -> bytearray:
    """An interior page of a table, in SQLite's file format, each of whose cells leads to one page."""
    page = bytearray(size)
    cells = (size - 12) // 7
    struct.pack_into(">BHHHBI", page, 0, 5, 0, cells, size - 5 * cells, 0, child)
    for cell in range(cells):
        at = size - 5 * (cell + 1)
        struct.pack_into(">IB", page, at, child, 1)
        struct.pack_into(">H", page, 12 + 2 * cell, at)
    return page


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    with wb.open(path) as board:
        board.system("x").add_nodes(range(3), theta=np.ones((3, 2)))
        board.system("x").commit()
        board.call_many("mul", np.ones((5, 2)), np.arange(10.0).reshape(5, 2))
    return path


@pytest.mark.parametrize("table", TABLES)
def test_rows_without_end_are_an_error(path: Path, table: str) -> None:
    """In little memory: each read ends, and verify says what SQLite finds."""
    folded(path, table)
    code = f"""
import resource, whiteboard as wb
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
for ask in ("systems", "info", "stats", "verify", "audit", "gc"):
    try:
        with wb.open({str(path)!r}, readonly=ask != "gc") as board:
            found = getattr(board, ask)()
        print(ask, found.ok if ask == "verify" else "answered")
    except wb.StoreError as error:
        print(ask, "refused", len(str(error).splitlines()))
"""
    done = run_code(code)
    assert not done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert said.pop("verify") in ("False", "refused 1")
    assert set(said.values()) <= {"answered", "refused 1"}


def test_a_statement_on_a_file_ends(path: Path) -> None:
    """What needs more steps than the file has bytes for is ended, and the connection goes on."""
    database = Database(locate(path), readonly=True)
    with pytest.raises(wb.CorruptPackageError, match="more steps than a file"), database.read() as connection:
        connection.exec_driver_sql(ENDLESS).all()
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    database.close()


def test_ctrl_c_ends_a_statement() -> None:
    """A signal's handler runs while SQLite does, in memory too, where nothing else bounds it."""
    database = Database(locate(":memory:"))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt), database.read() as connection:
            connection.exec_driver_sql(ENDLESS).all()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    database.close()


def test_a_value_that_is_larger_than_any_is_not_read(path: Path) -> None:
    """But for data, which is read as a blob: a commit or a page may be large."""
    database = Database(locate(path), readonly=True)
    with pytest.raises(wb.CorruptPackageError, match="a value of more than"), database.read() as connection:
        connection.exec_driver_sql(f"SELECT zeroblob({VALUE_BYTES + 1})").all()
    database.close()
    with wb.open(path) as board:
        theta = np.random.default_rng(0).random((3, VALUE_BYTES // 16))
        board.system("large").add_nodes(range(3), theta=theta)
        board.system("large").commit()
        board.call("negative", theta)
    with wb.open(path) as board:
        np.testing.assert_array_equal(board.system("large").nodes[2].theta, theta[2])
        assert board.call("negative", theta).hit == "disk"
        assert board.verify().ok
