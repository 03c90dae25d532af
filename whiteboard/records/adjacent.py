"""Arrays of several pages as one, where they lie one behind the other in memory."""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Ref(weakref.ref["NDArray[Any]"]):
    """To an array, which has no hash."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


_kept: dict[_Ref, Sequence[NDArray[Any]]] = {}
"""What lies in the memory of an array, for as long as there is a view of it. The callback is C's, as no interrupt comes
into one."""


def together(arrays: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
    """Return arrays, (n, …), of one dtype and shape of a row as one, if they lie one behind the other in a mapping.

    Returns
    -------
    ndarray, shape (Σn, …), or None
        Read-only, and a view: nothing is copied, and what each array keeps alive lives as long.
    """
    mapping = _mapping(arrays[0])
    if mapping is None:
        return None
    first = end = _address(arrays[0])
    for array in arrays:
        if _address(array) != end or not array.flags.c_contiguous:
            return None
        end += array.nbytes
    start = first - _address(np.frombuffer(mapping, np.uint8))
    whole = memoryview(mapping)[start : start + end - first].toreadonly()
    if len(whole) != end - first:
        return None
    joined = np.frombuffer(whole, arrays[0].dtype)
    _kept[_Ref(joined, _kept.pop)] = arrays
    return joined.reshape(sum(map(len, arrays)), *arrays[0].shape[1:])


def _mapping(array: NDArray[Any]) -> mmap.mmap | None:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    owner = base.obj if isinstance(base, memoryview) else base
    return owner if isinstance(owner, mmap.mmap) else None


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
