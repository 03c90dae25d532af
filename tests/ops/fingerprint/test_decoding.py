"""Parameters from their bytes: the same value, of the same type, or none at all."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whiteboard.ops.fingerprint.decoding import decode, decode_params, param_items
from whiteboard.ops.fingerprint.encoding import encode, encode_params

ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters(codec=None)),
    st.binary(),
    st.sampled_from([np.float64(0.1), np.float32(2), np.int8(-3), np.bool_(True), np.uint64(2**64 - 1)]),
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=10,
)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, and of one type; NaN is itself."""
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return type(a) is type(b) and (repr(a) == repr(b) or bool(a == b))


@given(VALUES)
def test_what_is_decoded_has_the_same_bytes(value: Any) -> None:
    """A value of plain parts comes back, type by type, and its encoding is what it was."""
    back = decode(encode(value))
    assert encode(back) == encode(value)
    assert same(back, value)


def test_parameters_by_name() -> None:
    """Each parameter is told for itself; one that is known by its digest alone is told where it is known."""
    field = np.arange(3.0)
    params = {"mach": 0.8, "order": (1, 2), "field": field, "name": "a"}
    encoded = encode_params(params)
    items = param_items(encoded)
    assert {name: decode(items[name]) for name in ("mach", "order", "name")} == {
        "mach": 0.8,
        "order": (1, 2),
        "name": "a",
    }
    assert decode_params(encoded, {"field": field, "mach": 2})["field"] is field
    for known in ({}, {"field": field + 1}, {"field": object()}):
        with pytest.raises(ValueError, match="kind b'A'"):
            decode_params(encoded, known)
    assert decode_params(encode_params({}), {}) == {}


def _deep(levels: int) -> bytes:
    data = b""
    for _ in range(levels):
        data = b"T" + struct.pack("<q", len(data)) + data
    return data


ODD: dict[str, bytes] = {
    "nothing": b"",
    "a tag": b"M",
    "no body": b"S" + struct.pack("<q", 5),
    "a negative length": b"S" + struct.pack("<q", -9) + b"12345678",
    "two values": encode(1) + encode(2),
    "a float of 3 bytes": b"F" + struct.pack("<q", 3) + b"abc",
    "an integer with a space": b"I" + struct.pack("<q", 2) + b" 1",
    "an integer without end": b"I" + struct.pack("<q", 5000) + b"1" * 5000,
    "a bool of 2": b"B" + struct.pack("<q", 1) + b"\x02",
    "a dict without a value": b"M" + struct.pack("<q", len(encode(1))) + encode(1),
    "a dict with a list as key": b"M" + struct.pack("<q", 18) + encode([]) + encode([]),
    "a dict with a key twice": b"M" + struct.pack("<q", 40) + (encode(1) + encode(2)) * 2,
    "an object scalar": b"G" + struct.pack("<q", len(encode(("|O", b"12345678")))) + encode(("|O", b"12345678")),
    "half a scalar": b"G" + struct.pack("<q", len(encode(("<f8", b"1234")))) + encode(("<f8", b"1234")),
    "two scalars": b"G" + struct.pack("<q", len(encode(("<f4", b"12345678")))) + encode(("<f4", b"12345678")),
    "a scalar of one part": b"G" + struct.pack("<q", len(encode(("<f4",)))) + encode(("<f4",)),
    "no UTF-8": b"S" + struct.pack("<q", 1) + b"\xff",
    "deeper than any": _deep(5000),
    "an array": encode(np.zeros(3)),
    "a function": encode(same),
    "a range": encode(range(3)),
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD.keys())
def test_other_bytes_are_refused(data: bytes) -> None:
    """Bytes that are no value's, or that hold a digest, are a `ValueError`, whoever wrote them."""
    with pytest.raises(ValueError, match=r"."):
        decode(data)
    for encoded in (data, b"M" + struct.pack("<q", len(encode("a")) + len(data)) + encode("a") + data):
        with pytest.raises(ValueError, match=r"."):
            decode_params(encoded, {})
