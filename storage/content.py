"""What the header and the arrays of a page may be: of package pages what `put` takes, of node pages what a commit does.

Bytes from elsewhere come through here before anything of them is written. Arrays are decoded a few blocks at a time, to
see that they can be, and none is kept but the few that say which rows there are: what a page declares costs no memory.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import CorruptPackageError
from whiteboard.storage import codec
from whiteboard.storage.base import Page
from whiteboard.storage.codec import MAX_BYTES, Data

MOST_ROWS: Final = 2**21
"""No page has more rows: neither one of packages, at 512 bytes each at least, nor one of 32 MiB of nodes."""

MOST_VALUES: Final = 2**18
"""A text of JSON with more values than this is not read: as objects they would be many times their bytes."""

ATTRS: Final = ("theta", "p")

Described = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Dtype and shape of arrays, by name."""

_COLUMN = re.compile(r"a:(y|g(0|[1-9]\d{0,5}))")
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_NODE_COLUMNS = {"ids": np.dtype(np.int64), "versions": np.dtype(np.int64), "fixed": np.dtype(np.bool_)}


def read_json(text: bytes | str) -> Any:
    """What a text of JSON says.

    Raises
    ------
    ValueError
        It is none, in UTF-8, or one of more than `MOST_VALUES` values, or nested too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode()
    if sum(text.count(mark) for mark in ",[{") > MOST_VALUES:
        message = f"it has more than {MOST_VALUES} values"
        raise ValueError(message)
    try:
        return json.loads(text)
    except RecursionError:
        message = "it is nested too deeply"
        raise ValueError(message) from None


def check_packages(header: bytes, data: Data) -> int:
    """Look at a page of packages whose digest fits; returns how many there are.

    Raises
    ------
    CorruptPackageError
        It is none that `put` takes, or an array does not decode.
    """
    meta, arrays, _ = _looked_at(header, data, keep=())
    op, n, cost_ns, lineage = (meta.get(name) for name in ("op", "n", "cost_ns", "lineage"))
    if not isinstance(op, str) or type(n) is not int or type(cost_ns) is not int or not 0 <= cost_ns < 2**63:
        message = "op, n or cost_ns is missing from the header, or is none"
        raise CorruptPackageError(message)
    if lineage is not None and not isinstance(lineage, str):
        message = "the lineage in the header is no text"
        raise CorruptPackageError(message)
    check_arrays(n, arrays)
    return n


def check_page(page: Page) -> None:
    """The same of a page that is decoded.

    Raises
    ------
    CorruptPackageError
    """
    columns: dict[str, NDArray[Any] | None] = {f"a:{name}": array for name, array in page.arrays.items()}
    columns |= {name: getattr(page, name) for name in ("keys", "src_ids", "versions", "tokens")}
    check_arrays(page.n, {name: (each.dtype, each.shape) for name, each in columns.items() if each is not None})


def check_arrays(n: int, arrays: Described) -> None:
    """Raise unless arrays are those of a page of n packages: keys, y, a gradient a source, and provenance.

    Raises
    ------
    CorruptPackageError
    """
    if not 0 < n <= MOST_ROWS:
        message = f"a page of {n} packages, expected 1 to {MOST_ROWS}"
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
            case _:
                right = bool(_COLUMN.fullmatch(name))
        if not right or shape[:1] != (n,):
            message = f"an array {reprlib.repr(name)} of dtype {dtype} and shape {shape} is in no page of {n} packages"
            raise CorruptPackageError(message)
    if missing := {"keys", "a:y"} - arrays.keys():
        message = f"the array {min(missing)!r} is missing"
        raise CorruptPackageError(message)


def check_nodes(uuid: str, number: int, header: bytes, data: Data) -> int:
    """Look at a node page of commit `number` of a system, whose digest fits; returns how many rows it has.

    Raises
    ------
    CorruptPackageError
        It is of another commit, or holds no nodes that `System.add_nodes` takes, or an array does not decode.
    """
    meta, arrays, kept = _looked_at(header, data, keep=("ids", "versions"))
    attr, ids = meta.get("attr"), kept["ids"]
    if (meta.get("system"), meta.get("number")) != (uuid, number) or type(meta["number"]) is not int:
        message = "a node page is that of another commit"
        raise CorruptPackageError(message)
    if attr not in ATTRS:
        message = f"a node page is of an attribute that is none of {', '.join(ATTRS)}"
        raise CorruptPackageError(message)
    if arrays.keys() != {*_NODE_COLUMNS, "values"}:
        message = f"the arrays of a node page are {reprlib.repr(sorted(arrays))}"
        raise CorruptPackageError(message)
    n = len(ids) if ids.ndim else 0
    wrong = [name for name, dtype in _NODE_COLUMNS.items() if arrays[name] != (dtype, (n,))]
    dtype, shape = arrays["values"]
    if dtype not in _FLOATS or not dtype.isnative or shape[:1] != (n,) or (attr == "p" and len(shape) != 2):
        wrong.append("values")
    if not 0 < n <= MOST_ROWS:
        wrong.append("ids")
    if wrong:
        message = f"the {wrong[0]} of a node page are of dtype {arrays[wrong[0]][0]} and shape {arrays[wrong[0]][1]}"
        raise CorruptPackageError(message)
    if (ids[1:] <= ids[:-1]).any() or (kept["versions"] < 0).any():
        message = "the ids of a node page do not ascend, or a version is below 0"
        raise CorruptPackageError(message)
    return n


def _looked_at(
    header: bytes, data: Data, keep: Collection[str]
) -> tuple[dict[str, Any], Described, dict[str, NDArray[Any]]]:
    """Header, dtypes and shapes of a page, and the arrays named in `keep`."""
    arrays: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    kept: dict[str, NDArray[Any]] = {}
    total = 0
    try:
        meta = read_json(header)
        for name, dtype, shape, how, offset, length in meta.pop("arrays"):
            kind, nbytes = codec.described(dtype, shape)
            total += nbytes
            if type(name) is not str or name in arrays or total > MAX_BYTES:
                message = "an array has no name, or one that is there twice, or there are too many"
                raise CorruptPackageError(message)
            if not (type(offset) is int and type(length) is int and offset >= 0 and 0 <= length <= len(data) - offset):
                message = f"array {reprlib.repr(name)} lies outside of the data"
                raise CorruptPackageError(message)
            part = _Part(data, offset, length)
            codec.check(how, part, nbytes)
            arrays[name] = kind, tuple(shape)
            if name in keep and nbytes <= MOST_ROWS * kind.itemsize:
                kept[name] = codec.decode(how, memoryview(part[:]), dtype, shape)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        message = f"the header cannot be read: {error}"
        raise CorruptPackageError(message) from error
    if missing := [name for name in keep if name not in kept]:
        message = f"the array {missing[0]!r} is missing, or is of more than {MOST_ROWS} rows"
        raise CorruptPackageError(message)
    return meta, arrays, kept


class _Part:
    """Some of the data, as data."""

    __slots__ = ("_data", "_length", "_offset")

    def __init__(self, data: Data, offset: int, length: int) -> None:
        self._data, self._offset, self._length = data, offset, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> bytes:
        start, end, _ = part.indices(self._length)
        return self._data[self._offset + start : self._offset + end]
