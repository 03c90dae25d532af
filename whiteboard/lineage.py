"""Lineage: what a page says of how its keys were made, so that a later miss can be told from it."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard import keys
from whiteboard.errors import ParamError, UnknownOpError
from whiteboard.ops import registry
from whiteboard.ops.spec import OpSpec
from whiteboard.types import Params

LONGEST = 80
"""A parameter whose text is longer is recorded by its digest."""


def record(spec: OpSpec, params: Params, gradient: str) -> str:
    """Return the JSON that a page keeps: all that is in its keys beside the tokens.

    version, fingerprint, parts (a digest of each of the op's functions and constants), exactness, arithmetic,
    gradient ("ones" or "cotangent"), and params by name.
    """
    try:
        encoded = keys.encode(dict(params))
    except ParamError:
        return "{}"  # it has no key either, and is not stored
    return _record(spec.name, spec.version, spec.fingerprint, spec.exactness, encoded, gradient, _Texts(params))


class _Texts:
    """Parameters on their way through a cache that goes by their encoding."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Texts)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=1024)
def _record(
    name: str, version: int, fingerprint: bytes | None, exactness: str, encoded: bytes, gradient: str, texts: _Texts
) -> str:
    del encoded
    try:
        parts = {part: digest.hex() for part, digest in registry.parts(name).items()}
    except UnknownOpError:
        parts = {}
    fields: dict[str, Any] = {
        "version": version,
        "fingerprint": (fingerprint or b"").hex(),
        "parts": parts,
        "exactness": exactness,
        "arithmetic": keys.arithmetic_class().hex(),
        "gradient": gradient,
        "params": {key: _text(value) for key, value in sorted(texts.params.items())},
    }
    return json.dumps(fields, separators=(",", ":"))


def _text(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{type(value).__name__} {keys.digest(keys.encode(value)).hex()}"


def short(tokens: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the first 32 bits of tokens, (n, k, 16) to (n, k)."""
    return np.ascontiguousarray(tokens[..., :4]).view("<u4")[..., 0]
