"""What a class is made of, but for what Python, dataclasses, enums and named tuples put beside the user's own."""

from __future__ import annotations

import dataclasses
import enum
import functools
import operator
from collections.abc import Callable, Iterator
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    WrapperDescriptorType,
)
from typing import Any, TypeAlias

from whiteboard.ops.fingerprint.functions import write as write_function
from whiteboard.ops.fingerprint.libraries import library_name
from whiteboard.ops.fingerprint.walk import Walk

IsLibrary: TypeAlias = Callable[[FunctionType], bool]

_MACHINERY = frozenset(
    (
        "__module__ __dict__ __weakref__ __doc__ __qualname__ __firstlineno__ __static_attributes__ "
        "__annotations__ __annotate__ __annotate_func__ __annotations_cache__ __match_args__ "
        "__orig_bases__ __parameters__ __type_params__ __abstractmethods__ _abc_impl __dataclass_fields__ "
        "__dataclass_params__ _fields _field_defaults __protocol_attrs__ __non_callable_proto_members__ "
        "__callable_proto_members_only__ _is_protocol _is_runtime_protocol"
    ).split()
)
"""What follows from the rest, or says nothing of what the class does; fields are told apart from it."""


def fields(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield what a dataclass or a named tuple says of its fields, in their order."""
    if dataclasses.is_dataclass(cls):
        given = vars(cls).get("__dataclass_params__")
        for name in ("init", "eq", "order", "unsafe_hash", "frozen"):
            yield name, getattr(given, name, None)
        for field in vars(cls).get("__dataclass_fields__", {}).values():
            yield field.name, (field._field_type.name, field.init, field.compare, bool(field.kw_only))
            for name in ("default", "default_factory"):
                value = getattr(field, name)
                yield f"{name} of {field.name}", None if value is dataclasses.MISSING else (value,)
            if field.metadata:
                yield f"metadata of {field.name}", field.metadata
    if _is_named_tuple(cls):
        yield "_fields", vars(cls)["_fields"]
        yield from vars(cls).get("_field_defaults", {}).items()


def _put_there(cls: type) -> Iterator[tuple[FunctionType, bool]]:
    """Yield the generated function that makes an object, and whether its defaults are others than its fields say."""
    name = "__new__" if _is_named_tuple(cls) else "__init__" if dataclasses.is_dataclass(cls) else ""
    (function, *_) = parts_of(vars(cls).get(name))
    if isinstance(function, FunctionType) and _is_generated(function):
        found = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        yield function, len(found) != len(said := _defaults(cls)) or not all(map(operator.is_, found, said))


def _defaults(cls: type) -> tuple[Any, ...]:
    """Return what the fields of a named tuple or a dataclass give as defaults, those by keyword only at the end."""
    if _is_named_tuple(cls):
        return tuple(vars(cls).get("_field_defaults", {}).values())
    listed = [each for each in vars(cls).get("__dataclass_fields__", {}).values() if each.init and not _is_shared(each)]
    found = [
        _FACTORY if each.default_factory is not dataclasses.MISSING else each.default
        for each in sorted(listed, key=lambda each: bool(each.kw_only))
    ]
    return tuple(each for each in found if each is not dataclasses.MISSING)


def _is_shared(field: Any) -> bool:
    return bool(field._field_type.name == "_FIELD_CLASSVAR")


_FACTORY = getattr(dataclasses, "_HAS_DEFAULT_FACTORY", None)
"""The default that stands for a factory."""


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the members of an enum: name, and value with whatever else was put on it."""
    if issubclass(cls, enum.Enum):
        for name, member in cls.__members__.items():
            more = {key: value for key, value in vars(member).items() if key not in _MEMBER}
            yield name, (member.value, *sorted(more.items()))


_MEMBER = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"})


def attributes(cls: type, is_library: IsLibrary) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Yield (name, kind, parts) of each attribute that the user's own code gave a class.

    `is_library` says whose a function is. A kind is the name of the descriptor's type; ``__init_subclass__``, which
    gets a class that is in the making, has one of its own. Parts are the functions that a descriptor is made of, or
    the value.
    """
    generated = issubclass(cls, enum.Enum) or dataclasses.is_dataclass(cls) or _is_named_tuple(cls)
    protocol = "_is_protocol" in vars(cls)
    for name, value in sorted(vars(cls).items()):
        if name in _MACHINERY or isinstance(value, GetSetDescriptorType):
            continue
        if issubclass(cls, enum.Enum) and (name in cls.__members__ or _is_kept(name, value)):
            continue
        parts = parts_of(value)
        functions = [part for part in parts if isinstance(part, FunctionType)]
        if (generated or protocol) and functions and all(_is_made(function, is_library) for function in functions):
            continue
        if generated and not functions and (type(value).__name__ == "_tuplegetter" or _is_enums_own(name, value)):
            continue
        if isinstance(value, MemberDescriptorType):
            parts = ()  # a slot
        yield name, "made" if name == "__init_subclass__" else type(value).__name__, parts


def parts_of(value: Any) -> tuple[Any, ...]:
    """Return what a class attribute is made of: the functions of a descriptor of Python's own, or the value itself."""
    if isinstance(value, staticmethod | classmethod):
        return (value.__func__,)
    if isinstance(value, property):
        return (value.fget, value.fset, value.fdel)
    if isinstance(value, functools.cached_property):
        return (value.func,)
    if isinstance(value, functools.partialmethod):
        return (value.func, value.args, *sorted(value.keywords.items()))
    return (value,)


def _is_made(function: FunctionType, is_library: IsLibrary) -> bool:
    """Whether a function in a class was put there by `dataclass`, `enum` or the like."""
    return is_library(function) or _is_generated(function)


def _is_generated(function: FunctionType) -> bool:
    """Whether `dataclass` or `namedtuple` has written it, as a text; a user's may be of a file "<string>" too."""
    code = function.__code__
    return code.co_filename == "<string>" and (
        code.co_qualname.startswith("__create_fn__.")
        or (code.co_name == "<lambda>" and str(function.__globals__.get("__name__")).startswith("namedtuple_"))
    )


def _is_enums_own(name: str, value: object) -> bool:
    """Whether an enum put there a method of the type that its members are of."""
    return name in ("__new__", "__hash__") or isinstance(value, _WRITTEN_IN_C)


_WRITTEN_IN_C = (MethodDescriptorType, WrapperDescriptorType, ClassMethodDescriptorType, BuiltinFunctionType)


def _is_kept(name: str, value: object) -> bool:
    """Whether an enum keeps something for itself under a name: ``_value2member_map_``, but not a ``_missing_``."""
    sunder = len(name) > 2 and name[0] == name[-1] == "_" and name[1] != "_" and name[-2] != "_"
    return sunder and not callable(value) and not isinstance(value, classmethod | staticmethod)


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and "_fields" in vars(cls)


def write(walk: Walk, value: Any, where: str, *_: object) -> bool:
    """Write a class, or an object of a frozen dataclass."""
    if is_class(value):
        if not walk.again(value):
            _class(walk, value)
    elif dataclasses.is_dataclass(value) and _is_frozen(value):
        walk.put("dataclass")
        walk.value(type(value), f"the class of {where}")
        _state(walk, value, where)
    else:
        return False
    return True


def _class(walk: Walk, cls: type, skip: str = "") -> None:
    name = cls.__qualname__
    walk.put("class", cls.__name__)
    space = vars(cls)
    walk.watch.all_of(space)
    for key in space:
        walk.watch.binding(space, key)
    if type(cls) is not type:
        walk.value(type(cls), f"the metaclass of {name!r}")
    for base in cls.__bases__:
        if skip:
            write_class_of_module(walk, base, f"a base of {name!r}")
        else:
            walk.value(base, f"a base of {name!r}")
    for kind, listed in (("fields", fields(cls)), ("members", members(cls))):
        walk.put(kind)
        for key, value in listed:
            walk.put(key)
            walk.value(value, f"{key!r} of class {name!r}")
    for function, put in _put_there(cls):
        walk.watch.function(function)
        if put:
            walk.put("defaults put there")
            given = (function.__defaults__, *sorted((function.__kwdefaults__ or {}).items()))
            walk.value(given, f"the defaults of {function.__qualname__!r}")
    for key, kind, parts in attributes(cls, walk.is_library):
        if key == skip:
            continue
        walk.put(key, kind, str(len(parts)))
        for part in parts:
            _part(walk, part, kind, f"{key!r} of class {name!r}")


def write_class_of_module(walk: Walk, cls: type, where: str) -> None:
    """Write the class of a module that is there: its ``__init__``, which mostly draws the first state, has run."""
    if library_name(cls, walk.terms.own) is not None:
        walk.value(cls, f"the class of {where}")
    elif id(cls) in walk.made:
        walk.put("again", str(walk.made.index(id(cls))))
    else:
        walk.made.append(id(cls))
        _class(walk, cls, skip="__init__")


def _part(walk: Walk, part: Any, kind: str, where: str) -> None:
    """Write a part of a class attribute; a class method's first argument is shared between calls."""
    if kind == "classmethod" and isinstance(part, FunctionType) and not walk.is_library(part):
        write_function(walk, part, where, first=part.__code__.co_varnames[0] if part.__code__.co_argcount else "")
    else:
        walk.value(part, where)


def _state(walk: Walk, value: object, where: str) -> None:
    """Write the attributes of a frozen object, but for what its cached properties have put there."""
    if hasattr(value, "__dict__"):
        walk.watch.all_of(vars(value))
        for key in sorted(vars(value)):
            if not isinstance(getattr(type(value), key, None), functools.cached_property):
                walk.put("attribute", key)
                walk.value(walk.watch.binding(vars(value), key), f"{where}.{key}")
    else:
        for field in dataclasses.fields(value):  # type: ignore[arg-type]
            walk.value(getattr(value, field.name), f"{where}.{field.name}")


def is_class(value: object) -> bool:
    """Whether a value is a class; an alias such as ``list[int]`` poses as an instance of `type`, and is none."""
    return issubclass(type(value), type)


def _is_frozen(value: object) -> bool:
    return bool(getattr(type(value), "__dataclass_params__").frozen)  # noqa: B009
