"""From a function to its source as canonical bytes: the same for the same code, whatever its comments or Python."""

from __future__ import annotations
import __future__

import ast
import linecache
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import NoReturn, TypeAlias

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_FUTURES = 0
for _feature in __future__.all_feature_names:
    _FUTURES |= getattr(__future__, _feature).compiler_flag

_WITHOUT_MEANING = frozenset({"annotation", "returns", "type_comment", "type_params", "ctx", "kind"})
"""Fields of syntax nodes that do not change what a function computes."""


class OpaqueError(Exception):
    """Something that cannot be seen through; the message is the reason."""


def refuse(reason: str) -> NoReturn:
    """Raise `OpaqueError`."""
    raise OpaqueError(reason)


def function_node(function: FunctionType) -> FunctionNode:
    """Return the syntax tree of a function.

    The file is compiled again and compared with the code that runs: a file that was edited after it was
    imported would give the new text of the old code.

    Raises
    ------
    OpaqueError
        Where there is no source, or not of the code that runs.
    """
    code = function.__code__
    for fresh in (False, True):
        if fresh:
            linecache.checkcache(code.co_filename)
        text = "".join(linecache.getlines(code.co_filename, function.__globals__))
        if not text:
            break
        try:
            nodes, compiled = _parsed(text, code.co_filename, code.co_flags & _FUTURES)
        except (SyntaxError, ValueError):
            continue
        if code in compiled and (node := _locate(nodes, code)) is not None:
            return node
    trouble = f"differs from its source in {code.co_filename.rpartition('/')[2]}" if text else "has no source"
    refuse(f"function {function.__qualname__!r} {trouble}")


@lru_cache(maxsize=64)
def _parsed(
    text: str, filename: str, flags: int
) -> tuple[dict[tuple[str, int], list[FunctionNode]], frozenset[CodeType]]:
    """Return the functions of a file by name and first line, and the code objects that it compiles to."""
    nodes: dict[tuple[str, int], list[FunctionNode]] = {}
    for node in _functions(ast.parse(text, filename)):
        nodes.setdefault((_name(node), _first_line(node)), []).append(node)
    return nodes, frozenset(_codes(compile(text, filename, "exec", flags=flags, dont_inherit=True)))


def _functions(tree: ast.AST) -> Iterator[FunctionNode]:
    """Yield every function of a tree, in half the time of `ast.walk`, which asks each node for its fields by name."""
    rest = [tree]
    while rest:
        node = rest.pop()
        if isinstance(node, FunctionNode):
            yield node
        for value in vars(node).values():
            if isinstance(value, ast.AST):
                rest.append(value)
            elif isinstance(value, list):
                rest += [each for each in value if isinstance(each, ast.AST)]


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _locate(nodes: dict[tuple[str, int], list[FunctionNode]], code: CodeType) -> FunctionNode | None:
    """Return the node that `code` was compiled from: by name and line, lambdas of one line by their columns."""
    found = nodes.get((code.co_name, code.co_firstlineno), [])
    if len(found) > 1:
        places = set(code.co_positions())
        found = [node for node in found if isinstance(node, ast.Lambda) and _place(node.body) in places]
    return found[0] if len(found) == 1 else None


def _first_line(node: FunctionNode) -> int:
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _name(node: FunctionNode) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _place(node: ast.expr) -> tuple[int | None, int | None, int | None, int | None]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def canonical(node: FunctionNode) -> bytes:
    """Return canonical bytes of a function's syntax: no comments, docstrings, annotations, positions, decorators.

    Unlike `ast.dump` it does not change with the Python version: fields are written by name, in sorted order, and
    empty ones are left out, so that a field which a later version adds changes nothing.
    """
    out = bytearray()
    _write(node, out, top=True)
    return bytes(out)


def _write(value: object, out: bytearray, *, top: bool = False) -> None:
    if isinstance(value, ast.Constant):
        _write_text("constant", out)
        _write_constant(value.value, out)
    elif isinstance(value, ast.AST):
        _write_text(type(value).__name__, out)
        skipped = _WITHOUT_MEANING | {"decorator_list"} if top else _WITHOUT_MEANING
        for name in sorted(set(value._fields) - skipped):
            item = getattr(value, name, None)
            if item is not None and item != []:
                _write_text(name, out)
                _write(_joined(item) if isinstance(value, ast.JoinedStr) else item, out)
        _write_text("end", out)
    elif isinstance(value, list):
        items = [item for item in value if not _says_nothing(item)]
        _write_text(f"list {len(items)}", out)
        for item in items:
            _write(item, out)
    else:
        _write_constant(value, out)


def _write_text(text: str, out: bytearray) -> None:
    data = text.encode("utf-8", "surrogatepass")
    out += b"%d:" % len(data) + data


def _write_constant(value: object, out: bytearray) -> None:
    text = value.hex() if isinstance(value, float) else value if isinstance(value, str) else repr(value)
    _write_text(type(value).__name__, out)
    _write_text(text, out)


def _says_nothing(item: object) -> bool:
    """Whether a statement is a bare string (a docstring, or a comment by other means) or `pass`."""
    bare = isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)
    return bare or isinstance(item, ast.Pass)


def _joined(values: list[ast.expr]) -> list[ast.expr]:
    """Return the parts of an f-string with neighbouring texts in one: Python versions cut them differently."""
    parts: list[ast.expr] = []
    for part in values:
        last = parts[-1] if parts else None
        if isinstance(part, ast.Constant) and isinstance(last, ast.Constant):
            parts[-1] = ast.Constant(str(last.value) + str(part.value))
        else:
            parts.append(part)
    return [part for part in parts if not (isinstance(part, ast.Constant) and part.value == "")]
