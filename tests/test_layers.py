"""The layers: who may import whom, parsed from the sources, and what may lie at the top of the repository."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "errors types locks",
        "columns specs",
        "arithmetic encoding jobs keys ops",
        "lineage nodes sources queue triage bins session promises agreement pool separate given",
        "sinks exact impulses residuals rules",
        "pipeline",
        "direct propagate state steps history",
        "system",
        "submission audit explain rekey",
        "board",
        "integration experiments",
        "cli",
        "__init__ __main__",
    )
)
"""The parts of `whiteboard`, from the bottom: a part may import those of earlier layers.

Within one layer, and within a folder, imports are allowed as long as they make no circle.
"""

APART = {
    "storage": frozenset({"storage", "errors"}),
    "migrations": frozenset({"storage", "errors", "migrations"}),
}
"""What stands beside the layers, and all that it may import of whiteboard."""

MAY_IMPORT_STORAGE = frozenset({"board", "cli"})

VALUES = ("whiteboard.storage.base", "whiteboard.records.distance")
"""The values that cross the store's seam, and its ABCs: no SQL, so the parts that make such values import them."""

MAY_IMPORT_VALUES = frozenset({"audit", "integration", "pipeline", "rekey", "state", "history", "system", "triage"})

LAZY: dict[str, frozenset[str]] = {
    "alembic": frozenset({"migrations"}),
    "autograd": frozenset(),
    "matplotlib": frozenset(),
    "click": frozenset({"cli"}),
    "joblib": frozenset(),
    "rich": frozenset({"cli"}),
}
"""Slow to import, so imported inside functions only, but for the parts named."""

DEPENDENCIES = frozenset({"numpy", "sqlalchemy", "blosc2", "threadpoolctl", *LAZY})

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


def part(module: str) -> str:
    """Return the part a module of whiteboard belongs to: ``whiteboard.ops.spec`` is of ``ops``."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def layer(name: str) -> int | None:
    """Return the index of the part's layer, or None for a part that has none."""
    return next((i for i, names in enumerate(LAYERS) if name in names), None)


def forbidden(importer: str, imported: str) -> str | None:
    """Say why one part may not import another, or return None."""
    if importer in APART:
        return None if imported in APART[importer] else f"{importer} may import only {sorted(APART[importer])}"
    if layer(importer) is None:
        return f"{importer} is in no layer: add it to LAYERS"
    if importer == "__init__" or importer == imported:
        return None
    if imported == "storage":
        return None if importer in MAY_IMPORT_STORAGE else "only board and cli import storage"
    if imported == "migrations":
        return "only storage's Alembic calls name migrations"
    below, above = layer(imported), layer(importer)
    if below is None or above is None:
        return f"{imported} is in no layer"
    return f"{imported} is in a later layer than {importer}" if below > above else None


def problems(module: str, source: str, *, package: bool = False, known: frozenset[str] = frozenset()) -> list[str]:
    """Return one sentence for each import of a source that the layers do not allow."""
    found = []
    own = part(module)
    if own not in APART and layer(own) is None:
        found.append(f"{module}: {own} is in no layer: add it to LAYERS")
    for target, eager, line in imports(module, source, package=package, known=known):
        top = target.split(".")[0]
        where = f"{module}:{line} imports {target}: "
        if top == "whiteboard":
            why = None if target in VALUES and own in MAY_IMPORT_VALUES else forbidden(own, part(target))
            if why:
                found.append(where + why)
        elif top in LAZY:
            if eager and own not in LAZY[top]:
                found.append(where + "only inside a function")
        elif top not in DEPENDENCIES and top not in sys.stdlib_module_names:
            found.append(where + "not a dependency of the project")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_file_imports_only_what_its_layer_allows(module: str) -> None:
    """Every import of every file goes to an earlier layer, its own folder or layer, or a declared dependency."""
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
    Expect("whiteboard.identity.keys", "from whiteboard.errors import ShapeError", (), "earlier"),
    Expect("whiteboard.identity.keys", "from whiteboard import errors, ops", (), "earlier-by-package"),
    Expect("whiteboard.ops.families.linear", "from whiteboard.ops.spec import OpSpec", (), "own-folder"),
    Expect("whiteboard.identity.keys", "from whiteboard.systems.system import System", ("later",), "later"),
    Expect("whiteboard.evaluation.pipeline", "import whiteboard.systems.system", ("later",), "pipeline-before-system"),
    Expect("whiteboard.systems.system", "def f():\n    from whiteboard import board", ("later",), "lazily-later"),
    Expect("whiteboard.identity.keys", "import whiteboard as wb", ("later",), "the-package-itself"),
    Expect("whiteboard.board", "from whiteboard.storage import base", (), "board-to-storage"),
    Expect("whiteboard.evaluation.triage", "from whiteboard.storage import base", ("only board",), "stage-to-storage"),
    Expect("whiteboard.board", "from whiteboard import migrations", ("Alembic",), "to-migrations"),
    Expect("whiteboard.storage.page.format", "from whiteboard.storage.base import Page", (), "storage-to-itself"),
    Expect("whiteboard.storage.page.format", "from whiteboard.types import Array", ("only",), "storage-to-types"),
    Expect("whiteboard.storage.page.format", "from .. import types", ("only",), "relative"),
    Expect("whiteboard.helpers", "import numpy", ("no layer",), "unknown-part"),
    Expect("whiteboard.storage.sqlite.schema", "import alembic", ("inside",), "eager-alembic"),
    Expect("whiteboard.storage.sqlite.schema", "def f():\n    import alembic", (), "lazy-alembic"),
    Expect("whiteboard.migrations.env", "from alembic import context", (), "migrations-alembic"),
    Expect("whiteboard.cli", "import rich.table, click, matplotlib.pyplot", ("inside",), "cli-rich"),
    Expect(
        "whiteboard.systems.rules", "try:\n    import autograd\nexcept ImportError: ...", ("inside",), "eager-in-try"
    ),
    Expect("whiteboard.systems.rules", "import scipy", ("not a dependency",), "undeclared"),
    Expect("whiteboard.systems.rules", "import json, numpy as np", (), "declared"),
]


@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: case.id)
def test_the_layers_refuse_what_they_should(case: Expect) -> None:
    """The check finds each kind of forbidden import in a made-up file, and nothing in a good one."""
    known = frozenset({f"whiteboard.{name}" for names in LAYERS for name in names} | {"whiteboard.migrations"})
    found = problems(case.module, case.source, known=known)
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


def test_the_top_level_holds_only_what_it_should() -> None:
    """Nothing lies at the top of the repository that is not in the list above."""
    assert {name.split("/")[0] for name in tracked()} - TOP_LEVEL == set()


def test_no_file_has_a_vague_name() -> None:
    """A file's name says what it is for."""
    assert [name for name in tracked() if Path(name).stem in VAGUE] == []
