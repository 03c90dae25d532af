"""Modules of a user's own, written and imported by a test."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

Write = Callable[..., ModuleType]
_folders = itertools.count()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return ``write(text, name="mine") → module``: a file of its own each time, imported under that name."""

    def module(text: str, name: str = "mine") -> ModuleType:
        path = tmp_path / str(next(_folders)) / f"{name}.py"
        path.parent.mkdir()
        path.write_text(dedent(text), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, made)
        spec.loader.exec_module(made)
        return made

    return module


@pytest.fixture(autouse=True)
def _builtin_ops_only(builtin_ops_only: None) -> None:
    """Every test here may register ops."""
