"""What the header and the arrays of a page may be: of package pages what `put` takes, of node pages what a commit does.

Bytes from elsewhere come through here before anything of them is written. Arrays are decoded a few blocks at a time, to
see that they can be, and none is kept but the few that say which rows there are: what a page declares costs no memory.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError
from whiteboard.records.packages import Page
from whiteboard.records.systems import is_attr
from whiteboard.storage.page import codec, row_checks
from whiteboard.storage.page.codec import Data
from whiteboard.storage.page.digests import Laid, is_intact
from whiteboard.storage.page.format import is_source, named_sources, taken_sources

Described = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Dtype and shape of arrays, by name."""

_COLUMN = re.compile(r"a:(y|g(0|[1-9]\d{0,5}))")
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_NODE_COLUMNS = {"ids": np.dtype(np.int64), "versions": np.dtype(np.int64), "fixed": np.dtype(np.bool_)}


def checked(page: Laid) -> int:
    """Look at a page of packages; returns how many there are.

    Raises
    ------
    CorruptPackageError
        Its digest does not fit, it is none that `put` takes, or an array does not decode.
    """
    if not is_intact(page):
        message = "the digest does not fit the bytes"
        raise CorruptPackageError(message)
    return check_packages(page)


def check_packages(page: Laid) -> int:
    """The same of a page whose digest fits."""
    meta, arrays = entries(page)
    try:
        row_checks.page(meta.get("op"), meta.get("n"), meta.get("cost_ns"), meta.get("lineage"))
    except ValueError as error:
        raise CorruptPackageError(str(error)) from error
    n: int = meta["n"]
    check_arrays(n, {name: (entry.dtype, entry.shape) for name, entry in arrays.items()})
    for entry in arrays.values():
        entry.check()
    return n


def check_page(page: Page) -> None:
    """The same of a page that is decoded.

    Raises
    ------
    CorruptPackageError
    """
    columns: dict[str, NDArray[Any] | None] = {f"a:{name}": array for name, array in page.arrays.items()}
    columns |= named_sources(page)
    columns |= {name: getattr(page, name) for name in ("keys", "src_ids", "versions", "tokens")}
    check_arrays(page.n, {name: (each.dtype, each.shape) for name, each in columns.items() if each is not None})
    try:
        row_checks.page(page.op, page.n, page.cost_ns, page.lineage)
    except ValueError as error:
        raise CorruptPackageError(str(error)) from error


def rows(page: Laid, start: int, end: int, only: Collection[str] | None = None) -> Page:
    """Some rows of a page of packages that was looked at, and their share of its cost; no others are decoded."""
    return _rows(*entries(page), start, end, lambda name: only is None or name in only)


def _rows(meta: dict[str, Any], arrays: dict[str, Entry], start: int, end: int, wanted: Callable[[str], bool]) -> Page:
    found = {name: entry.rows(start, end) for name, entry in arrays.items() if wanted(name)}
    cost = meta["cost_ns"] * (end - start) // meta["n"]
    keys, ids, versions, tokens = (found.pop(name, None) for name in ("keys", "src_ids", "versions", "tokens"))
    sources = taken_sources(found)
    named = {name.removeprefix("a:"): array for name, array in found.items()}
    assert keys is not None
    return Page(meta["op"], keys, named, cost, ids, versions, meta.get("lineage"), tokens, sources)


def check_arrays(n: int, arrays: Described) -> None:
    """Raise unless arrays are those of a page of n packages: keys, y, a gradient a source, provenance, and sources.

    Raises
    ------
    CorruptPackageError
    """
    if not 0 < n <= row_checks.MOST_ROWS:
        message = f"a page of {n} packages, expected 1 to {row_checks.MOST_ROWS}"
        raise CorruptPackageError(message)
    sources = arrays.get("src_ids", arrays.get("versions", (None, (n, 0))))[1]
    for name, (dtype, shape) in arrays.items():
        match name:
            case "keys":
                right = dtype == np.uint8 and shape == (n, 16)
            case "src_ids" | "versions":
                right = dtype == np.int64 and len(shape) == 2 and shape == sources
            case "tokens":
                right = (dtype == np.uint8 and len(shape) == 3 and shape[2] == 16) or (
                    dtype == np.uint32 and len(shape) == 2
                )
            case _ if is_source(name):
                right = _is_kept(int(name[1:]), dtype, shape, arrays)
            case _:
                right = bool(_COLUMN.fullmatch(name))
        if not right or shape[:1] != (n,):
            message = f"an array {reprlib.repr(name)} of dtype {dtype} and shape {shape} is in no page of {n} packages"
            raise CorruptPackageError(message)
    if missing := {"keys", "a:y"} - arrays.keys():
        message = f"the array {min(missing)!r} is missing"
        raise CorruptPackageError(message)


def _is_kept(slot: int, dtype: np.dtype[Any], shape: tuple[int, ...], arrays: Described) -> bool:
    """Whether a page may keep a source: of the dtype and shape that its gradient or Jacobian has, one a token."""
    _, tokens = arrays.get("tokens", (dtype, ()))
    few = len(tokens) == 3 and f"x{tokens[1] - 1}" not in arrays
    alone = slot > 0 and f"x{slot - 1}" not in arrays
    beside, (_, y) = arrays.get(f"a:g{slot}", (dtype, shape)), arrays.get("a:y", (dtype, ()))
    alike = beside in ((dtype, shape), (dtype, (*y, *shape[1:])))
    return dtype in _FLOATS and alike and not (few or alone) and (len(tokens) != 3 or slot < tokens[1])


def check_nodes(uuid: str, number: int, page: Laid) -> int:
    """Look at a node page of commit `number` of a system, whose digest fits; returns how many rows it has.

    Raises
    ------
    CorruptPackageError
        It is of another commit, or holds no nodes that `System.add_nodes` takes, or an array does not decode.
    """
    meta, arrays = entries(page)
    attr = meta.get("attr")
    if (meta.get("system"), meta.get("number")) != (uuid, number) or type(meta["number"]) is not int:
        message = "a node page is that of another commit"
        raise CorruptPackageError(message)
    if not is_attr(attr):
        message = f"a node page is of an attribute {reprlib.repr(attr)}, which can be none"
        raise CorruptPackageError(message)
    if arrays.keys() != {*_NODE_COLUMNS, "values"}:
        message = f"the arrays of a node page are {reprlib.repr(sorted(arrays))}"
        raise CorruptPackageError(message)
    n = (*arrays["ids"].shape, 0)[0]
    wrong = [name for name, dtype in _NODE_COLUMNS.items() if (arrays[name].dtype, arrays[name].shape) != (dtype, (n,))]
    values = arrays["values"]
    if values.dtype not in _FLOATS or values.shape[:1] != (n,) or (attr == "p" and len(values.shape) != 2):
        wrong.append("values")
    if not 0 < n <= row_checks.MOST_ROWS:
        wrong.append("ids")
    if wrong:
        odd = arrays[wrong[0]]
        message = f"the {wrong[0]} of a node page are of dtype {odd.dtype} and shape {odd.shape}"
        raise CorruptPackageError(message)
    for entry in arrays.values():
        entry.check()
    ids, versions = (arrays[name].rows(0, n) for name in ("ids", "versions"))
    if (ids[1:] <= ids[:-1]).any() or (versions < 0).any():
        message = "the ids of a node page do not ascend, or a version is below 0"
        raise CorruptPackageError(message)
    return n


def entries(page: Laid) -> tuple[dict[str, Any], dict[str, Entry]]:
    """What the header of a page says beside its arrays, and where these lie; none is decoded.

    Raises
    ------
    CorruptPackageError
    """
    meta, said = described(page.header)
    try:
        room = len(page.data)
    except TypeError as error:
        message = f"the data cannot be read: {error}"
        raise CorruptPackageError(message) from error
    for name, each in said.items():
        if each.end > room:
            message = f"array {reprlib.repr(name)} lies outside of the data"
            raise CorruptPackageError(message)
    codec.check_total(((each.codec, each.nbytes) for each in said.values()), room)
    return meta, {name: each.of(page.data) for name, each in said.items()}


def described(header: bytes) -> tuple[dict[str, Any], dict[str, Place]]:
    """The same of a header alone: where the arrays are to lie in the data.

    Raises
    ------
    CorruptPackageError
    """
    found: dict[str, Place] = {}
    try:
        meta = row_checks.read_json(header)
        meta.pop("blocks", None)
        for name, dtype, shape, how, offset, length in meta.pop("arrays"):
            if type(name) is not str or name in found:
                message = f"array name {reprlib.repr(name)} is no name, or there twice"
                raise CorruptPackageError(message)
            if not (type(offset) is type(length) is int and offset >= 0 and length >= 0):
                message = f"array {reprlib.repr(name)} lies outside of the data"
                raise CorruptPackageError(message)
            kind, nbytes = codec.described(dtype, shape)
            found[name] = Place(kind, tuple(shape), how, nbytes, offset, length)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        message = f"the header cannot be read: {error}"
        raise CorruptPackageError(message) from error
    codec.check_total((place.codec, place.nbytes) for place in found.values())
    return meta, found


@dataclass(frozen=True, slots=True)
class Place:
    """An array as the header of a page describes it, and where it lies in the data."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    codec: object
    nbytes: int
    offset: int
    length: int

    @property
    def end(self) -> int:
        """Where it ends in the data."""
        return self.offset + self.length

    def of(self, data: Data) -> Entry:
        """The array in the data of a page."""
        part = self.payload(data)
        step = self.step
        if step is None:
            return Entry(self.dtype, self.shape, self.codec, self.nbytes, part)
        rows = _Rows(part, self.nbytes, self.nbytes // self.shape[0], step)
        return Entry(self.dtype, self.shape, codec.RAW, self.nbytes, rows)

    def payload(self, data: Data) -> Data:
        """What lies there."""
        return _Part(data, self.offset, self.length)

    @property
    def step(self) -> int | None:
        """How many bytes apart its rows begin; None where they do not lie beside those of other arrays.

        Raises
        ------
        CorruptPackageError
        """
        if self.codec != codec.ROWS:
            return None
        return codec.row_step(self.length, self.shape[0] if self.shape else 0, self.nbytes)


@dataclass(frozen=True, slots=True)
class Entry:
    """An array as the header of a page describes it, and its part of the data."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    codec: object
    nbytes: int
    payload: Data

    def check(self) -> None:
        """Raise `CorruptPackageError` unless it can be decoded."""
        codec.check(self.codec, self.payload, self.nbytes)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.nbytes // max(1, self.shape[0])

    def part(self, start: int, end: int) -> NDArray[Any]:
        """Its elements from one byte to another, read-only, (m,)."""
        data = codec.decode_part(self.codec, self.payload, self.nbytes, start, end)
        array: NDArray[Any] = np.ndarray((end - start) // self.dtype.itemsize, self.dtype, buffer=data)
        array.flags.writeable = False
        return array

    def rows(self, start: int, end: int) -> NDArray[Any]:
        """Some of its rows, read-only."""
        return self.part(start * self.row_bytes, end * self.row_bytes).reshape(end - start, *self.shape[1:])


class _Part:
    """Some of the data, as data."""

    __slots__ = ("_data", "_length", "_offset")

    def __init__(self, data: Data, offset: int, length: int) -> None:
        self._data, self._offset, self._length = data, offset, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> bytes | memoryview:
        start, end, _ = part.indices(self._length)
        return self._data[self._offset + start : self._offset + end]


class _Rows:
    """The rows of an array, without those of others between them, as data."""

    __slots__ = ("_data", "_length", "_row", "_step")

    def __init__(self, data: Data, length: int, row: int, step: int) -> None:
        self._data, self._length, self._row, self._step = data, length, row, step

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> bytes:
        start, end, _ = part.indices(self._length)
        if start >= end:
            return b""
        first, last = start // self._row, (end - 1) // self._row
        found = self._data[first * self._step : last * self._step + self._row]
        rows: NDArray[np.uint8] = np.ndarray((last - first + 1, self._row), np.uint8, found, strides=(self._step, 1))
        return rows.tobytes()[start - first * self._row : end - first * self._row]
