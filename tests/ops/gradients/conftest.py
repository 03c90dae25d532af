"""A program with an op, run in two processes that hash in two orders."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from tests.storage.samples import environment


@pytest.fixture
def found_again(tmp_path: Path) -> Callable[[str], None]:
    """Return what asserts that a program's op is a miss in one process, and in the next a hit with the same bits."""

    def twice(text: str) -> None:
        program = tmp_path / "program.py"
        program.write_text(dedent(text), "utf-8")
        runs = [
            subprocess.run(
                [sys.executable, program, tmp_path / "cache.db"],
                env={**environment(), "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.partition(" ")
            for seed in ("1", "2")
        ]
        assert [hit for hit, *_ in runs] == ["miss", "disk"]
        assert runs[0][2] == runs[1][2]

    return twice
