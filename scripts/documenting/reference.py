"""Write the reference of the library: ``reference.py FOLDER``. A warning, as of a name that is not found, is an error.

`scripts/docs` calls it in an environment that has pdoc.
"""

from __future__ import annotations

import ast
import html
import importlib
import inspect
import re
import sys
import warnings
from functools import reduce
from pathlib import Path
from typing import Any, Final

import jinja2
import pdoc
from numpy.typing import ArrayLike
from pdoc import render

MODULES: Final = (
    "whiteboard",
    "whiteboard.systems.rules",
    "whiteboard.experiments",
    "!whiteboard.experiments.drive",  # the function of that name is in the package
    "whiteboard.integration.bridge_v2",
    "whiteboard.records",
    "whiteboard.storage",
    "whiteboard.storage.base",
    "whiteboard.testing",
)
"""What a user of the library imports; `whiteboard` brings `errors` and `ops` with it."""

ANSWERS: Final = {
    "whiteboard.inspection.audit": ("AuditReport", "OpAudit", "Difference"),
    "whiteboard.inspection.explain": ("Explanation", "Difference", "Package"),
}
"""What `Board.audit` and `Board.explain` return: of these modules nothing else is shown."""

_ARRAY_LIKE: Final = inspect.formatannotation(ArrayLike).removeprefix("Union[").removesuffix("]")


class _Aliases(ast.NodeTransformer):
    """Puts NumPy's aliases in the place of what they stand for, bars for unions, and names without ``typing``."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """Rewrite ``Optional[X]``, ``Union[X, Y]``, ``ndarray[shape, dtype[X]]`` and ``dtype[X]``."""
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if ast.unparse(node.value) == "numpy.ndarray" and isinstance(parts[-1], ast.Subscript):
            return ast.Subscript(ast.Name("NDArray"), self.visit(parts[-1].slice))
        self.generic_visit(node)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        match ast.unparse(node.value):
            case "Optional":
                return ast.BinOp(node.slice, ast.BitOr(), ast.Constant(None))
            case "Union":
                return reduce(lambda left, right: ast.BinOp(left, ast.BitOr(), right), parts)
            case "numpy.dtype":
                return ast.Name("dtype")
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """Rewrite ``typing.X``."""
        return ast.Name(node.attr) if ast.unparse(node.value) == "typing" else node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        """Rewrite ``~X``, a variable of types."""
        return node.operand

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Rewrite ``NoneType``."""
        return ast.Constant(None) if node.id == "NoneType" else node


def short(annotation: str) -> str:
    """Return an annotation as somebody would write it; one that is no expression stays as it is."""
    try:
        named = annotation.replace(repr(ArrayLike), "ArrayLike").replace(_ARRAY_LIKE, "ArrayLike")
        named = named.replace("numpy._typing._array_like.ArrayLike", "ArrayLike")  # from Python 3.12 on it has a name
        tree = ast.parse(named, mode="eval")
    except SyntaxError:
        return annotation
    return ast.unparse(_Aliases().visit(tree))


class _Written:
    """An annotation that is shown as this text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _shortened(signature: inspect.Signature) -> inspect.Signature:
    def written(annotation: Any) -> Any:
        if annotation is inspect.Signature.empty:
            return annotation
        return _Written(short(inspect.formatannotation(annotation)))

    parameters = [each.replace(annotation=written(each.annotation)) for each in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=written(signature.return_annotation))


def _set_up() -> None:
    """Shorten what pdoc shows of annotations, and use the templates beside this file."""
    render.configure(docformat="numpy", template_directory=Path(__file__).parent, footer_text="Whiteboard")
    show, link = render.env.filters["format_signature"], render.env.filters["linkify"]

    def format_signature(signature: inspect.Signature, colon: bool) -> Any:
        return show(_shortened(signature), colon)

    @jinja2.pass_context
    def linkify(context: Any, code: str, **options: Any) -> Any:
        if (match := re.fullmatch(r"(: |)([^<]*)", code)) and not options:
            code = match[1] + html.escape(short(html.unescape(match[2])))
        return link(context, code, **options)

    render.env.filters |= {"format_signature": format_signature, "linkify": linkify}
    for name, answers in ANSWERS.items():
        importlib.import_module(name).__dict__["__all__"] = answers


def main() -> None:
    """Run from the command line."""
    (folder,) = map(Path, sys.argv[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _set_up()
        pdoc.pdoc(*MODULES, *ANSWERS, output_directory=folder)


if __name__ == "__main__":
    main()
