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
    if mapping is None or any(_mapping(array) is not mapping or not array.flags.c_contiguous for array in arrays):
        return None
    places = [_address(array) for array in arrays]
    ends = [place + array.nbytes for place, array in zip(places, arrays, strict=True)]
    if places[1:] != ends[:-1]:
        return None
    start = places[0] - _address(np.frombuffer(mapping, np.uint8))
    whole = memoryview(mapping)[start : start + ends[-1] - places[0]].toreadonly()
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
