"""The reference: it is written without a warning, holds what users call, and reads as somebody would write it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

import whiteboard as wb

pytest.importorskip("pdoc", reason="pdoc is not installed: scripts/setup docs")

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "scripts" / "documenting" / "reference.py"


class Page(HTMLParser):
    """The names that a page describes, the files it leads to, and its text without the sources."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: set[str] = set()
        self.texts: list[str] = []
        self._within: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take up an element's name or link."""
        found = dict(attrs)
        if tag in ("section", "div") and (name := found.get("id")):
            self.names.add(name)
        if tag == "a" and (link := found.get("href")) and "://" not in link:
            self.links.add(link.partition("#")[0])
        if tag in ("pre", "script", "style"):
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Leave an element whose text does not count."""
        if self._within and self._within[-1] == tag:
            self._within.pop()

    def handle_data(self, data: str) -> None:
        """Take up a text."""
        if not self._within:
            self.texts.append(data)


def build(folder: Path, *before: str) -> subprocess.CompletedProcess[str]:
    """Write the reference, after some lines of Python that may change what it is of."""
    code = "\n".join(["import sys", "from scripts.documenting import reference", *before, "reference.main()"])
    return subprocess.run(
        [sys.executable, "-c", code, folder],
        cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the reference."""
    folder = tmp_path_factory.mktemp("reference") / "docs"
    done = build(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def test_it_holds_what_users_call(reference: Path) -> None:
    """Everything in `whiteboard.__all__` is described on the library's page or its own; so are seams and reports."""
    described = Page(reference / "whiteboard.html").names
    pages = {"errors", "ops"}
    assert set(wb.__all__) - described - pages == {"rules"}
    for page, name in {
        "whiteboard/errors.html": "ConflictError",
        "whiteboard/ops.html": "OpSpec.bind",
        "whiteboard/systems/rules.html": "StressDescent",
        "whiteboard/experiments.html": "drive",
        "whiteboard/integration/bridge_v2.html": "push_impulses_from_op_v2",
        "whiteboard/storage/base.html": "VersionStore.append",
        "whiteboard/records/reports.html": "VerifyReport.ok",
        "whiteboard/inspection/explain.html": "Explanation",
    }.items():
        assert name in Page(reference / page).names, page


def test_the_index_leads_to_every_page(reference: Path) -> None:
    """The first page names all others, and no page leads to one that is not there."""
    pages = {path.relative_to(reference).as_posix() for path in reference.rglob("*.html")}
    assert {link.removeprefix("./") for link in Page(reference / "index.html").links} >= pages - {"index.html"}
    for name in pages:
        for link in Page(reference / name).links - {""}:
            assert ((reference / name).parent / link).is_file(), (name, link)


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.3.0", reason="an older NumPy's ArrayLike is not told by its name"
)
def test_its_texts_read_well(reference: Path) -> None:
    """No alias is spelled out, and no markup is left that is not pdoc's."""
    for path in reference.rglob("*.html"):
        text = "".join(Page(path).texts)
        for wrong in ("numpy._typing", "numpy.dtype[", "NoneType", "Union[", "Optional[", "::\n", "-----", ":class:"):
            assert wrong not in text, (path, wrong)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("def f(x: Missing) -> None:\n    'Takes what is nowhere.'", "Missing"),
        ("raise RuntimeError('broken')", "broken"),
    ],
    ids=["annotation", "import"],
)
def test_a_warning_is_an_error(source: str, word: str, tmp_path: Path) -> None:
    """A name that is not found in an annotation, and a module that cannot be imported, fail and are named."""
    (tmp_path / "faulty.py").write_text(f"from __future__ import annotations\n{source}\n", "utf-8")
    done = build(tmp_path / "docs", "sys.path.insert(0, '')", "reference.MODULES = ('faulty',)")
    assert done.returncode == 1
    assert word in done.stderr
    assert not (tmp_path / "docs" / "index.html").exists()


def short(annotation: str) -> Any:
    """Return an annotation as the reference shows it."""
    spec = importlib.util.spec_from_file_location("reference", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.short(annotation)


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        ("numpy.ndarray[tuple[typing.Any, ...], numpy.dtype[numpy.int64]] | None", "NDArray[numpy.int64] | None"),
        ("tuple[numpy.ndarray[tuple[Any, ...], numpy.dtype[typing.Any]], ...]", "tuple[NDArray[Any], ...]"),
        ("Union[str, ~F, NoneType]", "str | F | None"),
        ("Mapping[str, typing.Any]", "Mapping[str, Any]"),
        ("Optional[Literal['none', 'inv_length']]", "Literal['none', 'inv_length'] | None"),
        (f"Mapping[str, {ArrayLike!r}] | None", "Mapping[str, ArrayLike] | None"),
        ("<factory>", "<factory>"),
    ],
)
def test_annotations_are_short(annotation: str, shown: str) -> None:
    """Aliases are shown by their names, unions with bars."""
    assert short(annotation) == shown
