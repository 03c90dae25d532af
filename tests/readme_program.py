"""Runs Python files in one namespace, as a reader would type them, and holds their comments to what they say of values.

``python readme_program.py FILE…`` prints `END` after each file, and fails at the first comment that is wrong.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from pathlib import Path
from typing import Any

END = "\x1e"


def comments(source: str) -> dict[int, str]:
    """Return the comments that stand behind code, by line."""
    found, code = {}, set()
    quiet = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.start[0] in code:
            found[token.start[0]] = token.string.lstrip("# ")
        elif token.type not in quiet:
            code.add(token.end[0])
    return found


class Claims(ast.NodeTransformer):
    """Puts a check behind each statement whose comment says something of its values."""

    def __init__(self, said: dict[int, str]) -> None:
        self.said = said

    def checked(self, node: ast.stmt, values: list[ast.expr]) -> list[ast.stmt]:
        """Return the statement, and the check of the values it makes where there is a comment."""
        comment = self.said.get(node.end_lineno or 0)
        if comment is None:
            return [node]
        arguments = [ast.Constant(node.lineno), ast.Constant(comment), *values]
        check = ast.Expr(ast.Call(ast.Name("__claim__", ast.Load()), arguments, []))
        return [node, ast.fix_missing_locations(ast.copy_location(check, node))]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Leave functions alone: their code may be part of a key."""
        return node

    def visit_Assign(self, node: ast.Assign) -> list[ast.stmt]:
        """Check what was assigned to names."""
        (target,) = node.targets
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        return self.checked(node, [ast.parse(ast.unparse(name), mode="eval").body for name in names])

    def visit_Expr(self, node: ast.Expr) -> list[ast.stmt]:
        """Check the value of an expression, which is computed once."""
        if self.said.get(node.end_lineno or 0) is None:
            return [node]
        return self.checked(node, [node.value])[1:]


def claim(line: int, comment: str, *values: Any) -> None:
    """Fail where a comment says a shape or a value, and it is another. Other comments say nothing of values."""
    shapes = [ast.literal_eval(shape) for shape in re.findall(r"\((?:\d+, ?)+\d*\)", comment)]
    try:
        literal = [ast.literal_eval(comment)]
    except (SyntaxError, ValueError):
        literal = []
    if shapes and all(hasattr(value, "shape") for value in values):
        said, found = shapes, [value.shape for value in values]
    elif literal:
        said, found = literal, [value.tolist() if hasattr(value, "tolist") else value for value in values]
    else:
        return
    if said != found:
        sys.exit(f"line {line}: the comment says {comment!r}, the value is {', '.join(map(repr, found))}")


def main(paths: list[str]) -> None:
    """Run the files."""
    space: dict[str, Any] = {"__name__": "__main__", "__claim__": claim}
    for path in paths:
        source = Path(path).read_text("utf-8")
        tree = Claims(comments(source)).visit(ast.parse(source))
        exec(compile(tree, path, "exec"), space)
        sys.stdout.write(END)


if __name__ == "__main__":
    main(sys.argv[1:])
