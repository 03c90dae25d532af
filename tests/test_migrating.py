"""The scripts that migrate caches: forecasts that write nothing, kills that the next call repairs, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.storage.moving import assert_whole, filled, held, numbers_held, other_bits
from tests.storage.samples import environment

FOLDER = Path(__file__).resolve().parents[1] / "scripts" / "migrating"
PROGRAMS = sorted(path.stem for path in FOLDER.glob("*.py"))


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of the programs."""
    command = [sys.executable, FOLDER / f"{program}.py", *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_has_a_script_and_a_help(program: str) -> None:
    """Each program is called by a script of its name that can be executed, and says what it does."""
    scripts = [FOLDER.parent / name for name in (program, program.replace("_", "-"))]
    assert any(os.access(script, os.X_OK) for script in scripts)
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


def test_a_killed_copy_goes_on(tmp_path: Path) -> None:
    """Killed at some moment, the target is whole or not there yet, and the next call makes it the source's equal."""
    source = filled(tmp_path / "a.db", steps=40)
    for delay in (0.2, 0.4, 0.6):
        target = tmp_path / f"{delay}.db"
        command = [sys.executable, str(FOLDER / "copy_store.py"), str(source), str(target)]
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert run("copy_store", source, target).returncode == 0
        assert held(target) == held(source)
        assert numbers_held(target, range(240)) == set(range(240))
        assert_whole(target)


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
