"""From what a caller gives to columns: converted, copied, and refused by name where they will not do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from whiteboard.errors import DtypeError, NonFiniteError, ShapeError
from whiteboard.types import FLOATS, Array, Ids, Shape, is_masked


def plain(value: Any, where: str) -> Array:
    """Return what a caller gives as an array.

    Raises
    ------
    DtypeError
        For a masked array, or a list of some, whose masks would be lost; `where` opens the message.
    ShapeError
        For lists that are no array, as they are not of one length.
    """
    if is_masked(value):
        msg = f"{where}: a masked array is refused: give its filled(…) values, and its mask as a source of its own"
        raise DtypeError(msg)
    try:
        return np.asarray(value)
    except ValueError as error:
        msg = f"{where}: {type(value).__name__} makes no array: {error}"
        raise ShapeError(msg) from error


def ids_column(value: ArrayLike, where: str) -> Ids:
    """Return ids as an int64 array of any shape.

    Raises
    ------
    DtypeError
        For anything but integers that int64 holds; `where` opens the message.
    """
    array = plain(value, where)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu" or (array.dtype == np.uint64 and np.any(array > np.iinfo(np.int64).max)):
        msg = f"{where}: expected integer ids, got dtype {array.dtype}"
        raise DtypeError(msg)
    return np.array(array, np.int64, order="C")


def real_column(value: ArrayLike, where: str) -> Array:
    """Return a column of real numbers, copied; integers become float64.

    Raises
    ------
    DtypeError
        For complex, object, string and structured dtypes; `where` opens the message.
    """
    array = plain(value, where)
    if array.dtype.kind not in "biuf":
        msg = f"{where}: expected real numbers, got dtype {array.dtype}"
        raise DtypeError(msg)
    return np.array(array, array.dtype if array.dtype.kind == "f" else np.float64, order="C")


_HELPS = dict.fromkeys("iubf", "; give x.astype('float64')") | {"c": "; give its real and imaginary parts"}


def check_dtype(dtype: np.dtype, where: str) -> None:
    """Raise `DtypeError`, opened by `where`, unless `dtype` is one that sources may have."""
    if dtype not in FLOATS or not dtype.isnative:
        kinds = {"c": "complex", "i": "integer", "u": "integer", "b": "boolean", "O": "object", "f": "floating"}
        expected = " or ".join(map(str, FLOATS))
        helps = _HELPS.get(dtype.kind, "")
        msg = f"{where}: {kinds.get(dtype.kind, 'non-numeric')} dtype {dtype} is refused, expected {expected}{helps}"
        raise DtypeError(msg)


def numbers(value: ArrayLike, where: str) -> Array:
    """Return what a caller gives as a source: Python's own whole numbers, and lists of them, as float64.

    Raises
    ------
    DtypeError
        For a masked array, and for whole numbers that float64 does not hold; `where` opens the message.
    """
    array = plain(value, where)
    if array.dtype.kind not in "iu" or not isinstance(value, int | list | tuple):
        return array
    made = array.astype(np.float64)
    if np.any(made.astype(array.dtype) != array):
        msg = f"{where}: expected whole numbers that float64 holds, got {array.dtype} beyond 2**53"
        raise DtypeError(msg)
    return made


def attribute(value: ArrayLike, n: int, where: str) -> Array:
    """Return an attribute of n nodes, (n, …), copied.

    Raises
    ------
    DtypeError, ShapeError
    """
    array = np.array(plain(value, where), order="C")
    check_dtype(array.dtype, where)
    if array.ndim == 0 or len(array) != n:
        msg = f"{where}: expected shape ({n}, …), got {array.shape}"
        raise ShapeError(msg)
    return array


def fitted(given: ArrayLike, shape: Shape, dtype: np.dtype[Any], where: str) -> Array:
    """Return a finite value in a node's shape and dtype.

    Raises
    ------
    DtypeError, ShapeError, NonFiniteError
    """
    value = real_column(given, where).astype(dtype)
    if value.shape != shape:
        msg = f"{where}: expected shape {shape}, got {value.shape}"
        raise ShapeError(msg)
    if not np.isfinite(value).all():
        msg = f"{where}: it is not finite"
        raise NonFiniteError(msg)
    return value
