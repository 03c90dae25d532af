"""The rooms: who may import whom, parsed from the sources, and what may lie at the top of the repository."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.storage.samples import run_python

ROOT = Path(__file__).resolve().parents[1]

ROOMS: dict[str, str] = {
    "errors": "",
    "records": "",
    "types": "",
    "concurrency": "errors",
    "memory": "concurrency",
    "storage.base": "errors records",
    "storage.page": "errors records concurrency memory",
    "storage.sql": "errors records storage.page",
    "storage.sqlite": "errors records concurrency memory storage.page storage.sql",
    "storage.postgres": "errors concurrency storage.page storage.sql storage.sqlite",
    "storage.opening": "errors storage.sql storage.sqlite storage.postgres",
    "storage.cache": "errors records concurrency memory storage.base storage.page storage.sql storage.sqlite",
    "storage.commits": "errors records concurrency storage.base storage.page storage.sql storage.cache",
    "storage.transfer": (
        "errors records storage.base storage.page storage.sql storage.sqlite storage.opening storage.commits"
    ),
    "storage.upkeep": (
        "errors records storage.base storage.page storage.sql storage.sqlite storage.opening storage.cache "
        "storage.commits storage.transfer"
    ),
    "storage.stores": (
        "errors records storage.base storage.sql storage.sqlite storage.cache storage.commits storage.upkeep"
    ),
    "storage": "errors storage.base storage.sql storage.opening storage.cache storage.commits storage.stores",
    "migrations": "errors storage.sql",
    "ops.kernels": "types",
    "ops.fingerprint": "errors types concurrency",
    "ops.gradients": "errors types concurrency ops.kernels ops.fingerprint",
    "ops": "errors types concurrency ops.fingerprint ops.gradients",
    "ops.families": "errors types ops ops.kernels",
    "ops.checking": "errors types ops ops.kernels",
    "identity": "errors types concurrency ops ops.fingerprint",
    "evaluation": "errors records types concurrency memory storage.base ops ops.kernels identity",
    "workers": "errors types concurrency ops identity evaluation",
    "systems": "errors records types concurrency storage.base ops ops.fingerprint identity evaluation",
    "inspection": "errors records types storage.base ops ops.fingerprint identity evaluation systems",
    "board": (
        "errors records types concurrency storage storage.base ops identity evaluation workers systems inspection"
    ),
    "integration": "errors records types ops evaluation systems board",
    "experiments": "errors records types ops identity evaluation systems",
    "cli": (
        "errors records types ops systems inspection board integration experiments "
        "storage.base storage.page storage.sql storage.sqlite storage.opening storage.transfer storage.upkeep"
    ),
    "testing": "errors records storage.base",
    "": "errors types ops evaluation systems board integration",
    "__main__": "cli",
}
"""What each room may import of whiteboard beside itself, from below: a room names only rooms above it in this table.

A folder's own ``__init__`` may also import what lies in the folder; within a room nothing may make a circle.
"""

LAZY: dict[str, frozenset[str]] = {
    "alembic": frozenset({"migrations"}),
    "autograd": frozenset(),
    "matplotlib": frozenset(),
    "click": frozenset({"cli"}),
    "cloudpickle": frozenset(),
    "distributed": frozenset(),
    "jax": frozenset(),
    "jaxlib": frozenset(),
    "joblib": frozenset(),
    "psycopg": frozenset({"storage"}),
    "pytest": frozenset({"testing"}),
    "rich": frozenset({"cli"}),
    "scipy": frozenset(),
    "torch": frozenset(),
}
"""Slow to import, so imported inside functions only, but for the rooms named."""

LISTS = frozenset({"families", "gradients", "cli", "versions", "experiments", "legacy"})
"""Folders of members: a family of ops, a word of `gradient=`, a command, a migration, an experiment,
a format of another."""

DEPENDENCIES = frozenset({"numpy", "sqlalchemy", "blake3", "blosc2", "threadpoolctl", *LAZY})

TOP_LEVEL = frozenset(
    {
        ".ci",
        ".gitignore",
        ".pre-commit-config.yaml",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.md",
        "migrations",
        "pyproject.toml",
        "scripts",
    }
    | {"storage", "tests", "whiteboard"}
)

VAGUE = frozenset({"utils", "util", "helpers", "misc", "manager", "common"})


class Import(NamedTuple):
    """One imported module, and whether the import runs whenever the file is imported."""

    module: str
    eager: bool
    line: int


def module_name(path: Path) -> str:
    """Return the dotted name under which a file of the tree is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "whiteboard":
        parts = ("whiteboard", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, Path]:
    """Return every module of the three packages by name; the links in whiteboard/ are not followed."""
    found = {}
    for folder in ("whiteboard", "storage", "migrations"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT)
            if not any((ROOT / parent).is_symlink() for parent in inside.parents) and "__pycache__" not in inside.parts:
                found[module_name(path)] = path
    return found


MODULES = sources()


def runs_later(node: ast.AST) -> bool:
    """Tell whether what the node holds does not run when the file is imported."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def imports(module: str, source: str, *, package: bool, known: frozenset[str]) -> Iterator[Import]:
    """Yield what a source imports; ``from a import b`` is ``a.b`` where that is a module, else ``a``."""

    def visit(node: ast.AST, eager: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, eager, child.lineno)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    above = module.split(".")
                    above = above[: len(above) - child.level + package]
                    base = ".".join([*above, base] if base else above)
                for alias in child.names:
                    inner = f"{base}.{alias.name}"
                    yield Import(inner if inner in known else base, eager, child.lineno)
            else:
                yield from visit(child, eager and not runs_later(child))

    yield from visit(ast.parse(source), eager=True)


def room(module: str) -> str | None:
    """Return the room a module of whiteboard is in, the innermost there is, or None for a module that is in none."""
    names = module.split(".")[1:]
    inner = (".".join(names[:depth]) for depth in range(len(names), 0, -1))
    return next((name for name in inner if name in ROOMS), None if names else "")


def forbidden(importer: str, imported: str) -> str | None:
    """Say why one module may not import another, or return None."""
    own, other = room(importer), room(imported)
    if own is None or other is None:
        return f"{importer if own is None else imported} is in no room: add it to ROOMS"
    inside = importer in MODULES and MODULES[importer].name == "__init__.py" and imported.startswith(f"{importer}.")
    if own == other or other in ROOMS[own].split() or (inside and importer != "whiteboard"):
        return None
    return f"{own or 'whiteboard'} may import only {ROOMS[own] or 'nothing'}"


def problems(module: str, source: str, *, package: bool = False, known: frozenset[str] = frozenset()) -> list[str]:
    """Return one sentence for each import of a source that the rooms do not allow."""
    found = [] if room(module) is not None else [f"{module} is in no room: add it to ROOMS"]
    for target, eager, line in imports(module, source, package=package, known=known):
        top = target.split(".")[0]
        where = f"{module}:{line} imports {target}: "
        if top == "whiteboard":
            if not found and (why := forbidden(module, target)):
                found.append(where + why)
        elif top in LAZY:
            if eager and (room(module) or "").split(".")[0] not in LAZY[top]:
                found.append(where + "only inside a function")
        elif top not in DEPENDENCIES and top not in sys.stdlib_module_names:
            found.append(where + "not a dependency of the project")
    return found


def test_the_rooms_stand_on_each_other() -> None:
    """Each room may import earlier ones alone, and none is named that is not there."""
    for at, (name, allowed) in enumerate(ROOMS.items()):
        assert set(allowed.split()) <= set(list(ROOMS)[:at]), name
    assert {room(module) for module in MODULES} == set(ROOMS)


FOLDERS = sorted(path.parent for path in MODULES.values() if path.name == "__init__.py")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_a_folder_says_what_lives_in_it(folder: Path) -> None:
    """The first lines of a folder name every module in it, but where its files are members of a list."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    assert text
    if folder.name not in LISTS and folder != ROOT / "whiteboard":
        missing = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"} - set(re.findall(r"\w+", text))
        assert not missing, f"{folder.relative_to(ROOT)}/__init__.py does not name {missing}"


@pytest.mark.parametrize("module", MODULES)
def test_a_file_imports_only_what_its_room_allows(module: str) -> None:
    """Every import of every file goes to its own room, one that its room may import, or a declared dependency."""
    path = MODULES[module]
    package = path.name == "__init__.py"
    found = problems(module, path.read_text("utf-8"), package=package, known=frozenset(MODULES))
    assert found == [], "\n".join(found)


def test_no_imports_make_a_circle() -> None:
    """No chain of imports leads from a module back to itself, lazy imports included."""
    graph = {}
    for module, path in MODULES.items():
        found = imports(module, path.read_text("utf-8"), package=path.name == "__init__.py", known=frozenset(MODULES))
        graph[module] = {entry.module for entry in found if entry.module in MODULES} - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


class Expect(NamedTuple):
    """A source, the module it stands in, and a word of each problem that must be found in it."""

    module: str
    source: str
    words: tuple[str, ...]
    id: str


EXPECTED = [
    Expect("whiteboard.identity.keys", "from whiteboard.errors import ShapeError", (), "below"),
    Expect("whiteboard.identity.keys", "from whiteboard import errors, ops", (), "below-by-package"),
    Expect("whiteboard.ops.families.linear", "from whiteboard.ops.spec import OpSpec", (), "own-folder"),
    Expect("whiteboard.ops.kernels.rows", "from whiteboard.ops.spec import OpSpec", ("only types",), "kernel-to-ops"),
    Expect("whiteboard.ops.spec", "from whiteboard.ops.families import linear", ("may import",), "ops-to-a-family"),
    Expect("whiteboard.ops", "def f():\n    from whiteboard.ops.checking import corners", (), "the-front-of-a-folder"),
    Expect("whiteboard.identity.keys", "from whiteboard.systems.system import System", ("may import",), "above"),
    Expect("whiteboard.evaluation.pipeline", "import whiteboard.systems.system", ("may import",), "pipeline-to-system"),
    Expect("whiteboard.systems.system", "def f():\n    from whiteboard import board", ("may import",), "lazily-above"),
    Expect("whiteboard.identity.keys", "import whiteboard as wb", ("may import",), "the-package-itself"),
    Expect("whiteboard.board", "from whiteboard.storage.base import Store", (), "board-to-base"),
    Expect("whiteboard.board", "from whiteboard.storage.upkeep import remove", ("may import",), "board-to-a-backend"),
    Expect("whiteboard.evaluation.triage", "from whiteboard.storage.base import PackageStore", (), "stage-to-base"),
    Expect(
        "whiteboard.evaluation.triage", "from whiteboard.storage.cache import packages", ("may",), "stage-to-storage"
    ),
    Expect("whiteboard.board", "from whiteboard import migrations", ("may import",), "to-migrations"),
    Expect("whiteboard.storage.page.format", "from whiteboard.records.packages import Page", (), "storage-to-records"),
    Expect("whiteboard.storage.page.format", "from whiteboard.types import Array", ("only",), "storage-to-types"),
    Expect("whiteboard.storage.page.format", "from .. import cache", ("only",), "relative"),
    Expect("whiteboard.storage.cache.memory", "from whiteboard.storage.upkeep import gc", ("only",), "cache-to-upkeep"),
    Expect("whiteboard.helpers", "import numpy", ("no room",), "unknown-room"),
    Expect("whiteboard.storage.sqlite.schema", "import alembic", ("inside",), "eager-alembic"),
    Expect("whiteboard.storage.sqlite.schema", "def f():\n    import alembic", (), "lazy-alembic"),
    Expect("whiteboard.migrations.env", "from alembic import context", (), "migrations-alembic"),
    Expect("whiteboard.cli", "import rich.table, click, matplotlib.pyplot", ("inside",), "cli-rich"),
    Expect("whiteboard.systems.rules", "try:\n    import autograd\nexcept ImportError: ...", ("inside",), "in-a-try"),
    Expect("whiteboard.systems.rules", "import pandas", ("not a dependency",), "undeclared"),
    Expect("whiteboard.systems.rules", "import json, numpy as np", (), "declared"),
]


@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: case.id)
def test_the_rooms_refuse_what_they_should(case: Expect) -> None:
    """The check finds each kind of forbidden import in a made-up file, and nothing in a good one."""
    known = frozenset({f"whiteboard.{name}" for name in ROOMS if name})
    found = problems(case.module, case.source, package=case.module in ("whiteboard.ops",), known=known)
    assert len(found) == len(case.words), found
    assert all(word in problem for word, problem in zip(case.words, found, strict=True)), found


def tracked() -> list[str]:
    """Return the files that git tracks, or skip the test in a tree without git."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    run = subprocess.run([git, "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip(run.stderr.strip())
    return [name for name in run.stdout.split("\0") if name]


_ONE_PACKAGE = """
import sys
import numpy as np
import whiteboard as wb

with wb.open(sys.argv[1]) as board:
    board.call("mul", np.arange(64.0), np.ones(64))
foreign = {"alembic", "autograd", "blosc2", "click", "email", "numpy.ma", "rich", "sqlalchemy", "threadpoolctl"}
assert not foreign & set(sys.modules), foreign & set(sys.modules)
assert not [name for name in sys.modules if name.startswith(("whiteboard.systems.system", "whiteboard.integration"))]
assert set(wb.__all__) <= set(dir(wb)) and wb.Job.__name__ == "Job" and wb.rules.Relax and not hasattr(wb, "Jobs")
"""


def test_one_package_needs_few_modules(tmp_path: Path) -> None:
    """A process that makes one package, and keeps it, imports neither SQLAlchemy nor systems, which come when asked."""
    for _ in range(2):  # in a store that is new, and in one that is there
        done = run_python(_ONE_PACKAGE, str(tmp_path / "a.db"))
        assert done.returncode == 0, done.stderr


def test_the_top_level_holds_only_what_it_should() -> None:
    """Nothing lies at the top of the repository that is not in the list above."""
    assert {name.split("/")[0] for name in tracked()} - TOP_LEVEL == set()


def test_no_file_has_a_vague_name() -> None:
    """A file's name says what it is for."""
    assert [name for name in tracked() if Path(name).stem in VAGUE] == []
