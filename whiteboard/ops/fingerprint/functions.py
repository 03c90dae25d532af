"""Functions as bytes: the source, and what every name in it stands for, defaults, closure and attributes."""

from __future__ import annotations

import builtins
import functools
from importlib import import_module
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

from whiteboard.ops.fingerprint import blas, referenced_names
from whiteboard.ops.fingerprint.function_source import canonical, function_node
from whiteboard.ops.fingerprint.libraries import library_name, library_of
from whiteboard.ops.fingerprint.modules import write_attribute
from whiteboard.ops.fingerprint.primitives import write_rule
from whiteboard.ops.fingerprint.purity import REMEDY, Verdict, verdict
from whiteboard.ops.fingerprint.referenced_names import Chain
from whiteboard.ops.fingerprint.walk import BUILT_IN, Walk
from whiteboard.ops.fingerprint.watch import MISSING


def write(walk: Walk, function: Any, where: str, *_: object, first: str = "") -> bool:
    """Write a function: its source, what that leads to, its defaults, closure and attributes.

    `first` names an argument that is shared between calls, as the class of a class method is.
    """
    if not isinstance(function, FunctionType):
        return False
    if walk.again(function):
        write_rule(walk, function, where)
        return True
    module, name = function.__globals__.get("__name__", ""), function.__qualname__
    library = library_of(module, function.__code__.co_filename, walk.terms.own)
    walk.watch.function(function)
    walk.watch.named(name, function)
    outside = walk.place
    uses: dict[str, dict[Chain, int]] = {}
    if library is not None:
        # Made inside a library, around something else: the library's part by name, the rest in full.
        walk.library(where, f"{module}.{name}", library, name)
    else:
        node = function_node(function)
        nodes = referenced_names.read(node)
        uses = referenced_names.chains(nodes)
        walk.put("function", canonical(node))
        if not __debug__ and walk.terms.own != BUILT_IN and referenced_names.tells_debug(nodes):
            walk.put("python -O")  # leaves out its assertions, and what `if __debug__` begins
        walk.reaches(blas.written(node))
        walk.place = _place(function, node.lineno)
        _refuse_memory(walk, function, nodes, first)
        _imports(walk, function, nodes, uses)
        _globals(walk, function, uses)
    walk.place = outside if library is not None else _place(function, function.__code__.co_firstlineno)
    walk.put("defaults")
    walk.value(function.__defaults__, f"a default of {name!r}")
    for key, value in sorted((function.__kwdefaults__ or {}).items()):
        walk.put(key)
        walk.value(value, f"the default of {key!r} of {name!r}")
    walk.put("closure")
    _closure(walk, function, uses, library is not None)
    walk.put("attributes")
    walk.watch.all_of(vars(function))
    for key in sorted(vars(function)):
        walk.put("name", key)
        walk.value(walk.watch.binding(vars(function), key), f"attribute {key!r} of {name!r}", key)
    walk.place = outside
    write_rule(walk, function, where)
    return True


def write_callable(walk: Walk, value: Any, where: str, *_: object) -> bool:
    """Write what is called and is no function itself: a method, a partial, what `lru_cache` has made."""
    if isinstance(value, MethodType):
        walk.put("method")
        walk.value(value.__func__, where)
        walk.value(value.__self__, f"the object of {where}")
    elif isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | None):
        walk.put("bound", value.__name__)  # np.add.reduce, say
        walk.value(value.__self__, f"the object of {where}")
    elif isinstance(value, MethodDescriptorType | WrapperDescriptorType):
        walk.put("method of", value.__name__)  # float.hex, say
        walk.value(value.__objclass__, f"the class of {where}")
    elif isinstance(value, functools.partial):
        walk.put("partial")
        walk.value((value.func, value.args, *sorted(value.keywords.items())), where)
    elif isinstance(value, functools._lru_cache_wrapper):
        walk.put("lru_cache")
        walk.value(value.__wrapped__, where)
    else:
        return False
    return True


def _refuse_memory(walk: Walk, function: FunctionType, nodes: list[Any], first: str) -> None:
    for text, line in referenced_names.written_state(function, nodes, first):
        if text.partition(".")[0] not in walk.terms.ignore:
            walk.place = _place(function, line)
            remedy = REMEDY[Verdict.STATE].format(name=text.partition(".")[0])
            walk.refuse(f"{function.__qualname__!r} writes {text!r} from outside itself: {remedy}")
    for attribute, why, line in referenced_names.impure_attributes(nodes):
        if attribute not in walk.terms.ignore and not (why is Verdict.FILES and walk.terms.reads):
            walk.place = _place(function, line)
            remedy = REMEDY[why].format(top="", name=attribute)
            walk.refuse(f"{function.__qualname__!r} names .{attribute}, which {why}: {remedy}")


def _imports(walk: Walk, function: FunctionType, nodes: list[Any], uses: dict[str, dict[Chain, int]]) -> None:
    """Write what is imported inside a function; it has to be a library's."""
    name = function.__qualname__
    for name_in, module, attributes, line in referenced_names.imports(nodes):
        if name_in in walk.terms.ignore or module.partition(".")[0] in walk.terms.ignore:
            continue
        walk.place = _place(function, line)
        if not module:
            walk.refuse(f"{name!r} imports relatively inside itself; import at the top of the file")
        if library_of(module, None, walk.terms.own) is None:
            walk.refuse(f"{name!r} imports {module} inside itself; import it at the top of the file")
        for chain in uses.get(name_in, ()):
            _import(walk, module, (*attributes, *chain), f"{name_in!r}, which {name!r} imports,", name_in)


def _import(walk: Walk, module: str, chain: Chain, where: str, name: str) -> None:
    """Write what is used of a library's module that is imported when the function runs."""
    dotted = ".".join((module, *chain))
    why = verdict(dotted, walk.terms.trust)
    if why is not Verdict.PURE and not module.startswith("scipy.stats"):  # its distributions are looked at below
        walk.allow(why, where, dotted, name)
    try:
        found = import_module(module)
    except ImportError as error:
        walk.refuse(f"{where} cannot be imported: {error}")
    write_attribute(walk, found, chain, where, name)


def _globals(walk: Walk, function: FunctionType, uses: dict[str, dict[Chain, int]]) -> None:
    """Write what each global name of the function stands for."""
    for key in sorted(uses.keys() & referenced_names.global_names(function)):
        if key in walk.terms.ignore:
            continue
        walk.place = _place(function, next(iter(uses[key].values())))
        where = f"{key!r}, which {function.__qualname__!r} names,"
        value = walk.watch.binding(function.__globals__, key)
        if key == function.__name__ and (value is MISSING or _is_itself(value, function)):
            # Itself, or on registering again (a notebook) the one that it replaces.
            walk.put("itself")
        elif value is MISSING and (built := walk.watch.binding(vars(builtins), key)) is not MISSING:
            _builtin(walk, key, built, sorted(uses[key]), where)
        else:
            walk.watch.named(key, value)
            walk.put("name", key)
            walk.value(value, where, key, sorted(uses[key]))


def _builtin(walk: Walk, key: str, value: object, uses: list[Chain], where: str) -> None:
    known = library_name(value)
    if known is None and not isinstance(value, bool | str | type(Ellipsis) | type(NotImplemented)):
        walk.put("name", key)  # another function stands in the place of a builtin
        walk.value(value, where, key, uses)
        return
    walk.reaches(blas.named(f"builtins.{key}"))
    for chain in uses:
        walk.allow(verdict(".".join(("builtins", key, *chain)), walk.terms.trust), where, f"{key}()", key)


def _closure(walk: Walk, function: FunctionType, uses: dict[str, dict[Chain, int]], library: bool) -> None:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for key, cell in sorted(cells, key=lambda pair: pair[0]):
        if key in walk.terms.ignore:
            continue
        value = walk.watch.cell(cell)
        if library and _is_empty(value):
            continue  # autograd keeps the keywords that were not given
        if key == "__class__" and id(value) in walk.made:
            continue  # what `super()` asks, in a method of a module that is walked
        walk.watch.named(key, value)
        walk.put("name", key)
        where = f"{key!r} in the closure of {function.__qualname__!r}"
        walk.value(value, where, key, sorted(uses.get(key, ((),))))


def _place(function: FunctionType, line: int) -> str:
    return f"{function.__code__.co_filename.rpartition('/')[2]}:{line}"


def _is_empty(value: object) -> bool:
    return type(value) in (dict, list) and not value


def _is_itself(value: object, function: FunctionType) -> bool:
    """Whether `value` is the function, or the same code again, as a cell that is run again makes it."""
    if value is function or not isinstance(value, FunctionType):
        return value is function
    defaults = (value.__defaults__, value.__kwdefaults__) == (function.__defaults__, function.__kwdefaults__)
    place = value.__globals__ is function.__globals__ and not value.__closure__
    return defaults and place and _same_code(value.__code__, function.__code__)


def _same_code(a: CodeType, b: CodeType) -> bool:
    """Whether two code objects differ in nothing but their lines."""
    if (a.co_code, a.co_names, len(a.co_consts)) != (b.co_code, b.co_names, len(b.co_consts)):
        return False
    return all(
        _same_code(x, y) if isinstance(x, CodeType) and isinstance(y, CodeType) else repr(x) == repr(y)
        for x, y in zip(a.co_consts, b.co_consts, strict=True)
    )
