"""Array and parameter types, and the words that a caller may say."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Ids: TypeAlias = NDArray[np.int64]
Params: TypeAlias = Mapping[str, Any]
Shape: TypeAlias = tuple[int, ...]

OpLike: TypeAlias = str | Callable[..., Any]
"""The name of an op, or the function that it was made of."""

Stale: TypeAlias = Literal["requeue", "raise"]
"""What becomes of a submitted job whose source got a new version before it ran."""

Errors: TypeAlias = Literal["raise", "collect"]
"""What becomes of jobs that fail: raised once the others are done, or returned beside what these gave."""

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
"""The dtypes that sources may have."""


class Blas(IntEnum):
    """Whose BLAS an op may reach: none, NumPy's, or that of any library that is loaded."""

    NONE = 0
    NUMPY = 1
    ANY = 2


class ResultSink(Protocol):
    """Anything with ``publish(result)``: it gets each `OpResult`, or each `BatchResult`, in submission order."""

    def publish(self, result: Any) -> None: ...


def shown(value: Any) -> Any:
    """Return a value as errors tell it: a number of NumPy's as a number."""
    return value.item() if isinstance(value, np.generic) else value


def is_masked(value: object) -> bool:
    """Return whether something is a masked array, or a list of some: masks are lost where it becomes a plain array."""
    # There is none before numpy.ma is imported, which takes 15 ms, nor while another thread is at that.
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    if masked is None:
        return False
    kinds = {type(value), *map(type, value)} if isinstance(value, list | tuple) else {type(value)}
    return any(issubclass(kind, masked) for kind in kinds)


def is_number(value: object) -> bool:
    """Return whether something is a real number, Python's or NumPy's."""
    return isinstance(value, int | float | np.integer | np.floating)


def is_name(name: object) -> bool:
    """Return whether something can be a name: a text of printable characters, at least one."""
    return isinstance(name, str) and bool(name) and name.isprintable()
