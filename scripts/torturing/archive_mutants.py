"""A valid archive made into hostile ones: every value by every odd one, and digests made to fit again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scripts.torturing.mutants import Mutant, flipped
from whiteboard.storage.commits.log import SEALED, seal
from whiteboard.storage.page.digests import digest_of
from whiteboard.storage.page.format import Blob, pack, unpack
from whiteboard.storage.transfer import archive
from whiteboard.storage.transfer.archive import COMMIT, NODES, PAGE, Reader, Writer

ESCAPES: Final = "\x1b]0;title\x07\x1b[31m\u202egnp.\r\n"

ODD: Final[dict[str, Any]] = {
    "null": None,
    "true": True,
    "-1": -1,
    "0": 0,
    "1": 1,
    "2**31": 2**31,
    "2**63": 2**63,
    "10**30": 10**30,
    "1.5": 1.5,
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "empty": "",
    "x": "x",
    "escapes": ESCAPES,
    "surrogate": "\udc80",
    "long": "n" * 200_000,
    "json": "{}",
    "no-json": "{bad",
    "deep-json": "[" * 100_000,
    "wide-json": "[" + "[]," * 400_000 + "0]",
    "list": [],
    "lists": [[[]]],
    "pair": ["a", 0],
    "object": {},
    "deep": "DEEP",
}
"""Values of JSON, by name. The deep one is written by hand: Python's own writer would not."""

_DEEP: Final = "[" * 50_000 + "]" * 50_000


@dataclass(frozen=True, slots=True)
class Part:
    """A frame, whose digest is made when it is written; `lengths` are those that it claims instead of its own."""

    kind: bytes
    number: int
    header: bytes
    data: bytes | memoryview = b""
    lengths: tuple[int, int] | None = None
    digest: bytes | None = None


def archives(whole: Path, seed: int, flips: int) -> Iterator[Mutant]:
    """Yield all hostile archives that are made of a valid one, and some with flipped bytes."""
    with whole.open("rb") as file:
        parts = [Part(f.kind, f.number, f.header, f.data[:]) for f in Reader(whole, file).frames()][:-1]
    for at in _first_of_each(parts, 2):
        name = f"{parts[at].kind.decode()}{at}"
        yield from _fields(parts, at, name)
        if parts[at].kind in (PAGE, NODES):
            yield from _arrays(parts, at, name)
    yield from _orders(parts)
    yield from _lengths(parts)
    content = whole.read_bytes()
    for number in range(flips):
        yield Mutant(f"bytes:{number}", flipped(content, seed * 1_000_003 + number))


def _first_of_each(parts: Sequence[Part], most: int) -> Iterator[int]:
    seen: dict[bytes, int] = {}
    for at, part in enumerate(parts):
        seen[part.kind] = seen.get(part.kind, 0) + 1
        if seen[part.kind] <= most:
            yield at


def _fields(parts: Sequence[Part], at: int, name: str) -> Iterator[Mutant]:
    """Each field of a header, and of what its lists hold, by each odd value; and headers that are no objects."""
    fields = json.loads(parts[at].header)
    for path in _paths(fields):
        where = f"{name}:{'.'.join(map(str, path))}"
        for label, value in ODD.items():
            yield Mutant(f"{where}={label}", _written(parts, at, _set(fields, path, value)))
        yield Mutant(f"{where} dropped", _written(parts, at, _set(fields, path, None, drop=True)))
    for label, text in {"empty": b"", "no-json": b"{", "utf-16": "{}".encode("utf-16"), "latin": b'{"\xff":1}'}.items():
        yield Mutant(f"{name}:header={label}", _written(parts, at, text))
    for label, value in ODD.items():
        yield Mutant(f"{name}:header={label}", _written(parts, at, _dumped(value)))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        if len(path) < 3:
            yield from _paths(each, (*path, key))


def _set(fields: Any, path: tuple[Any, ...], value: Any, *, drop: bool = False) -> bytes:
    made = json.loads(json.dumps(fields))
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return _dumped(made)


def _dumped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).replace('"DEEP"', _DEEP).encode()


def _arrays(parts: Sequence[Part], at: int, name: str) -> Iterator[Mutant]:
    """Each array of a page of another dtype, shape or content, under another name, twice, or not there."""
    part = parts[at]
    meta, arrays = unpack(Blob(part.header, digest_of(part.header, part.data), part.data))
    for key, array in arrays.items():
        for label, other in chain(_odd_arrays(array), _large(array)):
            yield Mutant(f"{name}:{key} {label}", _packed(parts, at, meta, {**arrays, key: other}))
        rest = {other: each for other, each in arrays.items() if other != key}
        yield Mutant(f"{name}:{key} dropped", _packed(parts, at, meta, rest))
        for label in ("a:g1000000", "a:y ", "ids", "a:", ESCAPES):
            if label not in arrays:
                yield Mutant(f"{name}:{key} named {label!r}", _packed(parts, at, meta, {**rest, label: array}))
    fewer = {key: array[:0] for key, array in arrays.items()}
    yield Mutant(f"{name}: no rows", _packed(parts, at, {**meta, "n": 0}, fewer))
    twice = {key: np.concatenate([array, array]) for key, array in arrays.items()}
    yield Mutant(f"{name}: rows twice", _packed(parts, at, {**meta, "n": 2 * meta.get("n", 0)}, twice))
    many = {key: partial(np.zeros, (3_000_000, *[0] * (array.ndim - 1)), array.dtype) for key, array in arrays.items()}
    keys = {"keys": partial(np.zeros, (3_000_000, 16), np.uint8)} if "keys" in arrays else {}
    yield Mutant(f"{name}: many rows", _packed(parts, at, {**meta, "n": 3_000_000}, {**many, **keys}))


def _odd_arrays(array: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    for dtype in ("i1", "u1", "?", "f2", "f4", "c16", ">f8", "i8", "u4"):
        if np.dtype(dtype) != array.dtype:
            yield f"as {dtype}", array.astype(dtype)
    yield "0-d", np.zeros((), array.dtype)
    yield "one row less", array[:-1]
    yield "one row more", np.concatenate([array, array[:1]])
    yield "one axis more", array[..., None]
    yield "flat", array.reshape(-1)
    yield "empty rows", np.zeros((len(array), 0), array.dtype)
    yield "ones", np.ones_like(array)
    yield "largest", np.full_like(array, np.finfo(array.dtype).max if array.dtype.kind == "f" else 1)
    if array.dtype.kind in "iu":
        yield "negative", np.full_like(array, np.iinfo(array.dtype).min)
        yield "largest integers", np.full_like(array, np.iinfo(array.dtype).max)
    if array.dtype.kind == "f":
        yield "nan", np.full_like(array, np.nan)


def _large(array: NDArray[Any]) -> Iterator[tuple[str, Callable[[], NDArray[Any]]]]:
    """A few bytes on the disk that decode to many; made when they are wanted."""
    zeros = (len(array), 400 * 2**20 // array.itemsize // len(array))
    yield "of 400 MB of zeros", partial(np.zeros, zeros, array.dtype)
    yield "of 200 MB of ones", partial(np.ones, (zeros[0], zeros[1] // 2), array.dtype)


def _packed(parts: Sequence[Part], at: int, meta: dict[str, Any], arrays: dict[str, Any]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        blob = pack(meta, {name: each() if callable(each) else each for name, each in arrays.items()}).joined()
        _write(path, _sealed([*parts[:at], replace(parts[at], header=blob.header, data=blob.data), *parts[at + 1 :]]))

    return make


def _orders(parts: Sequence[Part]) -> Iterator[Mutant]:
    for at, part in enumerate(parts):
        name, rest = f"{part.kind.decode()}{at}", [*parts[:at], *parts[at + 1 :]]
        yield Mutant(f"{name} dropped", _made(rest))
        yield Mutant(f"{name} twice", _made([*parts[:at], part, *parts[at:]]))
        yield Mutant(f"{name} last", _made([*rest, part]))
        yield Mutant(f"{name} second", _made([*rest[:1], part, *rest[1:]]))
    kinds = {part.kind for part in parts}
    for kind in sorted(kinds):
        yield Mutant(f"{kind.decode()} all dropped", _made([part for part in parts if part.kind != kind]))
        for other in sorted(kinds - {kind}):
            at = next(i for i, part in enumerate(parts) if part.kind == kind)
            swapped = [*parts[:at], replace(parts[at], kind=other), *parts[at + 1 :]]
            yield Mutant(f"{kind.decode()} as {other.decode()}", _made(swapped))
    yield Mutant("reversed", _made(list(reversed(parts))))
    yield Mutant("nothing but the end", _made([]))


def _lengths(parts: Sequence[Part]) -> Iterator[Mutant]:
    """Frames that claim to be longer or shorter than they are, with and without a hole of that size behind them."""
    for at in _first_of_each(parts, 1):
        part = parts[at]
        for label, lengths in {
            "header of 4 GB": (2**32 - 1, len(part.data)),
            "header of 1 GB": (10**9, 0),
            "header of 16 MB": (16 * 2**20, 0),
            "data of 2**63": (len(part.header), 2**63),
            "data of 900 MB": (len(part.header), 900 * 10**6),
            "nothing": (0, 0),
        }.items():
            claim = [*parts[:at], replace(part, lengths=lengths)]
            yield Mutant(f"{part.kind.decode()}{at} claims {label}", _made(claim))
            if sum(lengths) < 2**32:
                yield Mutant(f"{part.kind.decode()}{at} claims {label}, a hole", _holed(claim, sum(lengths)))
    yield Mutant("a whole page of 300 MB of holes", _hollow(parts))


def _holed(parts: Sequence[Part], size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        _write(path, parts)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size + size)

    return make


def _hollow(parts: Sequence[Part]) -> Callable[[Path], None]:
    """A page that is valid, and whose data the file system need not store."""

    def make(path: Path) -> None:
        y = np.zeros((1, 300 * 2**20 // 8))
        entries = [["keys", "|u1", [1, 16], "raw", 0, 16], ["a:y", "<f8", list(y.shape), "raw", 16, y.nbytes]]
        header = _dumped({"op": "mul", "n": 1, "cost_ns": 1, "arrays": entries})
        _write(path, [parts[0], Part(PAGE, 1, header, bytes(16 + y.nbytes))])

    return make


def _written(parts: Sequence[Part], at: int, header: bytes) -> Callable[[Path], None]:
    return _made(_sealed([*parts[:at], replace(parts[at], header=header), *parts[at + 1 :]]))


def _made(parts: Sequence[Part]) -> Callable[[Path], None]:
    return lambda path: _write(path, parts)


def _write(path: Path, parts: Sequence[Part]) -> None:
    with path.open("wb") as file:
        writer = Writer(file, archive.whole_digest())
        writer.start()
        for part in parts:
            header, data = part.header, part.data
            digest = digest_of(header, data)
            if part.lengths is None:
                writer.blob(part.kind, part.number, Blob(header, digest, data))
            else:
                writer._write(archive._FRAME.pack(part.kind, part.number, *part.lengths, digest) + header + data)
        writer.done({})


def _sealed(parts: Sequence[Part]) -> list[Part]:
    """The same with each commit's seal over what it says now and over its node pages, where there can be one."""
    made, uuid = list(parts), ""
    for at, part in enumerate(made):
        try:
            fields = json.loads(part.header)
            if part.kind == archive.SYSTEM:
                uuid = fields["uuid"]
            if part.kind == COMMIT:
                pages = [p for p in made[at + 1 : at + 1 + fields["parts"]] if p.kind == NODES]
                values = {name: fields[name] for name in SEALED}
                digests = [digest_of(page.header, page.data) for page in pages]
                made[at] = replace(part, header=_dumped({**fields, "seal": seal(uuid, values, digests).hex()}))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return made
