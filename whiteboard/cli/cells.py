"""A value of a table as a cell: for people, in a CSV file, and in JSON; short arrays are shown, long ones by shape."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import numpy as np

SHORT: Final = 16
"""Arrays of so many elements are shown; of longer ones shape and dtype are."""

_SOURCE: Final = re.compile(r"x\d+|cotangent")

Place: TypeAlias = tuple[str, tuple[int, ...]]
"""A column of a CSV file: of a table's column the whole, or an element."""


def spread(row: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """Yield place and text of each cell of a row in a CSV file: a short array is a cell an element.

    Sources that are not there have none, as nothing tells their shape.
    """
    for name, value in row.items():
        array = _array(name, value)
        if array is not None and array.ndim and array.size <= SHORT:
            yield from (((name, index), exact(array[index])) for index in np.ndindex(array.shape))
        elif value is not None or not _SOURCE.fullmatch(name):
            yield (name, ()), exact(value if array is None else array)


def head(column: Place) -> str:
    """Return what a column of a CSV file is called: ``y``, ``y[0]``, ``y[0,1]``."""
    name, index = column
    return f"{name}[{','.join(map(str, index))}]" if index else name


def exact(value: Any) -> str:
    """Return a value with all its digits."""
    if value is None:
        return ""
    if isinstance(value, np.ndarray):
        return str(value[()]) if not value.ndim else _described(value)
    return str(value) if isinstance(value, str | np.generic) else repr(value)


def shown(name: str, value: Any) -> str:
    """Return a value as people read it: ten digits, and of a fingerprint eight."""
    if value is None:
        return "-"
    array = _array(name, value)
    if array is not None:
        return _listed(array.tolist()) if array.size <= SHORT else _described(array)
    if name == "fingerprint":
        return str(value)[:8]
    if isinstance(value, float | np.floating):
        return f"{float(value):.3g}" if name == "cost_seconds" else f"{float(value):.10g}"
    return exact(value)


def plain(value: Any) -> Any:
    """Return a value as JSON has it; what it has not as a text."""
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.size <= SHORT else _described(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def is_number(value: Any) -> bool:
    """Whether a value stands to the right of its column."""
    return value is None or isinstance(value, int | float | np.number)


def _array(name: str, value: Any) -> Any:
    """A value that is an array, or was one: ids and versions of nodes."""
    if isinstance(value, np.ndarray):
        return value
    return np.array(value, np.int64) if name in ("src_ids", "versions") and value is not None else None


def _described(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _listed(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_listed, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
