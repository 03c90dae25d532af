"""NumPy values as bytes that tell apart whatever a function can tell apart: dtype, shape, layout, value."""

from __future__ import annotations

from typing import Any

import numpy as np

from whiteboard.ops.fingerprint.walk import Walk
from whiteboard.ops.fingerprint.watch import is_writable


def scalar_parts(value: np.generic) -> tuple[str, bytes]:
    """Return dtype and bytes of a NumPy scalar; a long double has bytes of no meaning, so its value's stand for it."""
    dtype = value.dtype.str
    if isinstance(value, np.longdouble | np.clongdouble):
        parts = (value.real, value.imag) if isinstance(value, np.clongdouble) else (value,)
        return dtype, " ".join(_exact(part) for part in parts).encode()
    return dtype, value.tobytes()


def _exact(value: Any) -> str:
    """A floating number as a text that no other has, but for the payload of a NaN."""
    if np.isnan(value) or np.isinf(value):
        return str(float(value))
    sign = "-" if np.signbit(value) else ""
    top, bottom = abs(value).as_integer_ratio()
    return f"{sign}{top:x}/{bottom:x}"


def array_parts(array: np.ndarray[Any, Any]) -> tuple[str, str, bytes]:
    """Return dtype, shape and layout, and the bytes in C order of an array; the layout is empty for C order."""
    steps = [step for step, n in zip(array.strides, array.shape, strict=True) if n > 1]
    layout = "" if array.flags.c_contiguous else f" strides {steps}"
    return array.dtype.str, f"{array.shape}{layout}", array.tobytes()


def write(walk: Walk, value: Any, where: str, *_: object) -> bool:
    """Write a value of NumPy's; an array has to be read-only."""
    if isinstance(value, np.dtype):
        walk.put("dtype", value.str, repr(value))
    elif isinstance(value, np.generic) and type(value).__module__ == "numpy" and value.dtype.kind not in "OV":
        walk.put("scalar", *scalar_parts(value))
    elif type(value) is np.ndarray and value.dtype.kind in "biufc":
        if is_writable(value):
            walk.refuse(f"{where} is an array that can be written to; make it read-only, or pass it as a source")
        walk.put("array", *array_parts(value))
        walk.watch.array(value)
    else:
        return False
    return True
