"""Tokens and keys: 128-bit digests that say what a value is and which package answers a job.

A token stands for one array (dtype, shape, bytes); a key stands for one package: op identity, arithmetic
class, parameters, gradient kind, and the tokens of the sources in order. Neither holds a node id, a version,
a run or a path, so equal work shares a package wherever it is met. Everything variable is length-prefixed,
so no two different inputs encode to the same bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whiteboard.columns import FLOATS
from whiteboard.errors import DtypeError, ParamError
from whiteboard.types import Array, Params, Shape

SCHEME = b"whiteboard-key-1"
"""Names the encoding below; a change of it changes every key, and leaves the old encoding in `SCHEMES`."""

DIGEST_BYTES = 16


def digest(data: bytes | memoryview) -> bytes:
    """Return the 16-byte BLAKE2b digest of `data`."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def encode(value: object) -> bytes:
    """Return the canonical, length-prefixed encoding of a parameter value.

    Takes None, bool, int, float, str, bytes, NumPy scalars, dtypes and arrays, and tuples, lists and mappings
    of them. A list equals the tuple of its items; a NumPy scalar equals the Python number of its value.

    Raises
    ------
    ParamError
        For a value of another type: it has no canonical bytes.
    """
    return _wrapped(*_tagged(value))


def _wrapped(tag: bytes, body: bytes) -> bytes:
    return tag + struct.pack("<q", len(body)) + body


def _tagged(value: object) -> tuple[bytes, bytes]:
    match value:
        case None:
            return b"N", b""
        case bool() | np.bool_():
            return b"B", b"\x01" if value else b"\x00"
        case int() | np.integer():
            return b"I", str(int(value)).encode()
        case float() | np.floating():
            return b"F", struct.pack("<d", float(value))
        case str():
            return b"S", value.encode("utf-8", "surrogatepass")
        case bytes():
            return b"Y", value
        case np.dtype():
            return b"D", value.str.encode()
        case np.ndarray():
            return b"A", token(value)
        case tuple() | list():
            return b"T", b"".join(encode(item) for item in value)
        case Mapping():
            items = sorted((encode(key), encode(item)) for key, item in value.items())
            return b"M", b"".join(key + item for key, item in items)
        case _:
            msg = f"a value of type {type(value).__name__} has no canonical bytes"
            raise ParamError(msg)


def token(array: Array) -> bytes:
    """Return the token of one array: BLAKE2b-128 over (dtype, shape, C-order bytes).

    Raises
    ------
    DtypeError
        For object, string and structured dtypes.
    """
    return bytes(tokens(np.asarray(array)[None])[0])


def tokens(values: Array) -> NDArray[np.uint8]:
    """Return the tokens of n arrays stacked on axis 0, as uint8 of shape (n, 16).

    -0.0 and 0.0 have different tokens; NaNs compare by their bytes.
    """
    if values.dtype.kind not in "biufc":
        msg = f"dtype {values.dtype} cannot be hashed: expected a number, got kind {values.dtype.kind!r}"
        raise DtypeError(msg)
    n, shape = len(values), values.shape[1:]
    width = values.itemsize * math.prod(shape)
    rows = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data if width else memoryview(b"")
    digests = _digests(_header(values.dtype.str, shape), rows, width, n)
    return np.frombuffer(b"".join(digests), np.uint8).reshape(n, DIGEST_BYTES)


@lru_cache(maxsize=1024)
def _header(dtype: str, shape: Shape) -> bytes:
    return encode((dtype, shape))


def _digests(prefix: bytes, rows: bytes | memoryview, width: int, n: int) -> list[bytes]:
    """Return the digests of `prefix` followed by each of n rows of `width` bytes.

    A copy of the state after the prefix is cheaper than a new one, and saves hashing the prefix again.
    """
    copy = blake2b(prefix, digest_size=DIGEST_BYTES).copy
    digests = []
    for at in range(0, n * width, width) if width else [0] * n:
        state = copy()
        state.update(rows[at : at + width])
        digests.append(state.digest())
    return digests


NO_PARAMS: Final = encode({})


def key_prefix(
    name: str,
    version: int,
    fingerprint: bytes,
    exactness: str,
    params: Params,
    gradient: str,
    fan_in: int,
) -> bytes:
    """Return the digest that all keys of one op, parameter set and gradient kind begin from.

    `gradient` is ``"ones"`` for packages that hold the VJP of ones, and ``"cotangent"`` for those that hold the
    VJP of a cotangent, whose token is then the last one of the key.
    """
    given = encode(dict(params)) if params else NO_PARAMS
    return _prefix(SCHEME, name, version, fingerprint, exactness, arithmetic_class(), given, gradient, fan_in)


class Identity(NamedTuple):
    """What the keys of one op, parameter set and gradient kind are made of, beside scheme, fan-in and tokens.

    `params` is the canonical encoding of all parameters; `arithmetic` is that of the machine that computed.
    """

    op: str
    version: int
    fingerprint: bytes
    exactness: str
    arithmetic: bytes
    params: bytes
    gradient: str


@lru_cache(maxsize=1024, typed=True)
def _prefix(
    scheme: bytes,
    name: str,
    version: int,
    fingerprint: bytes,
    exactness: str,
    arithmetic: bytes,
    params: bytes,
    gradient: str,
    fan_in: int,
) -> bytes:
    before = (scheme, name, version, fingerprint, exactness, arithmetic)
    return digest(_wrapped(b"T", b"".join((*map(encode, before), params, encode(gradient), encode(fan_in)))))


def keys(prefix: bytes, source_tokens: NDArray[np.uint8]) -> list[bytes]:
    """Return the keys of n jobs from their tokens, uint8 of shape (n, k, 16), in source order."""
    n, fan_in = source_tokens.shape[:2]
    return _digests(prefix, source_tokens.tobytes(), fan_in * DIGEST_BYTES, n)


def _first_scheme(of: Identity, source_tokens: NDArray[np.uint8]) -> list[bytes]:
    fan_in = source_tokens.shape[1] - (of.gradient == "cotangent")
    return keys(_prefix(b"whiteboard-key-1", *of, fan_in), source_tokens)


SCHEMES: dict[bytes, Callable[[Identity, NDArray[np.uint8]], list[bytes]]] = {b"whiteboard-key-1": _first_scheme}
"""Every scheme there was: ``SCHEMES[scheme](identity, tokens)`` gives the keys of n jobs, tokens (n, k, 16).

`SCHEME` is one of them. An older one stays, so that `whiteboard.rekey` can tell what a key was made of.
"""


@cache
def arithmetic_class() -> bytes:
    """Return a digest of how this machine rounds: equal on machines whose kernels give equal bits.

    NumPy chooses SIMD and BLAS kernels by processor, and their last bits differ. Results of fixed inputs stand
    for them in every key, so that packages of different arithmetic never mix in a shared cache.
    """
    state = blake2b(digest_size=DIGEST_BYTES)
    with np.errstate(all="ignore"):
        for dtype in FLOATS:
            x: Array = np.linspace(0.03, 7.9, 257, dtype=dtype)
            for ufunc in (np.exp, np.expm1, np.log, np.log1p, np.tanh, np.sin, np.cos, np.sqrt):
                state.update(ufunc(x).tobytes())
            state.update(np.power(x, x[::-1]).tobytes())
            square: Array = np.resize(x, 3 * 33 * 65).reshape(3, 33, 65)
            state.update(square.sum(-1).tobytes() + square.sum(1).tobytes())
            state.update(np.einsum("...i,...i->...", square, square[::-1]).tobytes())
            state.update(np.vecdot(square, square[::-1]).tobytes())
            state.update(np.matmul(square, square.swapaxes(1, 2)).tobytes())
            state.update(np.matvec(square, x[:65]).tobytes())
    return state.digest()
