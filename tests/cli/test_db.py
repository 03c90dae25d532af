"""The commands that look at and change a store's schema."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from tests.cli.conftest import Cli, assert_refused
from tests.storage.sqlite.test_migrations import thawed
from whiteboard.storage.sqlite import schema


def test_up_and_down(cli: Cli, tmp_path: Path) -> None:
    """An old store is shown, upgraded with the name of its copy, checked, and taken back."""
    thawed("0001", tmp_path / "a.db")
    store = ("--store", "a.db", "--json")
    code, out, _ = cli("db", "current", *store)
    assert (code, json.loads(out)) == (0, {"store": "a.db", "revision": "0001", "head": schema.HEAD})
    assert cli("db", "check", *store)[0] == 1
    code, out, _ = cli("db", "upgrade", *store)
    said = json.loads(out)
    assert (code, said["from"], said["to"]) == (0, "0001", schema.HEAD)
    assert said["copy"] == str(tmp_path / f"a.db.before-{schema.HEAD}")
    assert Path(said["copy"]).is_file()
    code, out, _ = cli("db", "check", *store)
    assert (code, json.loads(out)["differences"]) == (0, [])
    code, out, _ = cli("db", "downgrade", "0001", *store)
    assert (code, json.loads(out)["to"]) == (0, "0001")


def test_differences_are_status_1(cli: Cli, tmp_path: Path) -> None:
    """A store that lacks an index is told so, with status 1."""
    thawed(schema.HEAD, tmp_path / "a.db")
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("DROP INDEX ix_page_op")
    connection.close()
    code, out, err = cli("db", "check", "--store", "a.db")
    assert (code, err) == (1, "")
    assert "index ix_page_op is missing" in out


def test_what_cannot_be_is_one_line(cli: Cli, tmp_path: Path) -> None:
    """A revision that there is not, and a store that there is not, are one line with status 1."""
    thawed(schema.HEAD, tmp_path / "a.db")
    for arguments, word in (
        (("db", "downgrade", "9999", "--store", "a.db"), "name one of"),
        (("db", "current", "--store", "none.db"), "does not exist"),
        (("db", "check", "--store", "none.db"), "does not exist"),
    ):
        assert_refused(cli(*arguments), 1, word)
