"""Lineage: what a page says of how its keys were made, so that a later miss can be told from it."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import UnknownOpError
from whiteboard.identity import keys
from whiteboard.ops import registry
from whiteboard.ops.fingerprint.encoding import encode, encode_params
from whiteboard.types import Params

LONGEST: Final = 80
"""A parameter whose text is longer is recorded by its digest."""

WHOLE: Final = 16
"""An array of more elements is recorded by its digest."""

LONGEST_ENCODING: Final = 4096
"""Parameters of so many bytes, encoded, can be recorded; each page holds them, and larger ones it does without."""

FIRST_SCHEME: Final = b"whiteboard-key-1"
"""That of pages that do not name theirs."""


def record(identity: keys.Identity, params: Params, scheme: bytes) -> str:
    """Return the JSON that a page keeps: all that is in its keys, of this scheme, beside the tokens.

    scheme, version, fingerprint, parts (a digest of each of the op's functions and constants), exactness,
    arithmetic, gradient ("ones", "cotangent", "jacobian" or "none"), params by name, and, where there are any, encoded:
    the hex of their canonical encoding.
    """
    return _record(scheme, identity, _Texts(params))


class _Texts:
    """Parameters on their way through a cache that goes by their encoding."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Texts)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=1024)
def _record(scheme: bytes, identity: keys.Identity, texts: _Texts) -> str:
    fields: dict[str, Any] = {
        "scheme": scheme.decode(),
        "version": identity.version,
        "fingerprint": identity.fingerprint.hex(),
        "parts": _parts(identity.op, of=identity.fingerprint),
        "exactness": identity.exactness,
        "arithmetic": identity.arithmetic.hex(),
        "gradient": identity.gradient,
        "params": {key: _text(value) for key, value in sorted(texts.params.items())},
    }
    if identity.params != keys.NO_PARAMS and len(identity.params) <= LONGEST_ENCODING:
        fields["encoded"] = identity.params.hex()
    return _json(fields)


def _parts(name: str, *, of: bytes) -> dict[str, str]:
    """The parts of an op, where it is registered with this fingerprint."""
    try:
        known = registry.get(name).fingerprint == of
        return {part: digest.hex() for part, digest in registry.parts(name).items()} if known else {}
    except UnknownOpError:
        return {}


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"))


def _text(value: Any) -> str:
    """A parameter as people read it; what is long, or an array's repr may leave out, is told by its digest."""
    text = ""
    if not (isinstance(value, np.ndarray) and value.size > WHOLE):
        with suppress(Exception):  # a number of thousands of digits, or a repr of the user's own
            text = " ".join(repr(value).split())
    return text if 0 < len(text) <= LONGEST else f"{type(value).__name__} {keys.digest(encode(value)).hex()}"


@dataclass(frozen=True, slots=True)
class Said:
    """What a page says of its keys; `params` is None where it does not say their encoding.

    Nothing vouches for it but a key that comes out of it.
    """

    scheme: bytes
    version: int
    fingerprint: bytes
    exactness: str
    arithmetic: bytes
    gradient: str
    params: bytes | None
    now: bytes | None
    """The parameters in the encoding of the present schemes; None where what the page says of them has several."""
    was: str
    """The fingerprint that its packages had before they were rekeyed, in hex; empty for what is as it was computed."""
    texts: Mapping[str, str]
    """The parameters as people read them."""

    def identity(self, op: str) -> keys.Identity | None:
        """All that is in its keys beside the tokens, where the page says all of it."""
        if self.params is None:
            return None
        return keys.Identity(
            op, self.version, self.fingerprint, self.exactness, self.arithmetic, self.params, self.gradient
        )


def said(record: str | None) -> Said | None:
    """Read what `record` wrote, this version or an earlier one; None where it cannot be understood."""
    try:
        fields = json.loads(record or "")
        found = Said(
            fields["scheme"].encode() if "scheme" in fields else FIRST_SCHEME,
            fields["version"],
            bytes.fromhex(fields["fingerprint"]),
            fields["exactness"],
            bytes.fromhex(fields["arithmetic"]),
            fields["gradient"],
            _encoded(fields),
            _now(fields),
            fields.get("was", ""),
            dict(fields["params"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    texts = (found.exactness, found.gradient, found.was, *found.texts.values())
    return found if type(found.version) is int and all(isinstance(text, str) for text in texts) else None


def renewed(record: str, identity: keys.Identity, scheme: bytes) -> str:
    """Return the record of packages whose keys are of this identity and scheme now.

    What has changed of the code is known where the op is registered with that fingerprint.
    """
    fields = json.loads(record)
    fields["scheme"] = scheme.decode()
    code = {"version": identity.version, "fingerprint": identity.fingerprint.hex()}
    if any(fields[name] != value for name, value in code.items()):
        parts = _parts(identity.op, of=identity.fingerprint)
        fields |= {"was": fields["fingerprint"], **code, "parts": parts}
    if identity.params != keys.NO_PARAMS and len(identity.params) <= LONGEST_ENCODING:
        fields["encoded"] = identity.params.hex()
    return _json(fields)


def _encoded(fields: Mapping[str, Any]) -> bytes | None:
    """The encoding of the parameters: as it is recorded, or from their texts, which is all that older pages have."""
    if "encoded" in fields:
        return bytes.fromhex(fields["encoded"])
    return None if (params := _constants(fields["params"])) is None else _scheme(fields)(params)


def _now(fields: Mapping[str, Any]) -> bytes | None:
    """The parameters in the present encoding. Scheme 1 took several for one: which it was, only their texts tell."""
    if _scheme(fields) is encode_params:
        return _encoded(fields)
    params = _constants(fields["params"])
    if params is None or keys.encode_first(params) != _encoded(fields):
        return None
    return encode_params(params)


def _scheme(fields: Mapping[str, Any]) -> Callable[[Params], bytes]:
    return keys.encode_first if fields.get("scheme", FIRST_SCHEME.decode()) == FIRST_SCHEME.decode() else encode_params


def _constants(texts: Mapping[str, str]) -> dict[str, Any] | None:
    """Parameters from their texts, where these are whole and of Python's own constants."""
    if any(len(text) > LONGEST for text in texts.values()):
        return None
    try:
        return {name: ast.literal_eval(text) for name, text in texts.items()}
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def apart(stored: NDArray[Any], tokens: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether a page's tokens are not those of a job, (n, k); of pages with their first 32 bits, those are compared."""
    if stored.ndim == 2:
        return np.asarray(stored != np.ascontiguousarray(tokens[:, :4]).view("<u4")[:, 0])
    return np.asarray((stored != tokens).any(axis=-1))
