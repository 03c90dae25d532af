"""The command line in this process, in an empty folder, and stores for it to work on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.cli import status


class Done(NamedTuple):
    """What a command left: exit status, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> dict[str, Any]:
        """The JSON object on stdout."""
        fields: dict[str, Any] = json.loads(self.out)
        return fields


Cli = Callable[..., Done]


class Bad(NamedTuple):
    """A command that must fail: arguments, status, and what its one line of stderr says."""

    arguments: tuple[str, ...]
    code: int
    says: str


def assert_refused(done: Done, code: int, says: str) -> None:
    """A command ended with this status and one line on stderr, which says this."""
    assert (done.code, done.out) == (code, ""), done.err
    assert says in done.err
    assert (len(done.err.splitlines()), done.err[:12], done.err[-1]) == (1, "whiteboard: ", "\n"), done.err


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Return a function that runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Done:
        return Done(status(arguments), *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def four_rounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four rounds of europe, to copy from."""
    path = tmp_path_factory.mktemp("europe") / "whiteboard.db"
    assert status(("run", "europe", "--rounds", "4", "--quiet", "--store", str(path))) == 0
    return path


@pytest.fixture
def europe(four_rounds: Path, tmp_path: Path) -> Path:
    """A copy of it in the folder, where every command looks for its store."""
    return Path(shutil.copy(four_rounds, tmp_path))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a store s.db of one system and a package."""
    with wb.open(tmp_path / "s.db") as board:
        system = board.system("s", {"measure": "mse"})
        system.add_nodes([0, 1], p=np.array([[0.0, 0.0], [3.0, 4.0]]))
        system.commit()
        board.call("exp", np.ones(3))
    return tmp_path
