"""Parameters from their canonical bytes, where these hold the value itself and not only its digest."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from whiteboard.errors import ParamError
from whiteboard.ops.fingerprint.encoding import DEEPEST, encode, wrapped
from whiteboard.types import Params

_DIGITS: Final = 1000
_SCALAR: Final = re.compile(r"[<>|][biufc](1|2|4|8|16)")


def decode(encoded: bytes) -> Any:
    """Return the value of an encoding: what `encode` gives the same bytes for, to the type.

    None, bool, int, float, complex, str, bytes, NumPy scalars, and tuples, lists and dicts of them. What an encoding
    knows by a digest alone (an array, a function) cannot be told.

    Raises
    ------
    ValueError
    """
    try:
        (value,) = (_value(tag, body, 0) for tag, body in _items(encoded))
        same = encode(value) == encoded
    except (ParamError, TypeError, OverflowError, struct.error) as error:
        raise ValueError(str(error)) from error
    if not same:
        message = "the bytes are not those of the value"
        raise ValueError(message)
    return value


def param_items(encoded: bytes) -> dict[str, bytes]:
    """Return the encoding of each parameter, by name, of what `encode_params` gave.

    Raises
    ------
    ValueError
    """
    ((tag, inside),) = _items(encoded)
    parts = [wrapped(*each) for each in _items(inside)]
    names = [decode(name) for name in parts[::2]]
    if tag != b"M" or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        message = "the bytes are not those of parameters by name"
        raise ValueError(message)
    return dict(zip(names, parts[1::2], strict=True))


def decode_params(encoded: bytes, known: Params) -> dict[str, Any]:
    """Return the parameters that have an encoding; a value that is `known` stands for equal bytes, whatever it is.

    Raises
    ------
    ValueError
        One of them cannot be told.
    """
    return {
        name: known[name] if name in known and _encodes(known[name], item) else decode(item)
        for name, item in param_items(encoded).items()
    }


def _encodes(value: object, item: bytes) -> bool:
    try:
        return encode(value) == item
    except ParamError:
        return False


def _items(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield tag and body of each value in some bytes."""
    at = 0
    while at < len(data):
        begin = at + 9
        length = int.from_bytes(data[at + 1 : begin], "little", signed=True)
        if not 0 <= length <= len(data) - begin:
            message = f"a value of {length} bytes in {len(data)}"
            raise ValueError(message)
        yield data[at : at + 1], data[begin : begin + length]
        at = begin + length


def _value(tag: bytes, body: bytes, depth: int) -> Any:
    if depth > DEEPEST:
        message = f"more than {DEEPEST} levels"
        raise ValueError(message)
    if tag in _ATOMS:
        return _ATOMS[tag](body)
    if tag not in (b"T", b"L", b"M", b"G"):
        message = f"bytes of kind {tag!r} do not hold the value"
        raise ValueError(message)
    inside = [_value(*each, depth + 1) for each in _items(body)]
    match tag:
        case b"T":
            return tuple(inside)
        case b"L":
            return inside
        case b"M":
            return dict(zip(inside[::2], inside[1::2], strict=True))
        case _:
            return _scalar(*inside)


def _scalar(parts: tuple[str, bytes]) -> Any:
    dtype, data = parts
    if not _SCALAR.fullmatch(dtype):
        message = f"a scalar of dtype {dtype!r}"
        raise ValueError(message)
    (value,) = np.frombuffer(data, dtype)
    return value


def _integer(body: bytes) -> int:
    if len(body) > _DIGITS:
        message = f"an integer of {len(body)} digits"
        raise ValueError(message)
    return int(body, 0)


_ATOMS: Final[dict[bytes, Callable[[bytes], Any]]] = {
    b"N": lambda _: None,
    b"B": lambda body: body == b"\x01",
    b"I": _integer,
    b"F": lambda body: struct.unpack("<d", body)[0],
    b"C": lambda body: complex(*struct.unpack("<dd", body)),
    b"S": lambda body: body.decode("utf-8", "surrogatepass"),
    b"Y": bytes,
}
