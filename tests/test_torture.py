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
    ("resume", "--kills", "2"),
    ("resume", "--experiment", "mixed", "--kills", "1"),
    ("kill", "--kills", "12"),
    ("bytes", "--blobs", "4000", "--forge", "2000"),
    ("flips", "--flips", "15"),
    ("hostile", "--archives", "20", "--stores", "-1"),
    ("disk", "--lives", "1"),
    ("disk", "--lives", "1", "--rlimit"),
    ("power", "--images", "30", "--scene", "new", "--scene", "full", "--scene", "export"),
    ("faults", "--every", "60", "--scene", "new", "--scene", "export"),
    ("interrupts", "--lines", "397", "--signals", "150"),
    ("load", "--writers", "4", "--readers", "2", "--seconds", "1", "--beside", "0"),
]


@pytest.mark.parametrize("arguments", SHORT, ids=" ".join)
def test_nothing_is_lost(arguments: tuple[str, ...]) -> None:
    """A few kills, faults or hostile bytes leave nothing wrong; the scripts themselves do many."""
    kind, *options = arguments
    done = subprocess.run(
        [sys.executable, TORTURING / f"{kind}.py", *options],
        env={**os.environ, "PYTHONPATH": str(TORTURING.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    if why := told.get("skipped"):
        pytest.skip(why)
    assert told["wrong"] == 0
