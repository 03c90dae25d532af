"""Keys and tokens: equal only for equal values, and blind to everything else."""

from __future__ import annotations

import collections
import enum
import itertools
import types
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whiteboard.errors import DtypeError, ParamError
from whiteboard.identity import keys
from whiteboard.ops.fingerprint.encoding import DEEPEST, encode, encode_params


class Speed(enum.Enum):
    """An enum."""

    SLOW = 1


class Other(enum.Enum):
    """Another enum with a member of the same name and value."""

    SLOW = 1


class Whole(enum.IntEnum):
    """An enum of integers."""

    ONE = 1


class Named(str, enum.Enum):  # noqa: UP042 (as people write it)
    """An enum of texts."""

    A = "a"


class Gauss(NamedTuple):
    """A kernel."""

    s: float


class Laplace(NamedTuple):
    """Another kernel with the same field."""

    s: float


class Metre(float):
    """A number with a unit."""


class Mile(float):
    """A number with another unit."""


@dataclass(frozen=True)
class Law:
    """A frozen dataclass."""

    rate: float


def double(x: float) -> float:
    """Return 2x."""
    return 2 * x


def triple(x: float) -> float:
    """Return 3x."""
    return 3 * x


_F = np.asfortranarray(np.arange(4.0).reshape(2, 2))
_LONG = np.zeros((2, 3000), bool)
_LONG[0, 1500:1510] = _LONG[1, 1500:1520] = True

DISTINCT: list[Any] = [
    *(None, False, True, 0, 1, -1, 10**30, 10**5000, 10**5000 + 1, 0.0, -0.0, 1.0, float("nan"), float("inf"), 1j, 2j),
    *("", "1", "a", b"", b"1", b"a", bytearray(b"a"), (), (1,), ((1,),), (1, 2), (12,), ("1", "2"), ("12",)),
    *([], [1], [1, 2], [(1,)], ([1],), range(3), range(4), slice(3), slice(0, 3), ..., [0, 1, 2]),
    *({}, {"a": 1}, {"a": 1.0}, {"b": 1}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, {1: 2}),
    *(collections.OrderedDict(a=1), collections.Counter(a=1), types.MappingProxyType({"a": 1})),
    *(np.True_, np.int8(1), np.int16(1), np.int64(1), np.uint8(1), np.float16(1), np.float32(1), np.float64(1)),
    *(np.longdouble(1), np.longdouble(1) + np.finfo(np.longdouble).eps, np.complex64(1), np.complex128(1)),
    *(np.clongdouble(1), np.str_("a"), np.bytes_(b"a"), np.datetime64("2020"), np.datetime64("2021")),
    *(np.datetime64("2020", "D"), np.timedelta64(1, "s"), np.timedelta64(1, "m")),
    *(np.dtype("f4"), np.dtype("f8"), np.dtype(">f8"), np.dtype("f8,f8"), np.dtype([("a", "f8"), ("f1", "f8")])),
    *(np.dtype([("f0", "i8"), ("f1", "f8")]), np.dtype({"names": ["f0"], "formats": ["f8"], "itemsize": 16})),
    *(np.zeros(0), np.zeros(1), np.zeros((1, 1)), np.zeros(1, np.float32), np.zeros(1, ">f8"), np.array(0.0)),
    *(np.array(-0.0), np.zeros(1, np.int64), np.ascontiguousarray(_F), _F, _F[:, ::-1], *_LONG),
    *(Speed.SLOW, Other.SLOW, Whole.ONE, Named.A, Gauss(1.0), Laplace(1.0), Gauss(2.0), Metre(1.0), Mile(1.0)),
    *(Law(1.0), Law(2.0), double, triple, Law, Gauss),
]

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


def test_distinct_values_have_distinct_encodings() -> None:
    """No two of many look-alikes encode to the same bytes."""
    encoded = [encode(value) for value in DISTINCT]
    assert len(set(encoded)) == len(DISTINCT)


@given(values, values)
def test_encoding_is_injective_and_prefix_free(a: Any, b: Any) -> None:
    """Two values encode alike only when they are equal in type and value, and no encoding begins another."""
    first, second = encode(a), encode(b)
    if first != second:
        assert not first.startswith(second)
        assert not second.startswith(first)
    else:
        assert repr(a) == repr(b) or a == b


def test_parameters_are_given_by_name() -> None:
    """The order in which a job gives its parameters does not matter; that of a dict among them does."""
    assert encode_params({"a": 1, "b": 2}) == encode_params({"b": 2, "a": 1})
    assert encode_params({"a": {"x": 1, "y": 2}}) != encode_params({"a": {"y": 2, "x": 1}})


def test_long_doubles_are_told_by_their_value() -> None:
    """The bytes beside a long double's value, which mean nothing, are not in its encoding."""
    dirty = np.frombuffer(b"\xff" * 32, np.longdouble).copy()
    dirty[:] = 1
    assert encode(dirty[0]) == encode(np.longdouble(1))


class Refused(NamedTuple):
    """A value without canonical bytes, and what the error says."""

    value: Any
    says: str
    id: str


class Plain:
    """An object of the user's."""


class Cache(dict[str, int]):
    """A mapping of the user's."""


_LOOP: list[Any] = []
_LOOP.append(_LOOP)
_DEEP: Any = 1
for _ in range(10 * DEEPEST):
    _DEEP = (_DEEP,)

REFUSED = (
    Refused({1, 2}, "type set has no canonical bytes", "a set"),
    Refused(_LOOP, f"more than {DEEPEST} levels", "a list that contains itself"),
    Refused(_DEEP, f"more than {DEEPEST} levels", "a very deep tuple"),
    Refused(Plain(), "Plain has no canonical bytes: it is a mutable or unknown object of type 'Plain'$", "an object"),
    Refused(Cache(a=1), "Cache", "a subclass of dict"),
    Refused(collections.defaultdict(int, a=1), "defaultdict", "a mapping that makes what it lacks"),
    Refused(np.ma.masked_array([1.0], [True]), "MaskedArray.*pass its array", "a masked array"),
    Refused(np.zeros((1, 1)).view(np.matrix), "matrix.*pass its array", "a matrix"),
    Refused(np.zeros(1, "f8,i4").view(np.recarray), "recarray.*pass its array", "a record array"),
    Refused(np.array([None]), "dtype object", "an array of objects"),
    Refused(np.array(["a"]), "dtype <U1", "an array of texts"),
    Refused(np.zeros(1, "f8,i4"), "dtype", "a structured array"),
    Refused(np.zeros(1, "f8,i4")[0], "void", "a record"),
    Refused(eval("lambda x: x"), "has no source", "a function without source"),
    Refused(np.random.default_rng(0), "Generator", "a random generator"),
)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
@pytest.mark.parametrize(
    "inside",
    [lambda value: value, lambda value: [value], lambda value: {"a": (value,)}],
    ids=["alone", "in a list", "in a dict"],
)
def test_what_has_no_canonical_bytes_is_refused_by_type(case: Refused, inside: Any) -> None:
    """The error is a `ParamError` that names the type, wherever in a parameter the value is."""
    with pytest.raises(ParamError, match=case.says):
        encode(inside(case.value))


def test_a_class_that_is_edited_makes_other_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a parameter's class does counts, as it is at each call."""

    class Kernel(NamedTuple):
        s: float

        def at(self, x: float) -> float:
            return x * self.s

    before = encode(Kernel(1.0))
    assert encode(Kernel(1.0)) == before
    monkeypatch.setattr(Kernel, "at", lambda self, x: x + self.s)
    assert encode(Kernel(1.0)) != before


@given(hnp.arrays(st.sampled_from([np.float32, np.float64, np.int64]), hnp.array_shapes(min_dims=0, min_side=0)))
def test_token_is_the_documented_digest(array: np.ndarray[Any, Any]) -> None:
    """A token is BLAKE2b-128 over the encoded (dtype, shape) and the C-order bytes."""
    expected = blake2b(encode((array.dtype.str, array.shape)) + array.tobytes(), digest_size=16).digest()
    assert keys.token(array) == keys.first_token(array) == expected


@pytest.mark.parametrize("array", [np.arange(128.0), np.ones((33, 64), np.float32).T, np.zeros((2, 70_000))])
def test_token_of_a_large_array_is_the_documented_digest(array: np.ndarray[Any, Any]) -> None:
    """From 1 KB on it is BLAKE3-128 of the C-order bytes, under the digest of the encoded (dtype, shape) as its key."""
    under = blake3(encode((array.dtype.str, array.shape))).digest()
    assert keys.token(array) == blake3(array.tobytes(), key=under).digest(16)
    assert keys.token(array) != keys.token(array.reshape(-1, 1))
    assert keys.tokens(np.stack([array, -array]))[0].tobytes() == keys.token(array)
    assert keys.token(array[..., :10]) == keys.first_token(array[..., :10]) or array[..., :10].nbytes >= 1024


def test_tokens_are_the_same_in_threads() -> None:
    """Arrays that are hashed beside one another have the tokens that each has alone, as sources and as rows."""
    rows = np.arange(3 * 300_000, dtype=np.float64).reshape(3, -1)
    assert rows[0].nbytes >= keys._THREADED_BYTES
    under = blake3(encode((rows.dtype.str, rows[0].shape))).digest()
    wanted = [blake3(row.tobytes(), key=under).digest(16) for row in rows]
    assert _recipe(list(rows)).tokens(list(rows)) == keys.tokens(rows).tobytes() == b"".join(wanted)
    for beside in ([rows[0, :2], rows[0], rows[0, :500]], [rows[0], rows[0, :500], rows[0, :2]]):
        assert _recipe(beside).tokens(beside) == b"".join(map(keys.token, beside))
    with pytest.raises(ValueError, match="contiguous"):
        _recipe([rows[0], rows[:2].T]).tokens([rows[0], rows[:2].T])


def _recipe(sources: Sequence[np.ndarray[Any, Any]]) -> keys.Recipe:
    identity = keys.Identity("mul", 1, b"f", "exact", b"a", keys.NO_PARAMS, "ones")
    return keys.Recipe.of(identity, sources[0].dtype, [source.shape for source in sources])


def test_the_scheme_goes_by_the_largest_source() -> None:
    """Keys are of the new scheme where one source has 1 KB, on whatever machine; all others are as they were."""
    schemes = [keys.scheme_of(sizes) for sizes in ((), (8, 1023), (8, 1024), (1025,))]
    assert schemes == [keys.SMALL, keys.SMALL, keys.LARGE, keys.LARGE]
    assert keys.SCHEMES.keys() == keys.TOKENS.keys()


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
    base = keys.Identity("mul", 1, b"f", "exact", b"a", keys.NO_PARAMS, "ones")
    others: dict[str, Any] = {
        "op": "add",
        "version": 2,
        "fingerprint": b"g",
        "exactness": "tolerance",
        "arithmetic": b"b",
        "params": encode_params({"axis": 0}),
        "gradient": "cotangent",
    }
    assert others.keys() == set(base._fields)
    prefixes = {keys.key_prefix(base._replace(**{part: other}), 2, keys.SMALL) for part, other in others.items()}
    prefixes |= {keys.key_prefix(base, *other) for other in ((2, keys.SMALL), (3, keys.SMALL), (2, keys.LARGE))}
    assert len(prefixes) == 3 + len(others)


def test_keys_depend_on_the_order_of_sources_alone() -> None:
    """Swapping the sources of one job changes its key and no other's; a key is the same in any batch."""
    tokens = keys.tokens(np.arange(12.0).reshape(6, 2)).reshape(3, 2, 16)
    prefix = keys.key_prefix(keys.Identity("mul", 1, b"", "exact", b"", keys.NO_PARAMS, "ones"), 2, keys.SMALL)
    whole = keys.keys(prefix, tokens)
    assert [keys.keys(prefix, tokens[i : i + 1])[0] for i in range(3)] == whole
    assert len(set(itertools.chain(whole, keys.keys(prefix, tokens[:, ::-1])))) == 6
    assert keys.keys(prefix, tokens[:0]) == []
