"""Tokens and keys: 128-bit digests that say what a value is and which package answers a job.

A token stands for one array (dtype, shape, bytes); a key stands for one package: op identity, arithmetic
class, parameters, gradient kind, and the tokens of the sources in order. Neither holds a node id, a version,
a run or a path, so equal work shares a package wherever it is met. Everything variable is length-prefixed,
so no two different inputs encode to the same bytes.

Tokens of large arrays are BLAKE3, all else is BLAKE2b: each is the quicker one at its size, on whatever machine. Jobs
with a large source have keys of a scheme of their own; those of all others are what they were before. Very
large ones are hashed in threads, each array in one: a token is a function of its own array's bytes alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from whiteboard.concurrency.parallel import overlapped
from whiteboard.errors import DtypeError, ParamError
from whiteboard.identity.arithmetic import arithmetic_class
from whiteboard.ops.fingerprint.encoding import encode, encode_params, wrapped
from whiteboard.ops.spec import OpSpec
from whiteboard.types import Array, Params, Shape

SMALL, LARGE = b"whiteboard-key-2", b"whiteboard-key-3"
"""The schemes of the encoding below: of jobs whose sources are all small, and of those with a large one."""

LARGE_BYTES: Final = 1024
"""An array of so many bytes is large: of 1 KB BLAKE2b takes as long as BLAKE3, of 2 KB twice, from 64 KB on 7 times."""

_THREADED_BYTES: Final = 2 * 2**20
"""From so many bytes on an array takes longer to hash than a thread to start."""

DIGEST_BYTES = 16


def digest(data: bytes | memoryview) -> bytes:
    """Return the 16-byte BLAKE2b digest of `data`."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def encode_first(value: object) -> bytes:
    """Return the encoding of parameters in key scheme 1.

    In it a list is the tuple of its items, a NumPy scalar the Python number of its value, and a mapping has no order.

    Raises
    ------
    ParamError
        For a value of another type.
    """
    match value:
        case np.bool_():
            return encode(bool(value))
        case bool() | None | str() | bytes():
            return encode(value)
        case int() | np.integer():
            return wrapped(b"I", str(int(value)).encode())
        case float() | np.floating():
            return encode(float(value))
        case np.dtype():
            return wrapped(b"D", value.str.encode())
        case np.ndarray():
            return wrapped(b"A", first_token(value))
        case tuple() | list():
            return wrapped(b"T", b"".join(encode_first(item) for item in value))
        case Mapping():
            items = sorted((encode_first(key), encode_first(item)) for key, item in value.items())
            return wrapped(b"M", b"".join(key + item for key, item in items))
        case _:
            msg = f"a value of type {type(value).__name__} has no canonical bytes"
            raise ParamError(msg)


def scheme_of(sizes: Iterable[int]) -> bytes:
    """Return the scheme of jobs whose sources, and cotangent where its token is in the key, have so many bytes."""
    return LARGE if any(size >= LARGE_BYTES for size in sizes) else SMALL


def first_token(array: Array) -> bytes:
    """Return the token of one array, of whatever size, by BLAKE2b: as `first_tokens`.

    Raises
    ------
    DtypeError
        For object, string and structured dtypes.
    """
    return bytes(first_tokens(np.asarray(array)[None])[0])


def first_tokens(values: Array) -> NDArray[np.uint8]:
    """Return the tokens of n arrays by BLAKE2b over (dtype, shape, bytes): those of schemes 1 and 2, and of states."""
    return _column(_first_digests(*_rows(values)))


def tokens(values: Array) -> NDArray[np.uint8]:
    """Return the tokens of n arrays stacked on axis 0, as uint8 of shape (n, 16).

    BLAKE2b over (dtype, shape, C-order bytes), or of a large array BLAKE3 over its bytes under the digest of dtype and
    shape as key. -0.0 and 0.0 have different tokens; NaNs compare by their bytes.

    Raises
    ------
    DtypeError
        For object, string and structured dtypes.
    """
    header, rows, width, n = _rows(values)
    if width < LARGE_BYTES:
        return _column(_first_digests(header, rows, width, n))
    key = _large_key(header)
    each = map if width < _THREADED_BYTES else overlapped
    digests = each(lambda at: blake3(rows[at : at + width], key=key).digest(DIGEST_BYTES), range(0, n * width, width))
    return _column(list(digests))


def token(array: Array) -> bytes:
    """Return the token of one array, as `tokens` does of many."""
    return bytes(tokens(np.asarray(array)[None])[0])


def _rows(values: Array) -> tuple[bytes, memoryview, int, int]:
    """Return what describes each of n arrays, the bytes of all, and how many one has, and n."""
    if values.dtype.kind not in "biufc":
        msg = f"dtype {values.dtype} cannot be hashed: expected a number, got kind {values.dtype.kind!r}"
        raise DtypeError(msg)
    n, shape = len(values), values.shape[1:]
    width = values.itemsize * math.prod(shape)
    rows = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data if width else memoryview(b"")
    return _header(values.dtype.str, shape), rows, width, n


def _column(digests: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), DIGEST_BYTES)


class Recipe(NamedTuple):
    """How the key of one job is made, whose sources have some dtype and shapes: the digests are those of columns.

    Parameters
    ----------
    scheme : bytes
        See `scheme_of`.
    state : hash
        BLAKE2b after what its keys begin from: see `key_prefix`.
    begins : tuple
        A source: the state of BLAKE2b after its header, or, of a large one, the key of its BLAKE3.
    """

    scheme: bytes
    state: Any
    begins: tuple[Any, ...]

    @classmethod
    def of(cls, identity: Identity, dtype: np.dtype[Any], shapes: Sequence[Shape]) -> Recipe:
        """Return that of an op's jobs."""
        sizes = [dtype.itemsize * math.prod(shape) for shape in shapes]
        scheme = scheme_of(sizes)
        begins = [_begin(dtype.str, shape, size) for shape, size in zip(shapes, sizes, strict=True)]
        prefix = key_prefix(identity, len(shapes), scheme)
        return cls(scheme, blake2b(prefix, digest_size=DIGEST_BYTES), tuple(begins))

    def tokens(self, sources: Sequence[Array]) -> bytes:
        """Return the tokens of a job's arrays, one after another.

        Raises
        ------
        ValueError
            An array is not C-contiguous.
        """
        digests = []
        for begin, source in zip(self.begins, sources):  # noqa: B905 - of as many
            if type(begin) is bytes:
                if source.nbytes >= _THREADED_BYTES:
                    return b"".join(overlapped(_digest_of, zip(self.begins, sources)))  # noqa: B905 - the same
                digests.append(_large_digest(begin, source))
                continue
            state = begin.copy()
            state.update(source)
            digests.append(state.digest())
        return b"".join(digests)

    def key(self, tokens: bytes) -> bytes:
        """Return the key of a job from its tokens."""
        state = self.state.copy()
        state.update(tokens)
        key: bytes = state.digest()
        return key


def _digest_of(job: tuple[Any, Array]) -> bytes:
    """Return the digest of one source, from what it begins with."""
    begin, source = job
    if type(begin) is bytes:
        return _large_digest(begin, source)
    state = begin.copy()
    state.update(source)
    return bytes(state.digest())


def _large_digest(key: bytes, source: Array) -> bytes:
    if not source.flags.c_contiguous:
        msg = "an array is not C-contiguous"
        raise ValueError(msg)
    return blake3(source.reshape(-1).view(np.uint8).data, key=key).digest(DIGEST_BYTES)


@lru_cache(maxsize=1024)
def _begin(dtype: str, shape: Shape, nbytes: int) -> Any:
    header = _header(dtype, shape)
    return blake2b(header, digest_size=DIGEST_BYTES) if nbytes < LARGE_BYTES else _large_key(header)


@lru_cache(maxsize=1024)
def _header(dtype: str, shape: Shape) -> bytes:
    return encode((dtype, shape))


@lru_cache(maxsize=1024)
def _large_key(header: bytes) -> bytes:
    return bytes(blake3(header).digest())


def _first_digests(prefix: bytes, rows: bytes | memoryview, width: int, n: int) -> list[bytes]:
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


NO_PARAMS: Final = encode_params({})


class Identity(NamedTuple):
    """What the keys of one op, parameter set and gradient kind are made of, beside scheme, fan-in and tokens.

    `arithmetic` is the class of the machine that computed, as far as the op's bits depend on it; `params` the canonical
    encoding of all parameters.
    `gradient` is ``"ones"`` for packages that hold the VJP of ones, and ``"cotangent"`` for those that hold the VJP of
    a cotangent, whose token is then the last one of the key; ``"jacobian"`` for those that hold Jacobians, and
    ``"none"`` for those of y alone.
    """

    op: str
    version: int
    fingerprint: bytes
    exactness: str
    arithmetic: bytes
    params: bytes
    gradient: str

    @classmethod
    def of(cls, spec: OpSpec, params: Params, gradient: str = "ones") -> Identity:
        """Return that of an op with these parameters as it is now, on this machine.

        Raises
        ------
        ParamError
            The parameters have no encoding.
        """
        encoded = encode_params(params) if params else NO_PARAMS
        arithmetic = arithmetic_class(portable=spec.exactness == "portable", blas=spec.blas)
        if spec.settings is not None:
            arithmetic = digest(arithmetic + encode(spec.settings()))
        return cls(spec.name, spec.version, spec.fingerprint or b"", spec.exactness, arithmetic, encoded, gradient)


def key_prefix(identity: Identity, fan_in: int, scheme: bytes) -> bytes:
    """Return the digest that all keys of one identity, number of sources and scheme (`scheme_of`) begin from."""
    return _prefix(scheme, *identity, fan_in)


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
    return digest(wrapped(b"T", b"".join((*map(encode, before), params, encode(gradient), encode(fan_in)))))


def keys(prefix: bytes, source_tokens: NDArray[np.uint8]) -> list[bytes]:
    """Return the keys of n jobs from their tokens, uint8 of shape (n, k, 16), in source order."""
    n, fan_in = source_tokens.shape[:2]
    return _first_digests(prefix, source_tokens.tobytes(), fan_in * DIGEST_BYTES, n)


def _of_scheme(scheme: bytes) -> Callable[[Identity, NDArray[np.uint8]], list[bytes]]:
    def made(of: Identity, source_tokens: NDArray[np.uint8]) -> list[bytes]:
        fan_in = source_tokens.shape[1] - (of.gradient == "cotangent")
        return keys(_prefix(scheme, *of, fan_in), source_tokens)

    return made


SCHEMES: dict[bytes, Callable[[Identity, NDArray[np.uint8]], list[bytes]]] = {
    scheme: _of_scheme(scheme) for scheme in (b"whiteboard-key-1", b"whiteboard-key-2", b"whiteboard-key-3")
}
"""Every scheme there was: ``SCHEMES[scheme](identity, tokens)`` gives the keys of n jobs, tokens (n, k, 16).

An older one stays, so that `whiteboard.inspection.rekey` can tell what a key was made of.
"""

TOKENS: dict[bytes, Callable[[Array], NDArray[np.uint8]]] = {
    b"whiteboard-key-1": first_tokens,
    b"whiteboard-key-2": first_tokens,
    b"whiteboard-key-3": tokens,
}
"""How the tokens of each scheme are made. Where the present one's are others, only sources give them."""
