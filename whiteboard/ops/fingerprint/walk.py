"""The fingerprint of an op's code: a digest of everything of the user's own that decides what it computes.

It covers a function's source (`source.canonical`), its defaults and closure constants, and, recursively, the user's
own functions, classes and constants that it names, also across modules. What a library has counts by name and by the
version of its distribution, and only where it is known to be pure (`purity`). What cannot be seen through makes the
whole opaque: no digest, and a reason that names it, the line, and what helps.
"""

from __future__ import annotations

import builtins
import dataclasses
import enum
import functools
import operator
import re
import sys
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from importlib import import_module
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GenericAlias,
    MappingProxyType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    UnionType,
    WrapperDescriptorType,
)
from typing import Any, Final, NoReturn

import numpy as np

from whiteboard.ops.fingerprint import blas, classes, primitives, referenced_names, torch_state
from whiteboard.ops.fingerprint.arrays import array_parts, scalar_parts
from whiteboard.ops.fingerprint.function_source import OpaqueError, canonical, function_node, refuse
from whiteboard.ops.fingerprint.libraries import Library, library_name, library_of, library_of_module
from whiteboard.ops.fingerprint.purity import DISTRIBUTION_METHODS, REMEDY, Verdict, verdict
from whiteboard.ops.fingerprint.referenced_names import Chain
from whiteboard.ops.fingerprint.watch import MISSING, Watch, is_writable

SCHEME = "whiteboard-op-2"
"""Names the encoding below; a change of it changes every fingerprint."""

BUILT_IN = "whiteboard.ops"
"""The package of the built-in ops; what it takes of NumPy counts by name alone, and how NumPy rounds by the
arithmetic class."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a walk takes for granted.

    Parameters
    ----------
    own : str
        Package whose code is the user's own even where it is installed among the libraries.
    trust : tuple of str
        Dotted names of libraries that are pure, beside those that are known to be.
    ignore : frozenset of str
        Names that have no part in the result.
    reads : tuple of str
        Files that the code reads; their contents count, and reading files is no reason to refuse.
    """

    own: str
    trust: tuple[str, ...] = ()
    ignore: frozenset[str] = frozenset()
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A digest, or the reason for none, and the watch over what it was taken from.

    Parameters
    ----------
    digest : bytes or None
        16 bytes; None for what cannot be seen through.
    opaque : str
        Why there is no digest.
    watch : Watch
        All that was followed on the way.
    blas : bool
        Whether anything on the way may reach BLAS.
    """

    digest: bytes | None
    opaque: str
    watch: Watch
    blas: bool = True

    def holds(self) -> bool:
        """Whether everything that was followed still is what it was."""
        return self.watch.holds()


def fingerprint(code: Iterable[Any], terms: Terms) -> Fingerprint:
    """Return the fingerprint of functions and constants.

    Parameters
    ----------
    code : iterable
        Functions, and constants that belong to them.
    terms : Terms
    """
    walk = _Walk(terms)
    try:
        walk.files()
        for number, item in enumerate(code):
            plain = type(item).__name__ if torch_state.is_module(item) else f"part {number}"
            walk.value(item, getattr(item, "__qualname__", plain))
    except OpaqueError as reason:
        return Fingerprint(None, str(reason), walk.watch)
    except RecursionError:
        return Fingerprint(None, "it is nested too deeply to be seen through", walk.watch)
    return Fingerprint(walk.hash.digest(), "", walk.watch, walk.blas)


def declared(identity: str, rules: tuple[Any, ...], reads: tuple[str, ...]) -> Fingerprint:
    """Return the fingerprint that an identity of the user's own words stands for, in place of the code's."""
    walk = _Walk(Terms("", reads=reads))
    try:
        walk.files()
        walk.value(("identity", identity, *rules), "identity")
    except OpaqueError as reason:
        return Fingerprint(None, str(reason), walk.watch)
    return Fingerprint(walk.hash.digest(), "", walk.watch)


class _Walk:
    """One walk over everything that a function's result depends on, into a hash."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.hash = blake2b(digest_size=16)
        self.watch = Watch()
        self.blas = False
        self._place = ""
        self._seen: dict[int, int] = {}
        self._made: list[int] = []  # classes of torch's modules that are there
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

    def _refuse(self, reason: str) -> NoReturn:
        refuse(f"{reason} ({self._place})" if self._place else reason)

    def _allow(self, why: Verdict, where: str, dotted: str, name: str) -> None:
        """Refuse a library's name that is not pure; reading files is allowed where the files count."""
        if why is Verdict.PURE or (why is Verdict.FILES and self.terms.reads):
            return
        remedy = REMEDY[why].format(top=dotted.partition(".")[0], name=name)
        self._refuse(f"{where} is {dotted}, which {why}: {remedy}")

    def _library(self, where: str, dotted: str, library: Library, name: str) -> None:
        """Write a library's name, if it is known to be pure."""
        self._allow(verdict(dotted, self.terms.trust), where, dotted, name)
        self.blas |= blas.named(dotted)
        version = "" if self.terms.own == BUILT_IN else " ".join(library)
        self._put("library", dotted, version)

    def files(self) -> None:
        """Write the contents of the files that the code reads."""
        for name in self.terms.reads:
            try:
                self._put("file", name, self.watch.file(name))
            except OSError as error:
                refuse(f"reads={name!r}: {error.strerror or error}")

    # -- values

    def value(self, value: object, where: str, name: str = "", uses: Iterable[Chain] = ((),)) -> None:
        """Write one value.

        Parameters
        ----------
        where : str
            What it is, for the reason of an opaque one.
        name : str
            What the function calls it.
        uses : iterable of Chain
            The attributes that are taken of it.
        """
        self.blas |= blas.held(value)
        if value is MISSING:
            self._put("unbound")
        elif isinstance(value, ModuleType):
            for chain in uses:
                self._module(value, chain, where, name)
        elif (dotted := library_name(value, self.terms.own)) is not None:
            library = library_of(dotted.rpartition(".")[0], None, self.terms.own)
            library = library or library_of(str(getattr(value, "__module__", "")), None, self.terms.own)
            for chain in uses if isinstance(value, type) else ((),):
                self._library(where, ".".join((dotted, *chain)), library or Library("", ""), name or dotted)
            self._rule(value, where)
        elif (dotted := _distribution(value)) is not None:
            for chain in uses:
                self._module(import_module("scipy"), ("stats", dotted, *chain), where, name)
        elif not (
            self._constant(value, where)
            or self._array(value, where)
            or self._code(value, where)
            or self._torch(value, where)
        ):
            kind = type(value).__qualname__
            hint = _IMMUTABLE.get(kind) or f"; {REMEDY[Verdict.STATE].format(name=name or where)}"
            self._refuse(f"{where} is a mutable or unknown object of type {kind!r}{hint}")

    def _constant(self, value: object, where: str) -> bool:
        if (
            value is None
            or value is Ellipsis
            or value is NotImplemented
            or type(value) in (bool, complex, range, slice)
        ):
            self._put(type(value).__name__, repr(value))
        elif type(value) is int:
            self._put("int", hex(value) if value.bit_length() > 64 else repr(value))
        elif type(value) is float:
            self._put("float", value.hex())
        elif type(value) is str or type(value) is bytes:
            self._put(type(value).__name__, value)
        elif _is_class(value):
            return False
        elif isinstance(value, enum.Enum):
            self.value(type(value), f"the class of {where}")
            self._put("member", str(value.name))
            if isinstance(value, enum.Flag):
                self.value(value.value, where)
        elif isinstance(value, tuple):
            self._put("tuple", type(value).__qualname__, str(len(value)))
            for number, item in enumerate(value):
                self.value(item, f"{where}[{number}]")
            if type(value) is not tuple:
                self.value(type(value), f"the class of {where}")
        elif type(value) is frozenset:
            self._frozenset(value, where)
        elif isinstance(value, MappingProxyType):
            self._put("mapping", str(len(value)))
            self.watch.all_of(value)
            for key in value:
                self.value((key, self.watch.binding(value, key)), f"{where}[{key!r}]")
        elif type(value) is Fraction:
            self._put("fraction", str(value))
        elif isinstance(value, re.Pattern):
            self._put("pattern")
            self.value((value.pattern, value.flags), where)
        elif isinstance(value, operator.itemgetter | operator.attrgetter | operator.methodcaller):
            self._put(type(value).__name__)
            self.value(value.__reduce__()[1:], where)
        else:
            return self._typing(value, where)
        return True

    def _typing(self, value: object, where: str) -> bool:
        """Write an annotation that is used as a value: by its parts, as these may be classes of the user's."""
        if not (type(value).__module__ == "typing" or isinstance(value, GenericAlias | UnionType)):
            return False
        origin, parts = typing.get_origin(value), typing.get_args(value)
        self._put("typing", type(value).__name__, "" if origin or parts else repr(value))
        for part in (origin, *parts):
            if isinstance(part, list):
                part = tuple(part)
            self.value(part, f"a part of {where}")
        return True

    def _frozenset(self, value: frozenset[object], where: str) -> None:
        digests = []
        for item in value:
            walk = _Walk(self.terms)
            walk._place = self._place
            walk.value(item, where)
            self.watch.include(walk.watch)
            digests.append(walk.hash.digest())
        self._put("frozenset", str(len(digests)), *sorted(digests))

    def _array(self, value: Any, where: str) -> bool:
        if isinstance(value, np.dtype):
            self._put("dtype", value.str, repr(value))
        elif isinstance(value, np.generic) and type(value).__module__ == "numpy" and value.dtype.kind not in "OV":
            self._put("scalar", *scalar_parts(value))
        elif type(value) is np.ndarray and value.dtype.kind in "biufc":
            if is_writable(value):
                self._refuse(f"{where} is an array that can be written to; make it read-only, or pass it as a source")
            self._put("array", *array_parts(value))
            self.watch.array(value)
        else:
            return False
        return True

    def _code(self, value: Any, where: str) -> bool:
        if isinstance(value, FunctionType):
            if not self._again(value):
                self._function(value, where)
            self._rule(value, where)
        elif isinstance(value, MethodType):
            self._put("method")
            self.value(value.__func__, where)
            self.value(value.__self__, f"the object of {where}")
        elif isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | None):
            self._put("bound", value.__name__)  # np.add.reduce, say
            self.value(value.__self__, f"the object of {where}")
        elif isinstance(value, MethodDescriptorType | WrapperDescriptorType):
            self._put("method of", value.__name__)  # float.hex, say
            self.value(value.__objclass__, f"the class of {where}")
        elif isinstance(value, functools.partial):
            self._put("partial")
            self.value((value.func, value.args, *sorted(value.keywords.items())), where)
        elif isinstance(value, functools._lru_cache_wrapper):
            self._put("lru_cache")
            self.value(value.__wrapped__, where)
        elif _is_class(value):
            if not self._again(value):
                self._class(value)
        elif dataclasses.is_dataclass(value) and _is_frozen(value):
            self._put("dataclass")
            self.value(type(value), f"the class of {where}")
            self._state(value, where)
        else:
            return False
        return True

    def _state(self, value: object, where: str) -> None:
        """Write the attributes of a frozen object, but for what its cached properties have put there."""
        if hasattr(value, "__dict__"):
            self.watch.all_of(vars(value))
            for key in sorted(vars(value)):
                if not isinstance(getattr(type(value), key, None), functools.cached_property):
                    self._put("attribute", key)
                    self.value(self.watch.binding(vars(value), key), f"{where}.{key}")
        else:
            for field in dataclasses.fields(value):  # type: ignore[arg-type]
                self.value(getattr(value, field.name), f"{where}.{field.name}")

    # -- torch

    def _torch(self, value: Any, where: str) -> bool:
        if torch_state.is_tensor(value):
            self._tensor(value, where)
        elif torch_state.is_module(value):
            self.blas = True
            if not self._again(value):
                self._torch_module(value, where)
        elif torch_state.is_word(value):
            self._put("of torch", type(value).__name__, repr(value))
        else:
            return False
        return True

    def _tensor(self, value: Any, where: str) -> None:
        if reason := torch_state.refused(value):
            self._refuse(f"{where} is {reason}")
        self._put("tensor", *torch_state.tensor_parts(value))
        self.value(type(value), f"the class of {where}")
        self.watch.contents(torch_state.Tensor(value))

    def _torch_module(self, module: Any, where: str) -> None:
        """Write a module as it is: its class but for how one is made, what was set on it, and all that it holds."""
        self.watch.all_of(vars(module))
        attributes = [(key, self.watch.binding(vars(module), key)) for key in torch_state.attributes(module)]
        for key in torch_state.hooks(module):
            self.watch.all_of(vars(module)[key])
        if reason := torch_state.restless(module):
            self._refuse(f"{where}, a {type(module).__name__}, {reason}")
        self._put("torch module")
        self._class_of_module(type(module), where)
        for key, value in attributes:
            self._put("attribute", key)
            self._edited(value, f"{where}.{key}")
        for key, table in torch_state.tables(module):
            self._put(key, str(len(table)))
            self.watch.all_of(table)
            for name in table:
                self._put("name", name)
                self.value(self.watch.binding(table, name), f"{where}.{name}")

    def _class_of_module(self, cls: type, where: str) -> None:
        """Write the class of a module that is there: its ``__init__``, which mostly draws the first state, has run."""
        if library_name(cls, self.terms.own) is not None:
            self.value(cls, f"the class of {where}")
        elif id(cls) in self._made:
            self._put("again", str(self._made.index(id(cls))))
        else:
            self._made.append(id(cls))
            self._class(cls, skip="__init__")

    def _edited(self, value: Any, where: str) -> None:
        """Write a value that may hold lists, sets and dicts; whoever edits them is noticed."""
        if type(value) is dict:
            self._put("dict", str(len(value)))
            self.watch.all_of(value)
            for key in value:
                self.value(key, f"a key of {where}")
                self._edited(self.watch.binding(value, key), f"{where}[{key!r}]")
        elif type(value) is list or type(value) is set:
            self.watch.contents(torch_state.Listed(value))
            self._put(type(value).__name__, str(len(value)))
            for item in value if type(value) is list else [frozenset(value)]:
                self._edited(item, f"an item of {where}")
        else:
            self.value(value, where)

    # -- functions

    def _function(self, function: FunctionType, where: str, first: str = "") -> None:
        module, name = function.__globals__.get("__name__", ""), function.__qualname__
        library = library_of(module, function.__code__.co_filename, self.terms.own)
        self.watch.function(function)
        self.watch.named(name, function)
        outside = self._place
        uses: dict[str, dict[Chain, int]] = {}
        if library is not None:
            # Made inside a library, around something else: the library's part by name, the rest in full.
            self._library(where, f"{module}.{name}", library, name)
        else:
            node = function_node(function)
            nodes = referenced_names.read(node)
            uses = referenced_names.chains(nodes)
            self._put("function", canonical(node))
            self.blas |= blas.written(node)
            self._place = _place(function, node.lineno)
            self._refuse_memory(function, nodes, first)
            self._imports(function, nodes, uses)
            self._globals(function, uses)
        self._place = outside if library is not None else _place(function, function.__code__.co_firstlineno)
        self._put("defaults")
        self.value(function.__defaults__, f"a default of {name!r}")
        for key, value in sorted((function.__kwdefaults__ or {}).items()):
            self._put(key)
            self.value(value, f"the default of {key!r} of {name!r}")
        self._put("closure")
        self._closure(function, uses, library is not None)
        self._put("attributes")
        self.watch.all_of(vars(function))
        for key in sorted(vars(function)):
            self._put("name", key)
            self.value(self.watch.binding(vars(function), key), f"attribute {key!r} of {name!r}", key)
        self._place = outside

    def _refuse_memory(self, function: FunctionType, nodes: list[Any], first: str) -> None:
        for text, line in referenced_names.written_state(function, nodes, first):
            if text.partition(".")[0] not in self.terms.ignore:
                self._place = _place(function, line)
                remedy = REMEDY[Verdict.STATE].format(name=text.partition(".")[0])
                self._refuse(f"{function.__qualname__!r} writes {text!r} from outside itself: {remedy}")
        for attribute, why, line in referenced_names.impure_attributes(nodes):
            if attribute not in self.terms.ignore and not (why is Verdict.FILES and self.terms.reads):
                self._place = _place(function, line)
                remedy = REMEDY[why].format(top="", name=attribute)
                self._refuse(f"{function.__qualname__!r} names .{attribute}, which {why}: {remedy}")

    def _imports(self, function: FunctionType, nodes: list[Any], uses: dict[str, dict[Chain, int]]) -> None:
        """Write what is imported inside a function; it has to be a library's."""
        name = function.__qualname__
        for name_in, module, attributes, line in referenced_names.imports(nodes):
            if name_in in self.terms.ignore or module.partition(".")[0] in self.terms.ignore:
                continue
            self._place = _place(function, line)
            if not module:
                self._refuse(f"{name!r} imports relatively inside itself; import at the top of the file")
            if library_of(module, None, self.terms.own) is None:
                self._refuse(f"{name!r} imports {module} inside itself; import it at the top of the file")
            for chain in uses.get(name_in, ()):
                self._import(module, (*attributes, *chain), f"{name_in!r}, which {name!r} imports,", name_in)

    def _import(self, module: str, chain: Chain, where: str, name: str) -> None:
        """Write what is used of a library's module that is imported when the function runs."""
        dotted = ".".join((module, *chain))
        why = verdict(dotted, self.terms.trust)
        if why is not Verdict.PURE and not module.startswith("scipy.stats"):  # its distributions are looked at below
            self._allow(why, where, dotted, name)
        try:
            found = import_module(module)
        except ImportError as error:
            self._refuse(f"{where} cannot be imported: {error}")
        self._module(found, chain, where, name)

    def _globals(self, function: FunctionType, uses: dict[str, dict[Chain, int]]) -> None:
        """Write what each global name of the function stands for."""
        for key in sorted(uses.keys() & referenced_names.global_names(function)):
            if key in self.terms.ignore:
                continue
            self._place = _place(function, next(iter(uses[key].values())))
            where = f"{key!r}, which {function.__qualname__!r} names,"
            value = self.watch.binding(function.__globals__, key)
            if key == function.__name__ and (value is MISSING or _is_itself(value, function)):
                # Itself, or on registering again (a notebook) the one that it replaces.
                self._put("itself")
            elif value is MISSING and (built := self.watch.binding(vars(builtins), key)) is not MISSING:
                self._builtin(key, built, sorted(uses[key]), where)
            else:
                self.watch.named(key, value)
                self._put("name", key)
                self.value(value, where, key, sorted(uses[key]))

    def _builtin(self, key: str, value: object, uses: list[Chain], where: str) -> None:
        known = library_name(value)
        if known is None and not isinstance(value, bool | str | type(Ellipsis) | type(NotImplemented)):
            self._put("name", key)  # another function stands in the place of a builtin
            self.value(value, where, key, uses)
            return
        self.blas |= blas.named(f"builtins.{key}")
        for chain in uses:
            self._allow(verdict(".".join(("builtins", key, *chain)), self.terms.trust), where, f"{key}()", key)

    def _closure(self, function: FunctionType, uses: dict[str, dict[Chain, int]], library: bool) -> None:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        for key, cell in sorted(cells, key=lambda pair: pair[0]):
            if key in self.terms.ignore:
                continue
            value = self.watch.cell(cell)
            if library and _is_empty(value):
                continue  # autograd keeps the keywords that were not given
            if key == "__class__" and id(value) in self._made:
                continue  # what `super()` asks, in a method of a module that is walked
            self.watch.named(key, value)
            self._put("name", key)
            where = f"{key!r} in the closure of {function.__qualname__!r}"
            self.value(value, where, key, sorted(uses.get(key, ((),))))

    # -- modules

    def _module(self, module: ModuleType, chain: Chain, where: str, name: str) -> None:
        """Write what ``module.a.b`` stands for: by name of a library's, by value of the user's own."""
        library = library_of_module(module, self.terms.own)
        if chain and name in self.terms.ignore:
            return
        if library is not None:
            dotted = ".".join((module.__name__, *chain))
            self.blas |= blas.named(dotted)
            if not _is_distribution(dotted):
                self._allow(verdict(dotted, self.terms.trust), where, dotted, name or module.__name__)
        if not chain:
            self._refuse(f"{where} is the module {module.__name__}, used as a value: {REMEDY[Verdict.REACH]}")
        value = self._attribute(module, chain[0], where)
        if isinstance(value, ModuleType):
            self._module(value, chain[1:], where, name)
        elif library is None:
            self._put("of module", chain[0])
            self.watch.named(chain[0], value)
            self.value(value, f"{'.'.join(chain)}, {where}", name, [chain[1:]])
        else:
            self._of_library(value, ".".join((module.__name__, *chain)), library, where, name)

    def _attribute(self, module: ModuleType, key: str, where: str) -> object:
        """Return an attribute of a module, by its namespace: what a module makes by name is not seen through."""
        value = self.watch.binding(vars(module), key)
        if value is not MISSING:
            return value
        if library_of_module(module, self.terms.own) is not None:
            try:
                getattr(module, key)  # SciPy imports its packages when they are first asked for
            except AttributeError:
                return MISSING
            value = self.watch.binding(vars(module), key)
        if value is MISSING and (type(module) is not ModuleType or "__getattr__" in vars(module)):
            self._refuse(f"{where} has no {key!r} of its own: {module.__name__} makes it when asked (__getattr__)")
        return value

    def _of_library(self, value: object, dotted: str, library: Library, where: str, name: str) -> None:
        """Write what a library's module has under a name: by that name, unless somebody put something else there."""
        if value is MISSING or isinstance(value, bool | int | float | complex | str | bytes | None):
            self._put("library value", dotted)
            self.value(value, where)
        elif _is_theirs(value, self.terms.own):
            self._put("library", dotted)
            if self.terms.own != BUILT_IN:  # somebody may have put another function of a library there
                self._put(" ".join(library), library_name(value, self.terms.own) or type(value).__qualname__)
            self._rule(value, where)
        else:
            self._put("put into a library", dotted)
            self.watch.named(name, value)
            self.value(value, where, name)

    def _rule(self, value: object, where: str) -> None:
        """Write the gradient of an autograd primitive, where it is the user's own."""
        if (found := primitives.rule(value)) is None:
            return
        rules, rule = found
        self.watch.binding(rules, value)
        if rule is not None and any(
            library_of_function(part, self.terms.own) is None for part in primitives.parts(rule)
        ):
            self._put("rule")
            for number, part in enumerate(primitives.parts(rule)):
                self._put(str(number))
                self.value(part, f"the gradient of {where}")

    # -- classes

    def _class(self, cls: type, skip: str = "") -> None:
        name = cls.__qualname__
        self._put("class", cls.__name__)
        space = vars(cls)
        self.watch.all_of(space)
        for key in space:
            self.watch.binding(space, key)
        if type(cls) is not type:
            self.value(type(cls), f"the metaclass of {name!r}")
        for base in cls.__bases__:
            if skip:
                self._class_of_module(base, f"a base of {name!r}")
            else:
                self.value(base, f"a base of {name!r}")
        for kind, listed in (("fields", classes.fields(cls)), ("members", classes.members(cls))):
            self._put(kind)
            for key, value in listed:
                self._put(key)
                self.value(value, f"{key!r} of class {name!r}")
        for key, kind, parts in classes.attributes(cls, self._is_library):
            if key == skip:
                continue
            self._put(key, kind, str(len(parts)))
            for part in parts:
                self._part(part, kind, f"{key!r} of class {name!r}")

    def _part(self, part: Any, kind: str, where: str) -> None:
        """Write a part of a class attribute; a class method's first argument is shared between calls."""
        if kind == "classmethod" and isinstance(part, FunctionType) and not self._is_library(part):
            if not self._again(part):
                self._function(part, where, part.__code__.co_varnames[0] if part.__code__.co_argcount else "")
        else:
            self.value(part, where)

    def _is_library(self, function: FunctionType) -> bool:
        return library_of_function(function, self.terms.own) is not None


def library_of_function(function: FunctionType, own: str) -> Library | None:
    """Return the library that a function's code is of; None for the user's own."""
    return library_of(function.__globals__.get("__name__", ""), function.__code__.co_filename, own)


def _is_theirs(value: object, own: str) -> bool:
    """Whether a library's value is its own, and nothing of the user's stands or hides in its place."""
    if isinstance(value, FunctionType):
        return library_of_function(value, own) is not None and all(
            _is_theirs(part, own) for part in primitives.held(value)
        )
    if isinstance(value, type):
        return library_of(value.__module__, None, own) is not None
    if isinstance(value, functools.partial | MethodType | functools._lru_cache_wrapper):
        return False
    kind = type(value)
    if kind.__name__ == "ufunc" and kind.__module__ == "numpy":
        return library_name(value, own) is not None
    return library_of(kind.__module__, None, own) is not None


_IMMUTABLE: Final = {
    "list": "; use a tuple",
    "dict": "; use a tuple of pairs, a types.MappingProxyType, or a frozen dataclass",
    "set": "; use a frozenset",
    "bytearray": "; use bytes",
}
"""What to use in the place of what can be edited."""


def _is_distribution(dotted: str) -> bool:
    """Whether a dotted name is one of SciPy's distributions, or a pure method of one."""
    if not dotted.startswith("scipy.stats."):
        return False
    name, _, method = dotted.removeprefix("scipy.stats.").partition(".")
    value = getattr(import_module("scipy.stats"), name, None)
    return _distribution(value) is not None and (not method or method in DISTRIBUTION_METHODS)


def _distribution(value: object) -> str | None:
    """Return the name of one of SciPy's distributions, and None for all else."""
    stats = sys.modules.get("scipy.stats")
    if stats is None or not isinstance(value, (stats.rv_continuous, stats.rv_discrete)):
        return None
    name = getattr(value, "name", None)
    return name if isinstance(name, str) and vars(stats).get(name) is value else None


def _is_class(value: object) -> bool:
    return issubclass(type(value), type)  # an alias such as list[int] poses as an instance of type


def _place(function: FunctionType, line: int) -> str:
    return f"{function.__code__.co_filename.rpartition('/')[2]}:{line}"


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
