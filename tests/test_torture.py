"""The short forms of `scripts/torture`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TORTURING = Path(__file__).parents[1] / "scripts" / "torturing"


@pytest.mark.parametrize("arguments", [("resume", "--kills", "3")], ids=lambda arguments: arguments[0])
def test_nothing_is_lost(arguments: tuple[str, ...]) -> None:
    """A few kills, faults or hostile bytes leave nothing wrong; the scripts themselves do many."""
    kind, *options = arguments
    done = subprocess.run(
        [sys.executable, TORTURING / f"{kind}.py", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["wrong"] == 0
