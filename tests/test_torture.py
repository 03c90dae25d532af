"""The short forms of `scripts/torture`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TORTURING = Path(__file__).parents[1] / "scripts" / "torturing"


SHORT = [
    ("resume", "--kills", "1"),
    ("resume", "--experiment", "mixed", "--kills", "1"),
    ("kill", "--kills", "8"),
    ("bytes", "--blobs", "4000", "--forge", "2000"),
    ("flips", "--flips", "10"),
    ("hostile", "--archives", "10", "--stores", "-1"),
    ("disk", "--lives", "1"),
    ("disk", "--lives", "1", "--rlimit"),
    ("power", "--images", "15", "--scene", "new", "--scene", "full", "--scene", "export"),
    ("faults", "--every", "60", "--scene", "new", "--scene", "export"),
    ("interrupts", "--lines", "797", "--signals", "80"),
    ("claims", "--seconds", "6"),
    ("cluster", "--seconds", "3"),
    ("load", "--writers", "4", "--readers", "2", "--seconds", "1", "--beside", "0"),
]


def torture(kind: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts."""
    return subprocess.run(
        [sys.executable, TORTURING / f"{kind}.py", *options],
        env={**os.environ, "PYTHONPATH": str(TORTURING.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", SHORT, ids=" ".join)
def test_nothing_is_lost(arguments: tuple[str, ...]) -> None:
    """A few kills, faults or hostile bytes leave nothing wrong; the scripts themselves do many."""
    done = torture(*arguments)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    if why := told.get("skipped"):
        pytest.skip(why)
    assert told["wrong"] == 0
