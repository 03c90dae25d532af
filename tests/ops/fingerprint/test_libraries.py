"""Whose code a module is: as the record of an installed distribution says, never as a path looks."""

from __future__ import annotations

import importlib
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.ops.conftest import Write
from whiteboard.ops.fingerprint import libraries
from whiteboard.ops.fingerprint.digest import fingerprint
from whiteboard.ops.fingerprint.libraries import library_of
from whiteboard.ops.fingerprint.walk import Terms

FOUND = {
    "numpy": "numpy",
    "numpy.linalg": "numpy",
    "autograd.numpy.linalg": "autograd",
    "math": "python",
    "json.decoder": "python",
    "_operator": "python",
    "builtins": "python",
    "whiteboard.board": "whiteboard",
    "nobody.has.this": None,
}


@pytest.mark.parametrize(("module", "name"), FOUND.items(), ids=FOUND.keys())
def test_whose_a_module_is(module: str, name: str | None) -> None:
    """By name alone."""
    found = library_of(module, None)
    assert (found and found.name) == name
    assert found is None or bool(found.version) == (name not in ("python", "whiteboard"))


OWN = ("profile.py", "trace.py", "my-site-packages/solver.py", "lib/python3.11/solver.py", "dist-packages/numpy.py")


@pytest.mark.parametrize("name", OWN)
def test_files_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever they and their folders are called."""
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("def g(x): return x\n")
    monkeypatch.syspath_prepend(str(file.parent))
    assert library_of(file.stem, str(file)) is None


@pytest.mark.parametrize("name", ["profile", "trace"])
def test_a_file_beside_the_script_counts_by_its_source(write: Write, name: str) -> None:
    """Though a module of Python's library has its name."""
    digests = set()
    for k in (2, 3):
        write(f"def g(x): return x * {k}", name)
        found = fingerprint((write(f"import {name}\ndef f(x): return {name}.g(x)").f,), Terms("mine"))
        assert found.opaque == ""
        digests.add(found.digest)
    assert len(digests) == 2


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where distributions are installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(libraries, "_records", {})
    libraries._owner.cache_clear()
    return folder


def install(site: Path, version: str, record: str) -> None:
    """Install a distribution named aero, with a module of that name."""
    (site / "aero.py").write_text(f"def g(x): return x * {version}\n")
    info = site / f"aero-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: aero\nVersion: {version}\n")
    (info / "RECORD").write_text(record)


def test_an_installed_distribution_counts_by_its_version(site: Path, write: Write) -> None:
    """Where it is trusted; unknown, it is refused, with the word that would help."""
    install(site, "1.5", "aero.py,sha256=abc,10\n")
    assert library_of("aero", str(site / "aero.py")) == ("aero", "1.5")
    module = write("import aero\ndef f(x): return aero.g(x)")
    try:
        assert "trust=('aero',)" in fingerprint((module.f,), Terms("mine")).opaque
        digests = {fingerprint((module.f,), Terms("mine", trust=("aero",))).digest}
        (site / "aero-1.5.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: aero\nVersion: 1.6\n")
        libraries._owner.cache_clear()
        digests.add(fingerprint((module.f,), Terms("mine", trust=("aero",))).digest)
        assert len(digests - {None}) == 2
    finally:
        sys.modules.pop("aero", None)


def test_what_is_installed_for_editing_is_the_users_own(site: Path, tmp_path: Path) -> None:
    """Its record does not list its files."""
    install(site, "1.5", "__editable__.aero-1.5.pth,,\n")
    (tmp_path / "work").mkdir()
    moved = (site / "aero.py").rename(tmp_path / "work" / "aero.py")
    assert library_of("aero", str(moved)) is None


def test_a_file_that_was_put_beside_an_installed_one(site: Path) -> None:
    """Is nobody's but the user's."""
    install(site, "1.5", "aero.py,sha256=abc,10\n")
    (site / "mine.py").write_text("")
    assert library_of("mine", str(site / "mine.py")) is None


def test_compiled_code_of_ones_own_counts_by_its_file(tmp_path: Path) -> None:
    """As it cannot be walked."""
    file = tmp_path / f"flow{sysconfig.get_config_var('EXT_SUFFIX')}"
    versions = set()
    for content in (b"one", b"two"):
        file.write_bytes(content)
        libraries._owner.cache_clear()
        found = library_of("flow", str(file))
        assert found is not None
        assert found.name == "flow"
        versions.add(found.version)
    assert len(versions) == 2
    importlib.invalidate_caches()
