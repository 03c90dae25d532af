"""The scripts that migrate caches: forecasts that write nothing, second calls that go on, exit codes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest

import whiteboard as wb
from tests.processes import run_whiteboard
from tests.storage.moving import assert_whole, filled, held, numbers_held, other_bits

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
COMMANDS = {"copy_store": "copy", "import_legacy": "import-legacy", "recompress": "recompress", "rekey": "rekey"}
"""The scripts that migrate caches, and the commands that they call."""


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of the programs."""
    return run_whiteboard(COMMANDS[program], *arguments)


@pytest.mark.parametrize("program", COMMANDS)
def test_each_has_a_script_and_a_help(program: str) -> None:
    """Each command is called by a script that can be executed, and says what it does."""
    script = SCRIPTS / program
    assert os.access(script, os.X_OK)
    assert script.read_text().endswith(f'exec "$venv/bin/whiteboard" {COMMANDS[program]} "$@"\n')
    done = run(program, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert run(program, "--no-such-option").returncode == 2


def test_a_store_is_copied_by_url(tmp_path: Path) -> None:
    """A copy holds what the source holds; a second call finds nothing to do."""
    source, target = filled(tmp_path / "a.db"), tmp_path / "b.db"
    planned = json.loads(run("copy_store", source, target, "--dry-run", "--json").stdout)
    assert not target.exists()
    assert (planned["packages"], planned["commits"], planned["systems"]) == (240, 6, 2)
    done = run("copy_store", f"sqlite:///{source}", f"sqlite:///{target}", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert (said["packages_added"], said["commits_added"]) == (planned["packages"], planned["commits"])
    assert held(target) == held(source)
    again = json.loads(run("copy_store", source, target, "--json").stdout)
    assert (again["packages_added"], again["packages_present"], again["commits_added"]) == (0, 240, 0)


def test_a_copy_that_is_none_is_status_1(tmp_path: Path) -> None:
    """A target with other bytes under a key, a source that is not there, and another backend are told by the status."""
    source = filled(tmp_path / "a.db")
    other_bits(tmp_path / "b.db", [1])
    assert run("copy_store", source, tmp_path / "b.db").returncode == 1
    for arguments in (
        (tmp_path / "none.db", tmp_path / "c.db"),
        (source, source),
        (source, "postgresql://host/x"),
    ):
        done = run("copy_store", *arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert not (tmp_path / "c.db").exists()


def test_a_store_is_recompressed(tmp_path: Path) -> None:
    """The forecast is what is done, twice is once, and what the store answers is the same."""
    path = filled(tmp_path / "a.db")
    before = held(path)
    options = (path, "--codec", "lz4", "--level", "9", "--page-bytes", "30000", "--json")
    planned = json.loads(run("recompress", *options, "--dry-run").stdout)
    done = run("recompress", *options)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert {**said, "measured": "all pages"} == planned
    assert (said["encoding"], said["pages"], said["pages_after"], said["packages"]) == ("lz4:9", 6, 6, 240)
    assert json.loads(run("recompress", *options).stdout)["rewritten"] == 0
    assert held(path) == before
    assert numbers_held(path, range(240)) == set(range(240))
    assert_whole(path)


def test_a_recompress_that_is_none_is_told_by_the_status(tmp_path: Path) -> None:
    """Damage and a store that is not there are status 1, a codec or level that is none is status 2."""
    path = filled(tmp_path / "a.db")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE page SET data = zeroblob(length(data)) WHERE id = 2")
    connection.close()
    assert run("recompress", path, "--codec", "raw", "--dry-run").returncode == 1
    assert run("recompress", path, "--codec", "raw").returncode == 1
    for arguments in ((tmp_path / "none.db",), (path, "--op", "exp"), ("postgresql://host/x",)):
        done = run("recompress", *arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    for wrong in (("--codec", "gzip"), ("--level", "10"), ("--codec", "raw", "--level", "1"), ("--page-bytes", "0")):
        assert run("recompress", path, *wrong).returncode == 2


def checkpoints(folder: Path, count: int = 4) -> Path:
    """Write epochs 5, 6, …: node 1 moves at each, node 2 at every other one, node 3 never; node 9 comes late."""
    folder.mkdir()
    for epoch in range(count):
        arrays = {
            "1.theta": np.full(3, epoch, np.float64),
            "theta/2": np.full((2, 2), epoch // 2, np.float32),
            "node_3_p": np.ones(2),
        }
        if epoch >= 2:
            arrays["9.theta"] = np.zeros(1)
        np.savez(folder / f"epoch_{epoch + 5:06d}.npz", **arrays)  # type: ignore[arg-type]
    return folder


def test_epochs_become_commits(tmp_path: Path) -> None:
    """Each checkpoint is a commit, in order, and versions go up only where bytes have changed."""
    folder, store = checkpoints(tmp_path / "old"), tmp_path / "a.db"
    planned = json.loads(run("import_legacy", folder, "--store", store, "--name", "x", "--dry-run", "--json").stdout)
    assert planned == {"epochs": 4, "commits": 4, "nodes": 4, "rows": 8, "bytes": 4 * 24 + 2 * 16 + 16 + 8}
    assert not store.exists()
    done = run("import_legacy", folder, "--store", store, "--name", "x", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert (said["commits_added"], said["commit"], said["nodes"]) == (4, 3, 4)
    with wb.open(store, readonly=True) as board:
        system = board.system("x")
        assert [commit.changed for commit in system.history()] == [3, 1, 3, 1]
        assert [system.nodes[node].version for node in (1, 2, 3, 9)] == [3, 1, 0, 0]
        for number in range(4):
            np.testing.assert_array_equal(system.at(number).nodes[1].theta, np.full(3, number))
        theta = system.nodes[2].theta
        assert theta is not None
        assert theta.dtype == np.float32
        assert system.digest() == said["digest"]
    assert_whole(store)


def test_an_import_of_epochs_goes_on(tmp_path: Path) -> None:
    """What an earlier call has committed is not done again; later epochs are added, and another past is refused."""
    folder, store = checkpoints(tmp_path / "old"), tmp_path / "a.db"
    arguments = ("--store", str(store), "--name", "x", "--json")
    late = [folder / f"epoch_{number:06d}.npz" for number in (7, 8)]
    kept = [path.rename(path.with_suffix(".later")) for path in late]
    assert json.loads(run("import_legacy", folder, *arguments).stdout)["commits_added"] == 2
    for path in kept:
        path.rename(path.with_suffix(".npz"))
    assert json.loads(run("import_legacy", folder, *arguments).stdout)["commits_added"] == 2
    assert json.loads(run("import_legacy", folder, *arguments).stdout)["commits_added"] == 0
    whole = json.loads(run("import_legacy", folder, "--store", str(store), "--name", "y", "--json").stdout)
    assert json.loads(run("import_legacy", folder, *arguments).stdout)["digest"] == whole["digest"]
    np.savez(late[-1], **{"1.theta": np.zeros(3)})  # type: ignore[arg-type]
    assert "another state" in run("import_legacy", folder, *arguments).stderr


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"1.theta": np.array([None])}, "cannot be read"),
        ({"weights": np.zeros(1)}, "named after no node"),
        ({"1.theta": np.zeros(1, np.int64)}, "integer dtype"),
        ({"../1.theta": np.zeros(1)}, "named after no node"),
    ],
)
def test_a_bad_checkpoint_is_one_line(arrays: dict[str, np.ndarray], word: str, tmp_path: Path) -> None:
    """A pickle, a foreign name or a dtype that is refused is told with the file's name, and no pickle is read."""
    (tmp_path / "old").mkdir()
    np.savez(tmp_path / "old" / "epoch_000001.npz", **arrays)  # type: ignore[arg-type]
    done = run("import_legacy", tmp_path / "old", "--store", tmp_path / "a.db", "--name", "x")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert word in done.stderr
    assert "epoch_000001.npz" in done.stderr
    (tmp_path / "old" / "epoch_000001.npz").write_bytes(b"PK\x03\x04")
    assert run("import_legacy", tmp_path / "old", "--store", tmp_path / "b.db", "--name", "x").returncode == 1
    assert "holds no epoch_" in run("import_legacy", tmp_path, "--store", tmp_path / "a.db", "--name", "x").stderr
