"""Traces of JAX's: whether two are one program, and one with constants that nobody else can write to."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

_PLAIN: Final = (str, bytes, bool, int, float, complex, type(None), type(Ellipsis), np.dtype, np.generic, enum.Enum)

_MESHES: Final = ("Mesh", "AbstractMesh")
"""Objects that can be called, and are no functions of the user's."""


def same(a: Any, b: Any) -> bool:
    """Return whether two closed jaxprs are equal but for the names of their variables.

    Of what `jax.jit` made JAX keeps one jaxpr, so that it is compared by identity; a rule of gradients of the user's
    own is a function, and no two are taken for equal.
    """
    if a is b:
        return True
    try:
        return _values(a.consts, b.consts) and _Bodies().equal(a.jaxpr, b.jaxpr)
    except (TypeError, ValueError):  # a constant, such as a random key, that is none of NumPy's
        return False


def owned(closed: Any) -> Any:
    """Return a closed jaxpr with copies of NumPy's constants, in whatever is called inside of it too.

    JAX keeps the arrays that it met, and compiles what they held then: who writes into one would get a value of the old
    contents, a gradient of the new, and both under the name of either.
    """
    consts = [_owned(each) for each in closed.consts]
    jaxpr = _owned_body(closed.jaxpr)
    if jaxpr is closed.jaxpr and all(a is b for a, b in zip(consts, closed.consts, strict=True)):
        return closed
    return closed.replace(jaxpr=jaxpr, consts=consts)


def _owned_body(jaxpr: Any) -> Any:
    eqns = [_owned_equation(each) for each in jaxpr.eqns]
    return jaxpr if all(a is b for a, b in zip(eqns, jaxpr.eqns, strict=True)) else jaxpr.replace(eqns=eqns)


def _owned_equation(equation: Any) -> Any:
    params = {key: _owned(value) for key, value in equation.params.items()}
    if all(params[key] is value for key, value in equation.params.items()):
        return equation
    return equation.replace(params=params)


def _owned(value: Any) -> Any:
    if hasattr(value, "jaxpr") and hasattr(value, "consts"):
        return owned(value)
    if hasattr(value, "eqns") and hasattr(value, "invars"):
        return _owned_body(value)
    if type(value) in (tuple, list):
        parts = type(value)(map(_owned, value))
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else parts
    return _copied(value)


def _copied(value: Any) -> Any:
    """Return a copy of an array: of NumPy's, which JAX may have wrapped, or of JAX's, which may share its memory."""
    import jax

    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(inner := getattr(value, "val", None), np.ndarray):
        return type(value)(inner.copy(), weak_type=value.weak_type)
    if isinstance(value, jax.Array) and getattr(value.dtype, "kind", "") in ("b", "i", "u", "f", "c"):
        return jax.numpy.array(value)
    return value


class _Bodies:
    """Two jaxprs side by side: which variable of the one is which of the other."""

    def __init__(self) -> None:
        self._other: dict[Any, Any] = {}

    def equal(self, a: Any, b: Any) -> bool:
        if not (self._bound(a.constvars, b.constvars) and self._bound(a.invars, b.invars)):
            return False
        if len(a.eqns) != len(b.eqns) or a.effects or b.effects:
            return False
        return all(map(self._equation, a.eqns, b.eqns)) and self._used(a.outvars, b.outvars)

    def _equation(self, a: Any, b: Any) -> bool:
        if a.primitive is not b.primitive or not _contexts(getattr(a, "ctx", None), getattr(b, "ctx", None)):
            return False
        if a.params.keys() != b.params.keys() or not self._used(a.invars, b.invars):
            return False
        return all(_value(a.params[key], b.params[key]) for key in a.params) and self._bound(a.outvars, b.outvars)

    def _bound(self, a: Sequence[Any], b: Sequence[Any]) -> bool:
        self._other |= zip(a, b, strict=False)
        return len(a) == len(b) and all(x.aval == y.aval for x, y in zip(a, b, strict=True))

    def _used(self, a: Sequence[Any], b: Sequence[Any]) -> bool:
        return len(a) == len(b) and all(map(self._atom, a, b))

    def _atom(self, a: Any, b: Any) -> bool:
        if hasattr(a, "val") or hasattr(b, "val"):  # a number in the place of a variable
            return hasattr(a, "val") and hasattr(b, "val") and a.aval == b.aval and _value(a.val, b.val)
        return self._other.get(a) is b


def _contexts(a: Any, b: Any) -> bool:
    """Whether two equations were made under the same settings."""
    if a is b:
        return True
    names: Any = getattr(type(a), "__slots__", None) or getattr(a, "__dict__", ())
    told = [name for name in names if name not in ("__weakref__", "_managers")]
    return type(a) is type(b) and bool(told) and all(_value(getattr(a, key), getattr(b, key)) for key in told)


def _value(a: Any, b: Any) -> bool:
    """Whether two parameters of an equation are equal."""
    if type(a) is not type(b) or callable(a) != callable(b):
        return False
    if hasattr(a, "jaxpr") and hasattr(a, "consts"):
        return same(a, b)
    if hasattr(a, "eqns") and hasattr(a, "invars"):
        return a is b or _Bodies().equal(a, b)
    if isinstance(a, tuple | list):
        return _values(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_value(a[key], b[key]) for key in a)
    if isinstance(a, _PLAIN):
        return bool(_bits(a) == _bits(b))
    if hasattr(a, "dtype") and hasattr(a, "__array__"):
        return bool(_bits(np.asarray(a)) == _bits(np.asarray(b)))
    if isinstance(a, type) and a.__module__ == "numpy":
        return a is b
    if callable(a) and type(a).__name__ not in _MESHES:
        return False
    return a is b and type(a).__name__ != "WrappedFun"


def _values(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(map(_value, a, b))


def _bits(value: Any) -> Any:
    """What tells two plain values apart, −0.0 from 0.0 and one NaN from another."""
    if isinstance(value, float | complex | np.generic | np.ndarray):
        array = np.asarray(value)
        return array.dtype, array.shape, array.tobytes()
    return value
