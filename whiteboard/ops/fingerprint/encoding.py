"""Canonical bytes of parameters: two that a function can tell apart have two encodings, and nothing else has a part.

Everything variable is length-prefixed, so that no two values encode to the same bytes and no encoding begins another.
"""

from __future__ import annotations

import enum
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from whiteboard.concurrency import locks
from whiteboard.errors import ParamError
from whiteboard.ops.fingerprint.arrays import array_parts, scalar_parts
from whiteboard.ops.fingerprint.digest import Fingerprint, fingerprint
from whiteboard.ops.fingerprint.walk import Terms
from whiteboard.types import Params

DEEPEST: Final = 100
"""So many levels of lists, tuples and mappings a parameter may have: one that contains itself has more."""


def encode(value: object) -> bytes:
    """Return the canonical, length-prefixed encoding of a parameter value.

    Takes None, bool, int, float, complex, str, bytes, bytearray, range, slice, Ellipsis; NumPy scalars, dtypes and
    arrays of numbers; tuples, lists and dicts of them, a dict with its order; and what the code of the user's own makes
    of these: enums, named tuples, frozen dataclasses, subclasses of numbers and texts, functions and classes, each with
    the fingerprint of its code.

    Raises
    ------
    ParamError
        For a value of another type: it has no canonical bytes. The message names the type.
    """
    return wrapped(*_tagged(value, 0))


def encode_params(params: Params) -> bytes:
    """Return the encoding of a job's parameters: by name, in alphabetical order, as they are given by name.

    Raises
    ------
    ParamError
        The message names the parameter.
    """
    items = []
    for name in sorted(params):
        try:
            items.append(encode(name) + encode(params[name]))
        except ParamError as error:
            msg = f"parameter {name!r}: {error}"
            raise ParamError(msg) from error
    return wrapped(b"M", b"".join(items))


def wrapped(tag: bytes, body: bytes) -> bytes:
    """Return a tag, the length of the body, and the body."""
    return tag + struct.pack("<q", len(body)) + body


def _tagged(value: object, depth: int) -> tuple[bytes, bytes]:
    """Return tag and body of a value. Types are compared, not asked for: a subclass is another thing."""
    kind = type(value)
    if kind is str:
        return b"S", value.encode("utf-8", "surrogatepass")  # type: ignore[attr-defined]
    if kind is float:
        return b"F", struct.pack("<d", value)
    if kind is int:
        return b"I", _integer(value)  # type: ignore[arg-type]
    if kind is bool:
        return b"B", b"\x01" if value else b"\x00"
    if value is None:
        return b"N", b""
    if kind in _CONTAINERS:
        if depth >= DEEPEST:
            msg = (
                f"a {kind.__name__} of more than {DEEPEST} levels, or one that contains itself, has no canonical bytes"
            )
            raise ParamError(msg)
        return _container(value, depth + 1)
    if kind.__module__ == "numpy" or isinstance(value, np.ndarray):
        return _numpy(value)
    return _plain(value) or _of_a_class(value, depth + 1)


def _integer(value: int) -> bytes:
    return hex(value).encode() if value.bit_length() > 64 else str(value).encode()


def _plain(value: object) -> tuple[bytes, bytes] | None:
    kind = type(value)
    if kind is bytes:
        return b"Y", value  # type: ignore[return-value]
    if kind is bytearray:
        return b"y", bytes(value)  # type: ignore[call-overload]
    if kind is complex:
        return b"C", struct.pack("<dd", value.real, value.imag)  # type: ignore[attr-defined]
    if value is Ellipsis:
        return b"E", b""
    if isinstance(value, range | slice):
        return kind.__name__[:1].upper().encode() + b"3", encode((value.start, value.stop, value.step))
    return None


_CONTAINERS: Final[dict[type, bytes]] = {
    tuple: b"T",
    list: b"L",
    dict: b"M",
    OrderedDict: b"MO",
    Counter: b"MC",
    MappingProxyType: b"MP",
}


def _container(value: Any, depth: int) -> tuple[bytes, bytes]:
    if isinstance(value, tuple | list):
        items: Iterator[object] = iter(value)
    else:
        items = (each for pair in value.items() for each in pair)
    return _CONTAINERS[type(value)], b"".join(wrapped(*_tagged(item, depth)) for item in items)


def _numpy(value: object) -> tuple[bytes, bytes]:
    if isinstance(value, np.dtype) and value.kind != "O" and not value.hasobject:
        return b"D", f"{value.str} {value!r} {value.metadata or ''}".encode()
    if isinstance(value, np.generic) and value.dtype.kind not in "OV":
        dtype, data = scalar_parts(value)
        return b"G", encode((dtype, data))
    if type(value) is np.ndarray and value.dtype.kind in "biufcmM":
        dtype, layout, data = array_parts(value)
        return b"A", encode((dtype, layout, blake2b(data, digest_size=16).digest()))
    what = f"an array of dtype {value.dtype}" if type(value) is np.ndarray else f"a value of type {_name(value)}"
    hint = "; pass its array and what else it holds as parameters of their own" if isinstance(value, np.ndarray) else ""
    msg = f"{what} has no canonical bytes{hint}"
    raise ParamError(msg)


def _of_a_class(value: Any, depth: int) -> tuple[bytes, bytes]:
    """Encode what the user's own code makes: the fingerprint of the class, and the parts."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        return b"O", _code(kind) + encode((value.name, value.value if isinstance(value, enum.Flag) else None))
    base = next((base for base in _PLAIN if isinstance(value, base)), None)
    if base is not None and not isinstance(value, np.generic):
        parts = [_PLAIN[base](value)[0]]
        parts += sorted(getattr(value, "__dict__", {}).items())
    elif is_dataclass(value) and not isinstance(value, type) and kind.__dataclass_params__.frozen:
        names = list(getattr(value, "__dict__", None) or (field.name for field in fields(value)))
        parts = [(name, getattr(value, name)) for name in sorted(names)]
    else:
        return b"P", _code(value)
    return b"O", _code(kind) + b"".join(wrapped(*_tagged(part, depth)) for part in parts)


_PLAIN: Final[dict[type, Callable[[Any], tuple[Any, ...]]]] = {
    float: float.__getnewargs__,
    int: int.__getnewargs__,
    str: str.__getnewargs__,
    bytes: bytes.__getnewargs__,
    tuple: tuple.__getnewargs__,  # type: ignore[attr-defined]
}
"""How to read the plain value of a subclass, past whatever the subclass has overridden."""

_seen: dict[int, tuple[object, Fingerprint]] = {}
_lock = locks.lock()


def _code(value: Any) -> bytes:
    """Return the fingerprint of a function or class as it is now."""
    held = _seen.get(id(value))
    if held is None or held[0] is not value or not held[1].holds():
        module = getattr(value, "__module__", None) or type(value).__module__
        found = fingerprint((value,), Terms(str(module).partition(".")[0]))
        if found.digest is None:
            # What helps an op's code, `ignore`, helps no parameter.
            why = found.opaque.replace("part 0", "it", 1).partition("; pass ignore=")[0]
            msg = f"a value of type {_name(value)} has no canonical bytes: {why}"
            raise ParamError(msg)
        held = (value, found)
        with _lock:
            if len(_seen) >= 256:
                _seen.pop(next(iter(_seen)))
            _seen[id(value)] = held
    return held[1].digest or b""


def _name(value: object) -> str:
    kind = value if isinstance(value, type) else type(value)
    return (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )


def is_mapping(params: object) -> bool:
    """Whether parameters are given by name."""
    return isinstance(params, Mapping) and all(isinstance(name, str) for name in params)
