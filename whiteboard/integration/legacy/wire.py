"""Frames between the process that unpickles and the one that writes: a JSON header and raw bytes, never a pickle."""

from __future__ import annotations

import json
import math
import os
import re
import select
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Fields = dict[str, Any]
Arrays = list[NDArray[Any]]

_FRAME = struct.Struct("<IQ")
_DTYPE = re.compile(r"[<>|][biufc](1|2|4|8|16)")
_MOST_HEADER, _MOST_BODY = 2**24, 2**31
_READ_BYTES = 2**20


class WireError(Exception):
    """What came over the wire is no frame."""


def send(file: BinaryIO, fields: Fields, arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Write one frame."""
    said = {**fields, "arrays": [[array.dtype.str, array.shape] for array in arrays]}
    header = json.dumps(said).encode()
    body = b"".join(array.tobytes() for array in arrays)
    file.write(_FRAME.pack(len(header), len(body)))
    file.write(header)
    file.write(body)
    file.flush()


class Receiver:
    """Reads frames from a pipe, and does not wait longer than `patience` seconds for any part of one."""

    def __init__(self, fd: int, patience: float) -> None:
        self._fd, self.patience = fd, patience

    def receive(self) -> tuple[Fields, Arrays] | None:
        """Return the next frame, None at the end, also in the middle of a frame.

        Raises
        ------
        TimeoutError
            Nothing came for too long.
        WireError
        """
        prefix = self._read(_FRAME.size)
        if prefix is None:
            return None
        header_length, body_length = _FRAME.unpack(prefix)
        if header_length > _MOST_HEADER or body_length > _MOST_BODY:
            msg = f"a frame of {header_length} and {body_length} bytes"
            raise WireError(msg)
        header, body = self._read(header_length), self._read(body_length)
        if header is None or body is None:
            return None
        try:
            fields = json.loads(header)
            return fields, _arrays(fields.pop("arrays"), body)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            msg = f"a frame that cannot be read: {error!r}"
            raise WireError(msg) from error

    def _read(self, length: int) -> bytes | None:
        data = bytearray()
        while len(data) < length:
            if not select.select([self._fd], [], [], self.patience)[0]:
                msg = f"nothing came for {self.patience:g} s"
                raise TimeoutError(msg)
            part = os.read(self._fd, min(length - len(data), _READ_BYTES))
            if not part:
                return None
            data += part
        return bytes(data)


def _arrays(described: Any, body: bytes) -> Arrays:
    arrays: Arrays = []
    at = 0
    for dtype, shape in described:
        if not _DTYPE.fullmatch(dtype) or not all(type(size) is int and size >= 0 for size in shape):
            msg = f"no array has dtype {dtype!r} and shape {shape!r}"
            raise ValueError(msg)
        kind = np.dtype(dtype)
        count = math.prod(shape)
        arrays.append(np.frombuffer(body, kind, count, at).reshape(shape) if count else np.empty(shape, kind))
        at += count * kind.itemsize
    if at != len(body):
        msg = f"{len(body)} bytes for arrays of {at}"
        raise ValueError(msg)
    return arrays
