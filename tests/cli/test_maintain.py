"""``gc``, ``verify`` and ``audit`` on the command line: what they say, and their status."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.cli.conftest import Bad, Cli, assert_refused
from tests.rekeying import rewritten
from tests.storage.samples import database_of, sql, transaction
from whiteboard.storage.page.format import decode_page, encode_page
from whiteboard.storage.sql.rows import select_pages

pytestmark = pytest.mark.usefixtures("europe")


def _forge(page_id: int) -> bytes:
    """Change one number of a page, with a digest that fits; return the package's key."""
    with wb.open("whiteboard.db") as board, transaction(database_of(board)) as connection:
        page = decode_page(select_pages(connection, [page_id])[page_id], provenance=True)
        y = page.arrays["y"].copy()
        y[5] = np.nextafter(y[5], np.inf)
        blob = encode_page(
            type(page)(page.op, page.keys, {**page.arrays, "y": y}, 1, page.src_ids, page.versions)
        ).joined()
        update = "UPDATE page SET header = ?, digest = ?, data = ? WHERE id = ?"
        connection.exec_driver_sql(update, (blob.header, blob.digest, blob.data, page_id))
    return bytes(page.keys[5].data)


def test_a_whole_store_is_verified(cli: Cli) -> None:
    """A store that nobody hurt is found whole, in text and in JSON, all of it and in part."""
    done = cli("verify")
    assert (done.code, done.err) == (0, "")
    assert done.out == "read 4 pages of 840 packages, and 1 system\nnothing is damaged\n"
    done = cli("verify", "--sample", "0.5", "--seed", "3", "--json")
    assert (done.code, done.said["ok"], done.said["pages"], done.said["seed"]) == (0, True, 2, 3)
    assert done.said["systems"] == [{"name": "europe", "commits": 5, "damaged": [], "last_whole": 4}]


def test_damage_is_named_repaired_and_gone(cli: Cli) -> None:
    """Damage is status 1, named by page, op, system and commit; repair drops packages and leaves commits alone."""
    sql("whiteboard.db", "UPDATE page SET data = zeroblob(length(data)) WHERE id = 2")
    done = cli("verify")
    assert done.code == 1
    assert "page 2, op distance: 210 packages are lost: the digest does not fit the bytes" in done.out
    assert cli("verify", "--repair").code == 1
    assert cli("verify").code == 0
    assert cli("info", "--json").said["evicted"]["damaged"]["packages"] == 210
    sql("whiteboard.db", "UPDATE node_page SET data = x'00' WHERE number = 3")
    done = cli("verify", "--repair")
    assert done.code == 1
    assert "system europe, commit 3: " in done.out
    assert "system europe: commit 4 is the last that is whole" in done.out
    (system,) = cli("verify", "--json").said["systems"]
    assert [row["commit"] for row in system["damaged"]] == [3]


def test_packages_are_computed_again(cli: Cli) -> None:
    """An audit computes every package again and finds the one that is wrong by one unit in the last place."""
    done = cli("audit")
    assert (done.code, done.out) == (0, "distance: computed 840 of 840 again, 0 differ\n")
    assert 0 < cli("audit", "--sample", "0.1", "--json").said["checked"] < 840
    key = _forge(3)
    assert cli("verify").code == 0
    done = cli("audit")
    assert done.code == 1
    assert "distance: computed 840 of 840 again, 1 differ, the farthest by 1 ulp" in done.out
    assert f"op distance, package {key.hex()} on page 3, of nodes " in done.out
    (difference,) = cli("audit", "--json").said["differences"]
    assert (difference["op"], difference["key"], difference["ulp"]) == ("distance", key.hex(), {"y": 1})


@pytest.mark.usefixtures("builtin_ops_only")
def test_packages_of_arrays_are_computed_again(cli: Cli, tmp_path: Path) -> None:
    """An audit tells apart what was computed again from sources in its page; without these nothing is."""

    def half(x: Any) -> Any:
        return x / 2.0

    with wb.open(tmp_path / "a.db") as board:
        for keep in (True, False):
            wb.op(keep_sources=keep, replace=True)(half)
            board.call_many("half", np.arange(5.0) + 10 * keep)
            board.flush()
    done = cli("audit", "--store", "a.db")
    assert (done.code, done.out.splitlines()) == (
        0,
        [
            "half: computed 5 of 10 again, 5 from sources in their page, 0 differ",
            "not computed again: 5: their sources were no nodes, and are not kept in their page",
        ],
    )
    rewritten(tmp_path / "a.db", lambda page: replace(page, arrays={**page.arrays, "y": page.arrays["y"] + 1}), "half")
    done = cli("audit", "--store", "a.db")
    assert done.code == 1
    assert " on page 1: y by " in done.out
    assert cli("audit", "--store", "a.db", "--json").said["ops"]["half"]["kept"] == 5


def test_packages_are_evicted(cli: Cli) -> None:
    """A dry run takes nothing; a collection stops at its bound, keeps the commits, and is told by info afterwards."""
    planned = cli("gc", "--max-bytes", "0", "--dry-run", "--json").said
    assert (planned["evicted"]["packages"], planned["dry_run"]) == (840, True)
    assert cli("info", "--json").said["packages"] == 840
    assert cli("gc", "--older-than", "1h", "--json").said["evicted"]["pages"] == 0
    assert cli("gc", "--older-than", "1h", "--max-bytes", "1K", "--json").said["evicted"]["pages"] == 0
    before = cli("show", "europe", "--json").said
    done = cli("gc", "--max-bytes", "0.1M")
    assert (done.code, "evicted" in done.out) == (0, True)
    said = cli("info", "--json").said
    assert said["packages"] < 840
    assert said["evicted"]["gc"]["packages"] == 840 - said["packages"]
    assert cli("show", "europe", "--json").said == before
    assert cli("gc", "--older-than", "0s", "--json").said["evicted"]["packages"] == said["packages"]


BAD = [
    Bad(("gc", "--max-bytes", "-1"), 2, "'-1' is not a size: expected bytes, or a number with K, M, G or T"),
    Bad(("gc", "--max-bytes", "many"), 2, "'many' is not a size"),
    Bad(("gc", "--older-than", "2y"), 2, "'2y' is not a time: expected days, or a number with s, m, h, d or w"),
    Bad(("verify", "--sample", "2"), 2, "2.0 is not in the range 0<=x<=1"),
    Bad(("audit", "--module", "no_such_module"), 2, "no_such_module"),
    Bad(("gc", "--store", "none.db"), 1, "none.db"),
    Bad(("verify", "--repair", "--store", "none.db"), 1, "none.db"),
    Bad(("audit", "--store", "none.db"), 1, "none.db"),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: " ".join(bad.arguments))
def test_bad_input_is_one_line(cli: Cli, tmp_path: Path, bad: Bad) -> None:
    """Each mistake is one line on stderr with its status, and makes no store."""
    assert_refused(cli(*bad.arguments), bad.code, bad.says)
    assert not (tmp_path / "none.db").exists()
