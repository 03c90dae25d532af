"""`whiteboard run` with workers."""

from __future__ import annotations

import json
from pathlib import Path

from tests.processes import run_whiteboard


def test_workers_give_the_same_digest(tmp_path: Path) -> None:
    """``--workers`` changes how it is computed and nothing else."""
    outs = [
        run_whiteboard("run", "diabetes", "--rounds", "2", "--json", "--store", tmp_path / f"{number}.db", *more)
        for number, more in enumerate(([], ["--workers", "2"]))
    ]
    assert [out.returncode for out in outs] == [0, 0], outs
    first, second = (json.loads(out.stdout) for out in outs)
    assert (first["digest"], first["misses"]) == (second["digest"], second["misses"])
