"""The fingerprint of an op's code: a digest of everything of the user's own that decides what it computes.

It covers a function's source (`source.canonical`), its defaults and closure constants, and, recursively, the user's
own functions, classes and constants that it names, also across modules. Functions and modules of libraries count
by name alone. What cannot be seen through makes it opaque: no digest, and a reason that names it.
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
import functools
import linecache
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, GenericAlias, MethodType, ModuleType, UnionType
from typing import Any

from whiteboard.ops.libraries import is_library, is_outside_world, library_name
from whiteboard.ops.names import attribute_chains, global_names, imports, refuse_state
from whiteboard.ops.source import FunctionNode, OpaqueError, canonical, function_node, refuse

SCHEME = "whiteboard-op-1"
"""Names the encoding below; a change of it changes every fingerprint."""

_MISSING = object()
_UNSEEABLE = frozenset(
    {"open", "eval", "exec", "compile", "globals", "locals", "vars", "input", "__import__", "hash", "id"}
)
"""Builtins whose result is not decided by the source alone."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A digest, or the reason for none, and the bindings that it was taken from.

    Parameters
    ----------
    digest : bytes or None
        16 bytes; None for what cannot be seen through.
    opaque : str
        Why there is no digest.
    bindings : tuple of (namespace, name, value)
        What each name stood for.
    """

    digest: bytes | None
    opaque: str
    bindings: tuple[tuple[Any, str, object], ...]

    def holds(self) -> bool:
        """Whether every name still stands for what it did."""
        return all(_lookup(namespace, name) is value for namespace, name, value in self.bindings)


def fingerprint(code: Iterable[Any], *, own: str) -> Fingerprint:
    """Return the fingerprint of functions and constants.

    Parameters
    ----------
    code : iterable
        Functions, and constants that belong to them.
    own : str
        Package whose code is the user's own even where it is installed among the libraries.
    """
    walk = _Walk(own)
    try:
        for number, item in enumerate(code):
            walk.value(item, getattr(item, "__qualname__", f"part {number}"))
    except OpaqueError as reason:
        return Fingerprint(None, str(reason), tuple(walk.bindings))
    return Fingerprint(walk.hash.digest(), "", tuple(walk.bindings))


def _lookup(namespace: Any, name: str) -> object:
    if isinstance(namespace, CellType):
        try:
            return namespace.cell_contents
        except ValueError:
            return _MISSING
    return namespace.get(name, _MISSING)


class _Walk:
    """One walk over everything that a function's result depends on, into a hash."""

    def __init__(self, own: str) -> None:
        self.own = own
        self.hash = blake2b(digest_size=16)
        self.bindings: list[tuple[Any, str, object]] = []
        self._seen: dict[int, int] = {}
        self._alive: list[object] = []  # an id is only good while its object lives
        self._put(SCHEME)

    def _put(self, *parts: str | bytes) -> None:
        for part in parts:
            data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            self.hash.update(b"%d:" % len(data))
            self.hash.update(data)

    def _again(self, item: object) -> bool:
        """Whether `item` was walked before (a recursive function, say): then its number stands for it."""
        if id(item) in self._seen:
            self._put("again", str(self._seen[id(item)]))
            return True
        self._seen[id(item)] = len(self._seen)
        self._alive.append(item)
        return False

    def value(self, value: object, where: str) -> None:
        """Write one value; `where` says what it is, for the reason of an opaque one."""
        if value is _MISSING:
            self._put("unbound")
        elif (name := library_name(value, self.own)) is not None:
            if is_outside_world(name):
                refuse(f"{where} is {name}, whose result is not decided by its arguments")
            self._put("library", name)
        elif not (self._constant(value, where) or self._array(value, where) or self._code(value, where)):
            kind = type(value).__qualname__
            hint = "; use a tuple" if isinstance(value, list) else ""
            refuse(f"{where} is a mutable or unknown object of type {kind!r}{hint}")

    def _constant(self, value: object, where: str) -> bool:
        if value is None or value is Ellipsis or type(value) in (bool, int, complex, range, slice):
            self._put(type(value).__name__, repr(value))
        elif type(value) is float:
            self._put("float", value.hex())
        elif type(value) is str or type(value) is bytes:
            self._put(type(value).__name__, value)
        elif isinstance(value, enum.Enum):
            self._put("enum", type(value).__qualname__, value.name)
            self.value(value.value, where)
        elif isinstance(value, tuple):
            self._put("tuple", type(value).__qualname__, str(len(value)))
            for number, item in enumerate(value):
                self.value(item, f"{where}[{number}]")
            if type(value) is not tuple:
                self.value(type(value), f"the class of {where}")
        elif type(value) is frozenset:
            self._frozenset(value, where)
        elif type(value).__module__ == "typing" or isinstance(value, GenericAlias | UnionType):
            self._put("typing", repr(value))
        else:
            return False
        return True

    def _frozenset(self, value: frozenset[object], where: str) -> None:
        digests = []
        for item in value:
            walk = _Walk(self.own)
            walk.value(item, where)
            self.bindings += walk.bindings
            digests.append(walk.hash.digest())
        self._put("frozenset", str(len(digests)), *sorted(digests))

    def _array(self, value: Any, where: str) -> bool:
        """Write a NumPy value. By its type's name: a function without arrays needs no NumPy here."""
        np = sys.modules.get("numpy")
        if np is None:
            return False
        if isinstance(value, np.dtype):
            self._put("dtype", value.str, repr(value))
        elif isinstance(value, np.generic):
            self._put("scalar", value.dtype.str, value.tobytes())
        elif type(value) is np.ndarray and value.dtype.kind in "biufc":
            if any(array.flags.writeable for array in _owners(value)):
                refuse(f"{where} is an array that can be written to; make it read-only, or pass it as a source")
            self._put("array", value.dtype.str, repr(value.shape), value.tobytes())
        else:
            return False
        return True

    def _code(self, value: Any, where: str) -> bool:
        if isinstance(value, FunctionType):
            if not self._again(value):
                self._function(value)
        elif isinstance(value, MethodType):
            self._put("method")
            self.value(value.__func__, where)
            self.value(value.__self__, f"the object of {where}")
        elif isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | None):
            self._put("bound", value.__name__)  # np.add.reduce, say
            self.value(value.__self__, f"the object of {where}")
        elif isinstance(value, functools.partial):
            self._put("partial")
            self.value((value.func, value.args, *sorted(value.keywords.items())), where)
        elif isinstance(value, functools._lru_cache_wrapper):
            self._put("lru_cache")
            self.value(value.__wrapped__, where)
        elif isinstance(value, type):
            if not self._again(value):
                self._class(value)
        elif dataclasses.is_dataclass(value) and _is_frozen(value):
            self._put("dataclass")
            self.value(type(value), f"the class of {where}")
            for field in dataclasses.fields(value):
                self.value(getattr(value, field.name), f"{where}.{field.name}")
        else:
            return False
        return True

    def _function(self, function: FunctionType) -> None:
        module, name = function.__globals__.get("__name__", ""), function.__qualname__
        library = is_library(module, function.__code__.co_filename, self.own)
        if library:
            # Made inside a library, around something else: the library's part by name, the rest in full.
            self._put("library function", module, name)
        else:
            node = function_node(function)
            self._put("function", canonical(node))
            self._names(function, node)
        self._put("defaults")
        self.value(function.__defaults__, f"a default of {name!r}")
        for key, value in sorted((function.__kwdefaults__ or {}).items()):
            self._put(key)
            self.value(value, f"the default of {key!r} of {name!r}")
        self._put("closure")
        for key, cell in _cells(function):
            if library and _is_empty(_lookup(cell, key)):
                continue  # autograd keeps the keywords that were not given
            self._binding(cell, key, f"{key!r} in the closure of {name!r}")
        self._put("attributes")
        for key in sorted(vars(function)):
            self._binding(vars(function), key, f"attribute {key!r} of {name!r}")

    def _names(self, function: FunctionType, node: FunctionNode) -> None:
        """Write what each global name of the function stands for."""
        name = function.__qualname__
        refuse_state(function, node)
        for module in imports(node, name):
            if is_outside_world(module):
                refuse(f"{name!r} imports {module}, whose results are not decided by its arguments")
            if not is_library(module, None, self.own):
                refuse(f"{name!r} imports {module} inside itself; import it at the top of the file")
        chains = attribute_chains(node)
        for key in sorted(chains.keys() & global_names(function)):
            value = _lookup(function.__globals__, key)
            where = f"{key!r}, which {name!r} names,"
            if key == function.__name__ and (value is _MISSING or _is_itself(value, function)):
                # Itself, or on registering again (a notebook) the one that it replaces.
                self.bindings.append((function.__globals__, key, value))
                self._put("itself")
            elif isinstance(value, ModuleType):
                self.bindings.append((function.__globals__, key, value))
                self._module(value, sorted(chains[key]), where)
            elif value is not _MISSING or not hasattr(builtins, key):
                self._binding(function.__globals__, key, where)
            else:
                self.bindings.append((function.__globals__, key, value))
                if key in _UNSEEABLE:
                    refuse(f"{name!r} calls {key}(), whose result is not decided by its source")

    def _binding(self, namespace: Any, key: str, where: str) -> None:
        value = _lookup(namespace, key)
        self.bindings.append((namespace, key, value))
        self._put("name", key)
        self.value(value, where)

    def _module(self, module: ModuleType, chains: list[tuple[str, ...]], where: str) -> None:
        """Write what is used of a module: its name for a library's, the attributes' values for the user's own."""
        if self._is_library(module):
            self._put("module", module.__name__)
            for chain in ((), *chains):
                dotted = ".".join((module.__name__, *chain))
                if is_outside_world(dotted):
                    refuse(f"{where} is {dotted}, whose results are not decided by their arguments")
            return
        for chain in chains:
            self._attribute(module, chain, where)

    def _attribute(self, module: ModuleType, chain: tuple[str, ...], where: str) -> None:
        """Write what ``module.a.b`` stands for, where `module` is the user's own."""
        if not chain:
            refuse(f"{where} is the module {module.__name__}, used as a value")
        value = _lookup(vars(module), chain[0])
        self.bindings.append((vars(module), chain[0], value))
        self._put("of module", chain[0])
        if not isinstance(value, ModuleType):
            self.value(value, f"{'.'.join(chain)}, {where}")
        elif self._is_library(value):
            self._module(value, [chain[1:]], where)
        else:
            self._attribute(value, chain[1:], where)

    def _is_library(self, module: ModuleType) -> bool:
        return is_library(module.__name__, getattr(module, "__file__", None), self.own)

    def _class(self, cls: type) -> None:
        self._put("class", cls.__name__)
        for base in cls.__bases__:
            self.value(base, f"a base of {cls.__qualname__!r}")
        if issubclass(cls, enum.Enum):
            for member in cls:
                self.value((member.name, member.value), f"a member of {cls.__qualname__!r}")
        # What a decorator or a metaclass has put beside the user's own: it follows from the fields and members.
        made = issubclass(cls, enum.Enum) or dataclasses.is_dataclass(cls) or hasattr(cls, "_fields")
        for key, value in sorted(vars(cls).items()):
            parts = _functions(value)
            if key in _CLASS_MACHINERY or (made and (any(map(self._is_made, parts)) or (not parts and key[0] == "_"))):
                continue
            if not isinstance(value, enum.Enum):
                self._put(key, type(value).__name__)
                self.value(parts or value, f"{key!r} of class {cls.__qualname__!r}")

    def _is_made(self, function: FunctionType) -> bool:
        """Whether a function in a class was put there by `dataclass` or `enum`."""
        file = function.__code__.co_filename
        generated = file.startswith("<") and not linecache.getlines(file)
        return generated or is_library(function.__globals__.get("__name__", ""), file, self.own)


def _functions(value: object) -> tuple[FunctionType, ...]:
    """Return the functions that a class attribute is made of; none for data."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    parts = (value.fget, value.fset, value.fdel) if isinstance(value, property) else (value,)
    return tuple(part for part in parts if isinstance(part, FunctionType))


_CLASS_MACHINERY = frozenset(
    (
        "__module__",
        "__dict__",
        "__weakref__",
        "__doc__",
        "__qualname__",
        "__firstlineno__",
        "__static_attributes__",
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__match_args__",
        "__slots__",
        "__orig_bases__",
        "__parameters__",
    )
)


def _cells(function: FunctionType) -> list[tuple[str, CellType]]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return sorted(((name, cell) for name, cell in cells if name != "__class__"), key=lambda pair: pair[0])


def _is_empty(value: object) -> bool:
    return type(value) in (dict, list) and not value


def _is_frozen(value: object) -> bool:
    return bool(getattr(type(value), "__dataclass_params__").frozen)  # noqa: B009


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


def _owners(array: Any) -> Iterator[Any]:
    while array is not None and hasattr(array, "flags"):
        yield array
        array = array.base
