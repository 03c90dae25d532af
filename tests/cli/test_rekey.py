"""The script ``rekey``: forecasts, exit codes, and kills after which every package is under one of its two keys."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from tests.processes import run_whiteboard, started
from tests.rekeying import A, B, N, asked, code, filled, names, rewritten, stored
from tests.storage.moving import assert_whole, killed
from tests.storage.samples import transaction
from whiteboard.storage import open_store

TOTAL = N + 90


pytestmark = pytest.mark.usefixtures("builtin_ops_only")


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a store."""
    return run_whiteboard("rekey", "--store", path, *arguments)


def said(path: Path, *arguments: str, status: int = 0) -> Any:
    """Run the script with ``--json``; return what it says."""
    done = run(path, "--json", *arguments)
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == status
    return json.loads(done.stdout)


def fingerprints() -> tuple[str, str]:
    """Those of the op's two bodies; the second one stays registered."""
    old, new = code(0).fingerprint, code(1).fingerprint
    assert old
    assert new
    return old.hex(), new.hex()


def change() -> tuple[str, ...]:
    """The arguments that rekey the op from its first body to its second."""
    old, new = fingerprints()
    return "--op", "product", "--from", old, "--to", new


def test_it_does_what_it_forecasts(tmp_path: Path) -> None:
    """A dry run leaves the file and says the same counts; then the new code hits, and a second call has no work."""
    path = tmp_path / "a.db"
    bits = filled(path)
    before = hashlib.sha256(path.read_bytes()).digest()
    forecast = said(path, *change(), "--dry-run")
    assert hashlib.sha256(path.read_bytes()).digest() == before
    done = said(path, *change())
    assert done == {**forecast, "dry_run": False}
    assert (done["packages"], done["rekeyed"], done["kept"]) == (TOTAL, TOTAL, {})
    assert asked(path) == {name: (1, data) for name, (_, data) in bits.items()}
    assert said(path, *change())["packages"] == 0
    assert "rekeyed        0\n" in run(path, *change()).stdout
    assert_whole(path)


def test_it_lists_what_there_is(tmp_path: Path) -> None:
    """``--list`` names version, fingerprint, packages and pages, and what was rekeyed from which."""
    path = tmp_path / "a.db"
    filled(path)
    old, new = fingerprints()
    (row,) = said(path, "--op", "product", "--list")["held"]
    assert (row["version"], row["fingerprint"], row["packages"], row["was"]) == (1, old, TOTAL, [])
    assert old in run(path, "--op", "product", "--list").stdout
    run(path, *change())
    (row,) = said(path, "--op", "product", "--list")["held"]
    assert (row["fingerprint"], row["packages"], row["was"]) == (new, TOTAL, [old])
    assert said(path, "--op", "multiply", "--list")["held"] == said(path, "--op", "mul", "--list")["held"] != []
    rewritten(path, lambda page: type(page)(page.op, page.keys, page.arrays))
    assert said(path, "--op", "product", "--list")["held"][0]["fingerprint"] is None


def test_errors_are_one_line(tmp_path: Path) -> None:
    """A fingerprint that is none is usage; one that the store lacks, and a store that is not there, are status 1."""
    path = tmp_path / "a.db"
    filled(path)
    old, new = fingerprints()
    before = path.read_bytes()
    for arguments in (
        ("--op", "product", "--from", "nonsense", "--to", new),
        ("--op", "product", "--from", old[:-2], "--to", new),
        ("--op", "product", "--from", old),
        ("--op", "product", "--list", "--to", new),
        ("--scheme", "--op", "product"),
        (),
    ):
        done = run(path, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
    for arguments in (
        ("--op", "product", "--from", new, "--to", old),
        ("--op", "product", "--from", old, "--to", old),
        ("--op", "nothing", "--from", old, "--to", new),
    ):
        done = run(path, *arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done.stderr
    assert old in run(path, "--op", "product", "--from", new, "--to", old).stderr
    assert path.read_bytes() == before
    assert run(tmp_path / "none.db", "--scheme").returncode == 1
    assert not (tmp_path / "none.db").exists()


def test_conflicts_and_damage_are_status_1(tmp_path: Path) -> None:
    """Other bytes under a new key are told with op, key and distance, and so is a damaged page; the rest is done."""
    path = tmp_path / "a.db"
    filled(path)
    arguments = change()
    with wb.open(path) as board:
        board.call_many("product", A[:1], B[:1])
    first = names(code(1))[0]
    rewritten(path, lambda page: page if page.n > 1 else other_bits(page))
    with open_store(path) as stores, transaction(stores.database) as connection:
        connection.exec_driver_sql("UPDATE page SET data = zeroblob(length(data)) WHERE n = 50 AND op = 'product'")
    done = said(path, *arguments, status=1)
    assert (done["conflicts"], done["damaged_pages"], done["rekeyed"]) == (1, 1, TOTAL - 51)
    (conflict,) = done["described"]
    assert (conflict["op"], conflict["key"], conflict["array"], conflict["ulps"]) == ("product", first.hex(), "y", 1)
    again = run(path, *arguments)
    assert first.hex() in again.stdout
    assert "1 conflicts, 1 damaged pages" in again.stderr


def other_bits(page: Any) -> Any:
    """The page with a y that is one unit in the last place larger."""
    arrays = {**page.arrays, "y": np.nextafter(page.arrays["y"], np.inf)}
    return type(page)(page.op, page.keys, arrays, page.cost_ns, lineage=page.lineage, tokens=page.tokens)


def test_keys_of_the_present_scheme_are_left(tmp_path: Path) -> None:
    """``--scheme`` finds nothing to do in a store of this version."""
    path = tmp_path / "a.db"
    filled(path)
    done = said(path, "--scheme")
    assert (done["pages"], done["rows"]) == (0, 0)


RENAMING = (
    "from whiteboard.inspection.rekey import Change, Code\n"
    "from whiteboard.storage.upkeep import rename_keys\n"
    "rename_keys.BATCH_BYTES = 1\n"
    "old, new = (Code(1, bytes.fromhex(each)) for each in sys.argv[2:])\n"
    "change = Change('product', old, new)\n"
)
CALL = "rename_keys.rename(sys.argv[1], change.concerns, change.rename, progress=progress)\n"
INSIDE = (
    "real = rename_keys.{0}\n"
    "def dying(*arguments):\n"
    "    done = real(*arguments); progress(0, 0); return done\n"
    "rename_keys.{0} = dying\n"
)


@pytest.mark.parametrize(
    ("code_", "at"),
    [
        ("", 1),
        ("", 2),
        ("", 3),
        (INSIDE.format("delete_index"), 1),
        (INSIDE.format("delete_index"), 3),
        (INSIDE.format("_taken_out"), 4),
    ],
)
def test_killed_it_goes_on(code_: str, at: int, tmp_path: Path) -> None:
    """Killed between pages or within a transaction, each package has one of its keys, and the next call ends it."""
    path = tmp_path / "a.db"
    bits = filled(path)
    arguments = change()
    old, new = names(code(0)), names(code(1))
    # Within a transaction the progress of whole pages counts nothing.
    call = CALL.replace("progress=progress", "progress=None") if code_ else CALL
    assert killed(RENAMING + code_ + call, at, str(path), arguments[3], arguments[5]).returncode == -signal.SIGKILL
    one_key_each(path, old, new)
    done = said(path, *arguments)
    assert done["kept"] == {}
    assert stored(path) >= set(new)
    assert asked(path) == {name: (1, data) for name, (_, data) in bits.items()}
    assert_whole(path)


def one_key_each(path: Path, old: list[bytes], new: list[bytes]) -> None:
    """Every package is found under its old key or under its new one, and not under both."""
    here = stored(path)
    assert len(here) == TOTAL
    assert all((before in here) != (after in here) for before, after in zip(old, new, strict=True))
    assert_whole(path)


def test_the_script_may_be_killed(tmp_path: Path) -> None:
    """Killed at some moment, and called again until it is done, the script loses nothing."""
    path = tmp_path / "a.db"
    bits = filled(path)
    arguments = change()
    old, new = names(code(0)), names(code(1))
    for delay in (0.01, 0.02, 0.03, 0.05):
        with started("rekey", "--store", path, *arguments, cwd=tmp_path) as process:
            process.poll(delay)
        one_key_each(path, old, new)
    said(path, *arguments)
    assert asked(path) == {name: (1, data) for name, (_, data) in bits.items()}
