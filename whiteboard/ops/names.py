"""What the source of a function names: globals and their attributes, imports, and state that it writes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import FunctionType

from whiteboard.ops.source import FunctionNode, refuse


def refuse_state(function: FunctionType, node: FunctionNode) -> None:
    """Refuse a function that writes a global, or a variable of the function that made it: it has a memory."""
    outer = set(function.__code__.co_freevars)
    for item in ast.walk(node):
        written = item.names if isinstance(item, ast.Global) else []
        if isinstance(item, ast.Nonlocal):
            written = [name for name in item.names if name in outer]
        if written:
            refuse(f"{function.__qualname__!r} writes {written[0]!r} from outside itself")


def imports(node: FunctionNode, name: str) -> Iterator[str]:
    for item in ast.walk(node):
        if isinstance(item, ast.Import):
            yield from (alias.name for alias in item.names)
        elif isinstance(item, ast.ImportFrom):
            if item.level or not item.module:
                refuse(f"{name!r} imports relatively inside itself; import at the top of the file")
            yield from (f"{item.module}.{alias.name}" for alias in item.names)


def global_names(function: FunctionType) -> set[str]:
    """Return the names that the function or one inside it looks up, but for its own variables."""
    names: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if hasattr(constant, "co_names")]
    return names


def attribute_chains(node: FunctionNode) -> dict[str, set[tuple[str, ...]]]:
    """Return each name of the tree with the attributes that follow it: ``a.b.c`` gives ``{"a": {("b", "c")}}``."""
    chains: dict[str, set[tuple[str, ...]]] = {}
    inner: set[int] = set()
    for item in ast.walk(node):  # outer nodes come before those inside them
        path: list[str] = []
        root: ast.AST = item
        while isinstance(root, ast.Attribute):
            path.append(root.attr)
            inner.add(id(root.value))
            root = root.value
        if isinstance(root, ast.Name) and id(item) not in inner:
            chains.setdefault(root.id, set()).add(tuple(reversed(path)))
    return chains
