"""Archives made by hand: frames that say anything, with digests and seals that all fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard.storage.commits.log import seal
from whiteboard.storage.page.digests import digest_of
from whiteboard.storage.page.format import Blob, pack
from whiteboard.storage.transfer import archive
from whiteboard.storage.transfer.archive import COMMIT, HEAD, NODES, PAGE, SYSTEM, Writer

UUID = "u" * 32
Write = Callable[[Writer], None]


def made(path: Path, *writes: Write) -> Path:
    """An archive of what some functions write, between a first and a last frame."""
    with path.open("wb") as file:
        writer = Writer(file, archive.whole_digest())
        writer.start()
        writer.fields(HEAD, 1, {"source": "0"})
        for write in writes:
            write(writer)
        writer.done({})
    return path


def raw(kind: bytes, header: bytes, data: bytes = b"", number: int = 0) -> Write:
    """A frame of these very bytes."""
    return lambda writer: writer.blob(kind, number, Blob(header, digest_of(header, data), data))


def system(name: object = "evil", **more: Any) -> Write:
    """The frame of a system, with other fields than it should have."""
    fields = {"name": name, "uuid": UUID, "spec": None, "origin": None, **more}
    return lambda writer: writer.fields(SYSTEM, 0, fields)


def nodes(meta: Mapping[str, Any] | None = None, drop: str = "", **arrays: NDArray[Any]) -> Blob:
    """A page of three nodes, with other arrays than it should have."""
    columns: dict[str, NDArray[Any]] = {
        "ids": np.arange(3, dtype=np.int64),
        "versions": np.zeros(3, np.int64),
        "fixed": np.zeros(3, np.bool_),
        "values": np.ones((3, 2)),
        **arrays,
    }
    columns.pop(drop, None)
    return pack({"system": UUID, "number": 0, "attr": "theta", **(meta or {})}, columns).joined()


def commit(*blobs: Blob, parts: object = None, uuid: str = UUID, sealed: object = None, **odd: Any) -> Write:
    """A first commit and its node pages, sealed over whatever it says."""
    values: dict[str, Any] = {"number": 0, "parent": None, "changed": 3, "stress": None, "residual_norm": None}
    values |= {"digest": "0" * 32, "rows": 3 * len(blobs), "keyframe": 1, **odd}
    seal_of = seal(uuid, values, [blob.digest for blob in blobs]).hex() if sealed is None else sealed
    fields = {**values, "seal": seal_of, "parts": len(blobs) if parts is None else parts}

    def write(writer: Writer) -> None:
        writer.fields(COMMIT, 0, fields)
        for part, blob in enumerate(blobs):
            writer.blob(NODES, part, blob)

    return write


def page(meta: Mapping[str, Any] | None = None, n: int = 1, drop: str = "", **arrays: NDArray[Any]) -> Write:
    """A page of packages, with another header or other arrays than it should have."""
    columns: dict[str, NDArray[Any]] = {"keys": np.arange(16 * n, dtype=np.uint8).reshape(n, 16)}
    columns |= {"a:y": np.zeros((n, 1)), "a:g0": np.zeros((n, 1))}
    columns |= {name.replace("__", ":"): array for name, array in arrays.items()}
    columns.pop(drop, None)
    blob = pack({"op": "tanh", "n": n, "cost_ns": 1, **(meta or {})}, columns).joined()
    return lambda writer: writer.blob(PAGE, 1, blob)


def named(spec: object) -> list[Write]:
    """A whole system of some specification."""
    return [system(spec=spec), commit(nodes())]
