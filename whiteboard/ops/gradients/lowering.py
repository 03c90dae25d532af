"""The programs that a function of JAX's lowers to, one a signature: StableHLO with its constants, as a fingerprint.

What the function reads when it is traced (globals, closures, arrays, files) is in the program, wherever it was, and so
is what `jax.jit` made of it. So it is traced anew for each look: 0.3 ms and more. Lowering, some 10 ms, is spared where
the trace is what it was.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from whiteboard.concurrency import locks
from whiteboard.errors import DtypeError, ParamError
from whiteboard.ops.fingerprint.encoding import encode_params
from whiteboard.ops.fingerprint.walk import Fingerprint, declared
from whiteboard.ops.gradients.function import Function, imported
from whiteboard.ops.gradients.jaxprs import same
from whiteboard.types import Params, Shape

MOST: Final = 64
"""So many signatures of a function are remembered."""

ROWS: Final = 2
"""Of a function of n jobs at once the program for so many stands for all."""

_CALL: Final = re.compile(r"custom_call\s*@([\w.$\"-]+)")
_SHOWN: Final = re.compile(
    r"lapack_\w+|blas_\w+|Sharding|SPMDFullToShardShape|SPMDShardToFullShape|annotate_device_placement"
)
"""Calls of what comes with jaxlib; what any other does the program does not show."""


@dataclass(frozen=True, slots=True)
class _Lowered:
    """A trace, the settings under which it was lowered, and what came of it."""

    traced: Any
    settings: dict[str, Any]
    fingerprint: Fingerprint


class Programs:
    """The programs of one function; called as `rule.Program` says."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._known: OrderedDict[Any, _Lowered] = OrderedDict()
        self._lock = locks.lock()

    def __call__(
        self, rules: tuple[str, str, str, int], shapes: tuple[Shape, ...], dtype: np.dtype[Any], params: Params
    ) -> tuple[bytes | None, str]:
        """Return the fingerprint for sources of these shapes, or why there is none.

        Raises
        ------
        DtypeError
            JAX would compute in another dtype.
        MissingExtraError
        """
        jax = set_up(self._function.name, dtype)
        try:
            traced = _traced(jax, self._function, _structs(jax, self._function, shapes, dtype), params)
        except Exception as error:
            return None, f"JAX cannot trace it without values: {_told(error)}"
        settings = dict(jax.config.values)
        signature = (rules, shapes, dtype.str, _encoded(params))
        known = self._known.get(signature)
        if (
            known is None
            or known.settings != settings
            or not known.fingerprint.holds()
            or not same(known.traced, traced)
        ):
            known = _Lowered(traced, settings, _fingerprint(jax, traced, rules, self._function.reads))
            self._remember(signature, known)
        return known.fingerprint.digest, known.fingerprint.opaque

    def _remember(self, signature: Any, lowered: _Lowered) -> None:
        with self._lock:
            self._known[signature] = lowered
            self._known.move_to_end(signature)
            while len(self._known) > MOST:
                self._known.popitem(last=False)


def set_up(op: str, dtype: np.dtype[Any]) -> Any:
    """Return JAX, once it would keep the dtype of the sources.

    Raises
    ------
    DtypeError
        They are float64 and JAX makes float32 of that; the message says what to set.
    MissingExtraError
    """
    jax = imported("jax", op)
    if dtype == np.float64 and not jax.config.jax_enable_x64:
        msg = (
            f"op {op!r}: the sources are float64, of which JAX makes float32 as it is set: call "
            'jax.config.update("jax_enable_x64", True) before anything else of JAX, or give float32'
        )
        raise DtypeError(msg)
    return jax


def versions(jax: Any) -> tuple[str, str]:
    """Return the versions of JAX and of jaxlib."""
    from jaxlib import version

    return str(jax.__version__), str(version.__version__)


def fresh(function: Function, params: Params) -> Callable[..., Any]:
    """Return a function that JAX has not met: of one that it has it gives what it traced then, whatever that reads."""

    def call(*xs: Any) -> Any:
        return function.call(*xs, **params)

    return call


def _structs(jax: Any, function: Function, shapes: tuple[Shape, ...], dtype: np.dtype[Any]) -> list[Any]:
    full = (np.broadcast_shapes(*shapes),) * len(shapes) if function.elementwise else shapes
    return [jax.ShapeDtypeStruct((ROWS, *shape) if function.lead else shape, dtype) for shape in full]


def _traced(jax: Any, function: Function, structs: list[Any], params: Params) -> Any:
    return jax.make_jaxpr(fresh(function, params))(*structs)


def _fingerprint(jax: Any, traced: Any, rules: tuple[str, str, str, int], reads: tuple[str, ...]) -> Fingerprint:
    """Lower value and gradients of a trace, and return the fingerprint of that program and of the files it reads."""
    try:
        text = _lowered(jax, traced)
    except Exception as error:
        return _opaque(f"JAX cannot lower its gradient: {_told(error)}")
    for name in _CALL.findall(text):
        if not _SHOWN.fullmatch(name):
            return _opaque(f"its program calls {name}, which it does not show; say what it computes by identity=")
    if "dense_resource<" in text:
        return _opaque("its program leaves out the values of its constants")
    return declared(text, ("program of jax", *versions(jax), *rules), reads)


def _lowered(jax: Any, traced: Any) -> str:
    from jax.extend.core import jaxpr_as_fun

    function = jaxpr_as_fun(traced)

    def program(*xs: Any) -> Any:
        ys, back = jax.vjp(function, *xs)
        return ys, back([jax.numpy.ones_like(y) for y in ys])

    structs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in traced.in_avals]
    return str(jax.jit(program).lower(*structs).as_text())


def _opaque(reason: str) -> Fingerprint:
    return Fingerprint(None, reason, declared("", (), ()).watch)


def _told(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}"


def _encoded(params: Params) -> bytes:
    try:
        return encode_params(params) if params else b""
    except ParamError:
        return b""  # nothing is stored for them anyway
