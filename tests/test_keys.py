"""Keys and tokens: equal only for equal values, and blind to everything else."""

from __future__ import annotations

import itertools
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whiteboard import keys
from whiteboard.errors import DtypeError, ParamError

DISTINCT: list[Any] = [
    *(None, False, True, 0, 1, -1, 10**30, 0.0, -0.0, 1.0, float("nan"), float("inf")),
    *("", "1", b"", b"1", (), (1,), ((1,),), (1, 2), (12,), ("1", "2"), ("12",), {}, {"a": 1}, {"a": 1.0}, {"b": 1}),
    *(np.dtype("f4"), np.dtype("f8"), np.zeros(0), np.zeros(1), np.zeros((1, 1)), np.zeros(1, np.float32)),
    *(np.array(0.0), np.array(-0.0)),
]

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


def test_distinct_values_have_distinct_encodings() -> None:
    """No two of many look-alikes encode to the same bytes."""
    encoded = [keys.encode(value) for value in DISTINCT]
    assert len(set(encoded)) == len(DISTINCT)


@given(values, values)
def test_encoding_is_injective_and_prefix_free(a: Any, b: Any) -> None:
    """Two values encode alike only when they are equal in type and value, and no encoding begins another."""
    first, second = keys.encode(a), keys.encode(b)
    if first != second:
        assert not first.startswith(second)
        assert not second.startswith(first)
    else:
        assert repr(a) == repr(b) or a == b


def test_mapping_order_and_sequence_type_do_not_matter() -> None:
    """A mapping's order, list against tuple, and NumPy scalar against Python number encode alike."""
    assert keys.encode({"a": 1, "b": [2]}) == keys.encode({"b": (np.int64(2),), "a": np.int32(1)})


def test_what_has_no_canonical_bytes_is_refused_by_type() -> None:
    """A parameter of a foreign type is refused, with the name of the type."""
    with pytest.raises(ParamError, match="set"):
        keys.encode({"a": {1, 2}})


@given(hnp.arrays(st.sampled_from([np.float32, np.float64, np.int64]), hnp.array_shapes(min_dims=0, min_side=0)))
def test_token_is_the_documented_digest(array: np.ndarray[Any, Any]) -> None:
    """A token is BLAKE2b-128 over the encoded (dtype, shape) and the C-order bytes."""
    expected = blake2b(keys.encode((array.dtype.str, array.shape)) + array.tobytes(), digest_size=16).digest()
    assert keys.token(array) == expected


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)))
def test_stacked_tokens_are_those_of_the_rows(array: np.ndarray[Any, Any]) -> None:
    """Hashing a stack gives each row the token that it has alone, also for strided and transposed stacks."""
    for stack in (array, array[::-1], array.T, np.asfortranarray(array)):
        assert [row.tobytes() for row in keys.tokens(stack)] == [keys.token(np.array(row)) for row in stack]


def test_tokens_tell_apart_what_equality_does_not() -> None:
    """Signed zeros, NaN payloads, dtypes and shapes have tokens of their own."""
    nan = np.array([0x7FF8000000000000, 0x7FF8000000000001], np.uint64).view(np.float64)
    arrays = [np.array(0.0), np.array(-0.0), nan[0], nan[1], np.float32(0), np.zeros(1), np.zeros((1, 1)), np.zeros(2)]
    assert len({keys.token(np.asarray(array)) for array in arrays}) == len(arrays)


@pytest.mark.parametrize("array", [np.array([None]), np.array(["a"]), np.zeros(1, "f8,i4"), np.zeros(1, "M8[s]")])
def test_refused_dtypes(array: np.ndarray[Any, Any]) -> None:
    """Object, string, structured and time dtypes have no token."""
    with pytest.raises(DtypeError, match="cannot be hashed"):
        keys.token(array)


def test_every_part_of_the_identity_is_in_the_key() -> None:
    """A change of any one part of an op's identity gives another prefix."""
    base: dict[str, Any] = {"name": "mul", "version": 1, "fingerprint": b"f", "exactness": "exact"}
    base |= {"params": {}, "gradient": "ones", "fan_in": 2}
    others: dict[str, Any] = {"name": "add", "version": 2, "fingerprint": b"g", "exactness": "tolerance"}
    others |= {"params": {"axis": 0}, "gradient": "cotangent", "fan_in": 3}
    prefixes = {keys.key_prefix(**base)} | {keys.key_prefix(**(base | {part: other})) for part, other in others.items()}
    assert len(prefixes) == 1 + len(others)


def test_keys_depend_on_the_order_of_sources_alone() -> None:
    """Swapping the sources of one job changes its key and no other's; a key is the same in any batch."""
    tokens = keys.tokens(np.arange(12.0).reshape(6, 2)).reshape(3, 2, 16)
    prefix = keys.key_prefix("mul", 1, b"", "exact", {}, "ones", 2)
    whole = keys.keys(prefix, tokens)
    assert [keys.keys(prefix, tokens[i : i + 1])[0] for i in range(3)] == whole
    assert len(set(itertools.chain(whole, keys.keys(prefix, tokens[:, ::-1])))) == 6
    assert keys.keys(prefix, tokens[:0]) == []


def test_arithmetic_class_does_not_change_within_a_process() -> None:
    """The probe of this machine's rounding gives the same digest twice."""
    first = keys.arithmetic_class()
    keys.arithmetic_class.cache_clear()
    assert keys.arithmetic_class() == first
