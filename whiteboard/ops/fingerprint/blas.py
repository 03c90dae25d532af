"""Which names of libraries may lead to BLAS, whose bits depend on its number of threads: all but those known not to.

Those of NumPy and of what is made of it lead to NumPy's, and those of others to one that they may have brought.
"""

from __future__ import annotations

import ast
import operator
import sys
from typing import Any, Final

import numpy as np

from whiteboard.types import Blas

_NUMPY: Final = frozenset(
    (
        "sum mean var std average max min amax amin ptp prod cumsum cumprod nansum nanmean nanmax nanmin any all "
        "argmax argmin argsort sort unique searchsorted where select piecewise clip nonzero flatnonzero count_nonzero "
        "reshape ravel transpose swapaxes moveaxis rollaxis concatenate stack vstack hstack dstack column_stack split "
        "array_split expand_dims squeeze broadcast_to broadcast_arrays broadcast_shapes tile repeat roll flip fliplr "
        "flipud rot90 take take_along_axis append pad diff diag diagonal tril triu nan_to_num real imag angle round "
        "around isclose allclose array_equal isscalar ndim shape size zeros ones full empty zeros_like ones_like "
        "full_like empty_like arange linspace logspace geomspace eye identity meshgrid indices array asarray "
        "asanyarray ascontiguousarray asfortranarray copy atleast_1d atleast_2d atleast_3d ndarray dtype float64 "
        "float32 int64 int32 intp bool bool_ double single pi e euler_gamma inf nan newaxis finfo iinfo errstate sinc "
        "heaviside result_type"
    ).split()
)
"""Functions and values of NumPy that stay off BLAS, and whose gradients by autograd do; and so do its ufuncs."""

_REACHING: Final = frozenset(("dot", "matmul", "imatmul", "vecdot", "matvec", "vecmat", "__matmul__", "__rmatmul__"))
_INDIRECT: Final = frozenset(("getattr", "methodcaller", "attrgetter", "eval", "exec", "__import__"))


def named(dotted: str) -> Blas:
    """Return whose BLAS a library's name may lead to."""
    parts = dotted.split(".")
    if parts[0] in sys.stdlib_module_names:
        return _numpys(not (_REACHING | _INDIRECT).isdisjoint(parts))
    if parts[:2] == ["autograd", "numpy"]:
        parts = ["numpy", *parts[2:]]
        if len(parts) > 2 and parts[1] in ("numpy_wrapper", "numpy_boxes"):
            del parts[1]
    if parts[:2] in (["scipy", "special"], ["autograd", "builtins"], ["autograd", "extend"]):
        return Blas.NONE
    if parts[0] not in ("numpy", "autograd") or parts[:2] == ["autograd", "scipy"]:
        return Blas.ANY
    return _numpys(len(parts) == 1 or (parts[1] not in _NUMPY and not _is_plain(getattr(np, parts[1], None))))


def held(value: object) -> Blas:
    """Return whose BLAS a value that a function names may lead to: an array's method, or what calls one by its name."""
    if isinstance(value, operator.methodcaller | operator.attrgetter):
        return Blas.NUMPY
    name = getattr(value, "__name__", None) if callable(value) else None
    return _numpys(isinstance(name, str) and name in _REACHING)


def _numpys(reached: bool) -> Blas:
    return Blas.NUMPY if reached else Blas.NONE


def _is_plain(value: Any) -> bool:
    """Whether it is a ufunc of elements, and not one of vectors."""
    return isinstance(value, np.ufunc) and value.signature is None


def written(node: ast.AST) -> Blas:
    """Return whose BLAS a function's own text may reach: by ``@``, or by a method of an array."""
    return _numpys(
        any(
            isinstance(each, ast.MatMult) or (isinstance(each, ast.Attribute) and each.attr in _REACHING)
            for each in ast.walk(node)
        )
    )
