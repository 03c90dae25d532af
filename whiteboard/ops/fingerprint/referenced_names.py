"""What the source of a function names: globals and their attributes, imports, and state that it writes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import NamedTuple, TypeAlias

from whiteboard.ops.fingerprint.function_source import FunctionNode
from whiteboard.ops.fingerprint.purity import IMPURE_ATTRIBUTES, Verdict

Chain: TypeAlias = tuple[str, ...]
"""The attributes that follow a name: ``a.b.c`` is the name ``a`` with ``("b", "c")``."""

_UNREAD = frozenset({"annotation", "returns", "type_params"})
"""Fields of syntax nodes that are not evaluated when the function runs."""

_BUILDERS = frozenset({"__init__", "__post_init__", "__new__", "__setstate__"})
"""Methods that may set attributes of a frozen object: it is not in use yet."""


class Import(NamedTuple):
    """An import inside a function: the name it binds, and what that stands for (the module, and names in it)."""

    name: str
    module: str
    attributes: Chain
    line: int


def read(node: FunctionNode) -> list[ast.AST]:
    """Return the nodes that run when the function does: no decorator, default or annotation of its own."""
    nodes: list[ast.AST] = []
    waiting: list[ast.AST] = [*node.body] if isinstance(node.body, list) else [node.body]
    while waiting:
        item = waiting.pop(0)
        nodes.append(item)
        for field, value in ast.iter_fields(item):
            if field not in _UNREAD:
                waiting += [
                    each for each in (value if isinstance(value, list) else [value]) if isinstance(each, ast.AST)
                ]
    return nodes


def written_state(function: FunctionType, nodes: list[ast.AST], first: str = "") -> Iterator[tuple[str, int]]:
    """Yield what the function writes outside itself, and the line: then it has a memory.

    `first` names an argument that is shared between calls, as the class of a class method is.
    """
    outer, local = set(function.__code__.co_freevars), _locals(function) - {first}
    for item in nodes:
        names: list[str] = []
        if isinstance(item, ast.Global):
            names = item.names
        elif isinstance(item, ast.Nonlocal):
            names = [name for name in item.names if name in outer]
        elif isinstance(item, ast.Attribute | ast.Subscript) and not isinstance(item.ctx, ast.Load):
            names = [_text(item)] if _root(item) not in (*local, None) else []
        elif isinstance(item, ast.Call):
            names = _set_by_call(function.__name__, item, local)
        for name in names:
            yield name, getattr(item, "lineno", 0)


def _set_by_call(within: str, item: ast.Call, local: set[str]) -> list[str]:
    if not item.args:
        return []
    by_name = isinstance(item.func, ast.Name) and item.func.id in ("setattr", "delattr")
    by_object = isinstance(item.func, ast.Attribute) and ast.unparse(item.func) == "object.__setattr__"
    outside = by_name and _root(item.args[0]) not in (*local, None)
    return [_text(item.args[0])] if outside or (by_object and within not in _BUILDERS) else []


def _root(item: ast.AST) -> str | None:
    while isinstance(item, ast.Attribute | ast.Subscript | ast.Starred):
        item = item.value
    return item.id if isinstance(item, ast.Name) else None


def _text(item: ast.AST) -> str:
    return ast.unparse(item)


def _codes(function: FunctionType) -> Iterator[CodeType]:
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        yield code
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _locals(function: FunctionType) -> set[str]:
    return {name for code in _codes(function) for name in (*code.co_varnames, *code.co_cellvars)}


def global_names(function: FunctionType) -> set[str]:
    """Return the names that the function or one inside it looks up, but for its own variables."""
    return {name for code in _codes(function) for name in code.co_names}


def tells_debug(nodes: list[ast.AST]) -> bool:
    """Return whether something runs that ``python -O`` leaves out."""
    return any(
        isinstance(item, ast.Assert) or (isinstance(item, ast.Name) and item.id == "__debug__") for item in nodes
    )


def imports(nodes: list[ast.AST]) -> Iterator[Import]:
    """Yield the imports inside a function; a relative one has the module ``""``."""
    for item in nodes:
        if isinstance(item, ast.Import):
            for alias in item.names:
                top = alias.name.partition(".")[0]
                yield Import(alias.asname or top, alias.name if alias.asname else top, (), item.lineno)
                if not alias.asname and "." in alias.name:
                    yield Import("", alias.name, (), item.lineno)
        elif isinstance(item, ast.ImportFrom):
            for alias in item.names:
                module = "" if item.level else item.module or ""
                yield Import(alias.asname or alias.name, module, (alias.name,), item.lineno)


def chains(nodes: list[ast.AST]) -> dict[str, dict[Chain, int]]:
    """Return each name with the chains of attributes that follow it, and the first line of each.

    ``getattr(a, "b")`` counts as ``a.b``.
    """
    found: dict[str, dict[Chain, int]] = {}
    inner: set[int] = set()
    for item in nodes:  # outer nodes come before those inside them
        path: list[str] = []
        root: ast.AST = item
        while (step := _attribute(root)) is not None:
            root, name = step
            path.append(name)
            inner.add(id(root))
        if isinstance(root, ast.Name) and id(item) not in inner:
            found.setdefault(root.id, {}).setdefault(tuple(reversed(path)), root.lineno)
    return found


def _attribute(item: ast.AST) -> tuple[ast.AST, str] | None:
    """Return an object and the attribute that is taken of it, where `item` does that by a name that stands there."""
    if isinstance(item, ast.Attribute):
        return item.value, item.attr
    if isinstance(item, ast.Call) and isinstance(item.func, ast.Name) and item.func.id == "getattr":
        name = item.args[1] if len(item.args) > 1 else None
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            return item.args[0], name.value
    return None


def impure_attributes(nodes: list[ast.AST]) -> Iterator[tuple[str, Verdict, int]]:
    """Yield attributes whose very name says that a result is random, say, and why; those that reach, also uncalled."""
    called = {id(item.func) for item in nodes if isinstance(item, ast.Call)}
    for item in nodes:
        if (step := _attribute(item)) is None:
            continue
        found = IMPURE_ATTRIBUTES.get(step[1])
        if found is not None and (found is Verdict.REACH or id(item) in called):
            yield step[1], found, getattr(item, "lineno", 0)
