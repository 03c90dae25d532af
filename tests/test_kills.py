"""Each command that moves or changes a cache, killed at random once it writes, and called again: the right end."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import whiteboard as wb
from tests.legacy import GOOD, MAPPING, inputs, unpacked
from tests.processes import run_whiteboard, started
from tests.storage.moving import assert_whole, filled, held, numbers_held
from tests.storage.sqlite.test_migrations import thawed
from whiteboard.storage.page.codec import Encoding
from whiteboard.storage.sqlite import schema
from whiteboard.storage.transfer.archive import Reader
from whiteboard.storage.transfer.export import export
from whiteboard.storage.upkeep.recompress import forecast
from whiteboard.storage.upkeep.recompress_plan import Form

KILLS = 3


def killed(command: tuple[str, ...], folder: Path) -> bool:
    """Run a command until some moment after it has begun to write; return whether it was killed."""
    begun = _files(folder)
    with started(*command, cwd=folder) as process:
        while process.poll() is None and _files(folder) == begun:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.05))
        return process.kill() == -9


def _files(folder: Path) -> dict[str, int]:
    sizes = {}
    for path in folder.rglob("*"):
        try:
            # A lock or a log that is opened is no beginning yet.
            if path.suffix not in (".lock", ".db-shm", ".pyc") and path.is_file():
                sizes[path.name] = path.stat().st_mtime_ns
        except OSError:
            continue
    return sizes


class Case(NamedTuple):
    """A command, what it needs, what must hold after each kill, and what in the end."""

    id: str
    command: tuple[str, ...]
    prepare: Callable[[Path], object]
    between: Callable[[Path], object]
    check: Callable[[Path], object]


def _source(folder: Path) -> None:
    filled(folder / "a.db", steps=60)


def _archive(folder: Path) -> None:
    _source(folder)
    export(folder / "a.db", folder / "a.wb")


def _is_whole(name: str) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        if (folder / name).exists():
            assert_whole(folder / name)

    return check


def _equals(name: str) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        assert held(folder / name) == held(folder / "a.db")
        assert numbers_held(folder / name, range(300)) == set(range(240))

    return check


def _exported(folder: Path) -> None:
    path = folder / "new.wb"
    assert path.read_bytes() == export(folder / "a.db", folder / "again.wb").path.read_bytes()
    with path.open("rb") as file:
        assert [frame.kind for frame in Reader(path, file).frames()][-1] == b"DONE"


def _listed(folder: Path) -> None:
    text = (folder / "new.csv").read_text()
    assert text.count("\n") == 1 + 120
    assert text.startswith("y[0],y[1],y[2],")
    assert text.endswith("\n")


def _is_listed(folder: Path) -> None:
    if (folder / "new.csv").exists():
        _listed(folder)


def _small_pages(folder: Path) -> None:
    shutil.copy(filled(folder / "a.db", steps=60), folder / "b.db")


def _recompressed(folder: Path) -> None:
    _equals("b.db")(folder)
    assert forecast(folder / "b.db", Form(Encoding("lz4", 5), 1)).right == 240


def _epochs(folder: Path) -> None:
    (folder / "old").mkdir()
    for epoch in range(60):
        arrays = {f"{node}.theta": np.full(3, epoch + node) / 3 for node in range(9)}
        np.savez(folder / "old" / f"epoch_{epoch:06d}.npz", **arrays)  # type: ignore[arg-type]


def _epochs_arrived(folder: Path) -> None:
    with wb.open(folder / "new.db", readonly=True) as board:
        history = board.system("x").history()
        assert [commit.id for commit in history] == list(range(60))
        for epoch in (0, 31, 59):
            np.testing.assert_array_equal(board.system("x").at(epoch).nodes[2].theta, np.full(3, epoch + 2) / 3)


def _results(folder: Path) -> None:
    (folder / "mapping.py").write_text(MAPPING)
    unpacked("diskcache", folder)


def _results_arrived(folder: Path) -> None:
    with wb.open(folder / "new.db", readonly=True) as board:
        assert all(board.call("mul", *inputs(seed)).hit != "miss" for seed in GOOD)


def _upgraded(folder: Path) -> None:
    assert schema.current(folder / "old.db") == schema.HEAD
    assert schema.differences(folder / "old.db") == []
    assert_whole(folder / "old.db")


_TRUSTED = ("diskcache", "--op", "mul", "--sources", "mapping:sources", "--trust-pickle")
CASES = [
    Case("export", ("export", "a.db", "new.wb"), _source, _is_whole("a.db"), _exported),
    Case("import", ("import", "new.db", "a.wb"), _archive, _is_whole("new.db"), _equals("new.db")),
    Case("merge", ("merge", "new.db", "a.db"), _source, _is_whole("new.db"), _equals("new.db")),
    Case(
        "upgrade",
        ("db", "upgrade", "--store", "old.db"),
        lambda folder: thawed("0001", folder / "old.db"),
        lambda folder: None,
        _upgraded,
    ),
    Case("copy_store", ("copy", "a.db", "new.db"), _source, _is_whole("new.db"), _equals("new.db")),
    Case("table", ("table", "mul", "--csv", "new.csv", "--store", "a.db"), _source, _is_listed, _listed),
    Case(
        "recompress",
        ("recompress", "b.db", "--codec", "lz4", "--level", "5", "--page-bytes", "1"),
        _small_pages,
        _equals("b.db"),
        _recompressed,
    ),
    Case(
        "import_legacy-npz",
        ("import-legacy", "old", "--store", "new.db", "--name", "x"),
        _epochs,
        _is_whole("new.db"),
        _epochs_arrived,
    ),
    Case(
        "import_legacy-diskcache",
        ("import-legacy", *_TRUSTED, "--store", "new.db"),
        _results,
        _is_whole("new.db"),
        _results_arrived,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_killed_at_random_and_called_again(case: Case, tmp_path: Path) -> None:
    """After each kill nothing is damaged, and the last call ends with status 0 and what an undisturbed one gives."""
    case.prepare(tmp_path)
    for _ in range(KILLS):
        if not killed(case.command, tmp_path):
            break
        case.between(tmp_path)
    done = {"export": "new.wb", "table": "new.csv"}.get(case.id)
    if done is None or not (tmp_path / done).exists():
        last = run_whiteboard(*case.command, cwd=tmp_path)
        assert (last.returncode, last.stderr) == (0, "")
    case.check(tmp_path)
