"""The wheel: everything of the tree is in it, nothing else is, and it works where other modules have its names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"whiteboard": "whiteboard", "storage": "whiteboard/storage", "migrations": "whiteboard/migrations"}
DATA = {".py", ".typed", ".csv", ".mako"}
HOSTILE = "raise ImportError('the folder of the caller was imported')\n"


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a program without this process's Python settings; return what it printed, or fail with it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV", "WHITEBOARD"))}
    done = subprocess.run(
        command, cwd=cwd, env=clean | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def packaged() -> dict[str, Path]:
    """Return each file of the three packages by the name it must have in the wheel."""
    found = {}
    for folder, target in PACKAGES.items():
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            linked = any((ROOT / folder / parent).is_symlink() for parent in (inside, *inside.parents))
            if path.is_file() and not linked and path.suffix not in {".pyc", ".pyo"}:
                found[f"{target}/{inside.as_posix()}"] = path
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources, so that a build leaves nothing in the repository."""
    copy = tmp_path_factory.mktemp("build") / "tree"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for folder in PACKAGES:
        # with the links that scripts/setup makes, as in the tree of a developer
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("storage", "migrations"):
        link = copy / "whiteboard" / name
        if not link.is_symlink():
            link.symlink_to(f"../{name}")
    return copy


def build(kind: str, tree: Path, out: Path) -> Path:
    """Build a wheel or an sdist with the setuptools of this environment: no download, no isolation."""
    out.mkdir()
    call = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    run(sys.executable, "-c", call, out, cwd=tree)
    (made,) = out.iterdir()
    return made


def contents(wheel: Path) -> set[str]:
    """Return the names of a wheel's files, its metadata apart."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    """Return a wheel built from the tree."""
    return build("wheel", tree, tree.parent / "wheel")


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment that holds the wheel, and sees the dependencies of this one."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(place, symlinks=True)
    interpreter = place / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", interpreter, "install", "--no-index", "--no-deps", wheel, cwd=place)
    site = Path(run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip())
    # a folder named in a .pth file is searched, but its own .pth files are not read: the editable install is not seen
    seen = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "dependencies.pth").write_text("\n".join(seen) + "\n", "utf-8")
    return interpreter


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a folder with nothing in it but modules that bear the names of ours and cannot be imported."""
    for name in ("storage", "migrations"):
        (tmp_path / f"{name}.py").write_text(HOSTILE, "utf-8")
    return tmp_path


def test_the_wheel_holds_the_tree_and_nothing_else(wheel: Path) -> None:
    """Every module and data file of the three packages is in the wheel, under its installed name, byte for byte."""
    files = packaged()
    assert contents(wheel) == set(files)
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name, path in files.items() if archive.read(name) != path.read_bytes()] == []


def test_every_file_of_the_tree_is_of_a_known_kind() -> None:
    """A file of another kind in a package has to be named in pyproject.toml, and then here."""
    assert {path.suffix for path in packaged().values()} <= DATA


def test_every_package_is_named_in_pyproject() -> None:
    """The list of packages in pyproject.toml is the list of folders with modules."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    folders = {name.rpartition("/")[0].replace("/", ".") for name in packaged() if name.endswith(".py")}
    assert sorted(listed) == sorted(folders)


def test_a_wheel_from_the_sdist_is_the_same(tree: Path, wheel: Path) -> None:
    """The sdist holds all that the wheel is made of."""
    sdist = build("sdist", tree, tree.parent / "sdist")
    unpacked = tree.parent / "unpacked"
    with tarfile.open(sdist) as archive:
        # Python 3.11.2 has no filters yet, Python 3.12 warns where none is named
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        archive.extractall(unpacked)
    (source,) = unpacked.iterdir()
    assert contents(build("wheel", source, tree.parent / "again")) == contents(wheel)


def test_the_installed_library_works_beside_modules_of_its_names(python: Path, hostile: Path) -> None:
    """From a folder with a hostile storage.py and migrations.py, a store is made, and a second process reads it."""
    program = """
import json, sys, warnings
warnings.simplefilter("error")
import numpy as np
import whiteboard as wb, whiteboard.storage, whiteboard.migrations, whiteboard.migrations.versions
a, b = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
with wb.open("x.db") as board:
    result = board.call("mul", a, b)
files = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "whiteboard"]
print(json.dumps([files, result.y.tolist(), [grad.tolist() for grad in result.grads], result.hit]))
"""
    for hit in ("miss", "disk"):
        files, y, grads, found = json.loads(run(python, "-c", program, cwd=hostile))
        inside = str(python.parents[1])
        assert [name for name in files if not name.startswith(inside)] == []
        assert (y, grads, found) == ([4.0, 10.0, 18.0], [[4.0, 5.0, 6.0], [1.0, 2.0, 3.0]], hit)
    assert (hostile / "x.db").is_file()


def test_the_installed_command_works_beside_modules_of_its_names(python: Path, hostile: Path) -> None:
    """The console script of the wheel runs a built-in experiment with its data, even with that folder on the path."""
    command = ("run", "europe", "--rounds", "3", "--json")
    said = json.loads(run(python.parent / "whiteboard", *command, cwd=hostile, PYTHONPATH=str(hostile)))
    assert (said["name"], said["rounds"]) == ("europe", 3)
    assert (hostile / "whiteboard.db").is_file()
