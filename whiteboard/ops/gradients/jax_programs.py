"""The programs that a function of JAX's is, one a signature: traced for each look, run, and lowered to a fingerprint.

What the function reads when it is traced (globals, closures, arrays, files) is in the program, wherever it was, and so
is what `jax.jit` made of it. Tracing costs 0.3 ms and more; lowering, some 10 ms, is spared where the trace is what it
was. What runs is the trace itself, so that a value is that of the program whose fingerprint it is kept under.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from whiteboard.concurrency import locks
from whiteboard.errors import DtypeError, ParamError, ShapeError, WhiteboardError
from whiteboard.ops.fingerprint.digest import Fingerprint, declared
from whiteboard.ops.fingerprint.encoding import encode_params
from whiteboard.ops.gradients.function import Function, imported
from whiteboard.ops.gradients.jaxprs import owned, same
from whiteboard.ops.gradients.rule import Forward, Rules, Seen
from whiteboard.types import Array, Params, Shape

MOST: Final = 64
"""So many signatures of a function are remembered."""

ROWS: Final = 2
"""Of a function of n jobs at once the program for so many stands for all."""

_CALL: Final = re.compile(r"custom_call\s*@([\w.$\"-]+)")
_SHOWN: Final = re.compile(
    r"lapack_\w+|blas_\w+|Sharding|SPMDFullToShardShape|SPMDShardToFullShape|annotate_device_placement"
)
"""Calls of what comes with jaxlib; what any other does the program does not show."""


@dataclass(slots=True)
class _Traced:
    """A trace that nobody else can write to, the settings of JAX that it was made under, and its fingerprint."""

    closed: Any
    settings: dict[str, Any]
    call: Callable[..., Any]
    fingerprint: Fingerprint | None = None
    forward: Forward | None = None


class Programs:
    """The programs of one function; called as `rule.Program` says."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._known: OrderedDict[Any, _Traced] = OrderedDict()
        self._lock = locks.lock()

    def __call__(self, rules: Rules, shapes: tuple[Shape, ...], dtype: np.dtype[Any], params: Params) -> Seen:
        """Return the fingerprint for sources of these shapes, and the forward of that program.

        Raises
        ------
        DtypeError
            JAX would compute in another dtype.
        ShapeError
            The function does not return an array.
        MissingExtraError
        """
        jax, function = set_up(self._function.name, dtype), self._function
        if function.elementwise:
            shapes = (np.broadcast_shapes(*shapes),) * len(shapes)
        try:
            known = self._traced(jax, [(ROWS, *s) if function.lead else s for s in shapes], dtype, params)
        except WhiteboardError:
            raise
        except Exception as error:
            return Seen(None, f"JAX cannot trace it without values: {_told(error)}")
        if known.fingerprint is None or not known.fingerprint.holds():
            known.fingerprint = _fingerprint(jax, known.closed, rules, function.reads)
        known.forward = known.forward or self._forward(jax, known)
        return Seen(known.fingerprint.digest, known.fingerprint.opaque, known.forward)

    def _forward(self, jax: Any, known: _Traced) -> Forward:
        """Return what runs a trace; of a function of n jobs at once, one for as many as there are."""
        function = self._function

        def forward(xs: tuple[Array, ...], out: Array | None, /, **params: Any) -> tuple[Array, Any]:
            xs = function.full(xs)
            traced = self._traced(jax, [x.shape for x in xs], xs[0].dtype, params) if function.lead else known
            return pulled_back(jax, function.name, traced.call, xs)

        return forward

    def _traced(self, jax: Any, shapes: Sequence[Shape], dtype: np.dtype[Any], params: Params) -> _Traced:
        """Trace the function, and return the trace, or an equal one that is remembered."""
        structs = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
        settings = dict(jax.config.values)
        closed, told = jax.make_jaxpr(fresh(jax, self._function, params), return_shape=True)(*structs)
        if not isinstance(told, jax.ShapeDtypeStruct):
            raise _no_array(self._function.name, told)
        signature = (tuple(shapes), dtype.str, _encoded(params))
        known = self._known.get(signature)
        if known is None or known.settings != settings or not same(known.closed, closed):
            closed = owned(closed)
            known = _Traced(closed, settings, _called(closed))
            self._remember(signature, known)
        return known

    def _remember(self, signature: Any, traced: _Traced) -> None:
        with self._lock:
            self._known[signature] = traced
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


def fresh(jax: Any, function: Function, params: Params) -> Callable[..., Any]:
    """Return a function that JAX has not met: of one that it has it gives what it traced then, whatever that reads."""

    def call(*xs: Any) -> Any:
        y = function.call(*xs, **params)
        return jax.numpy.asarray(y, xs[0].dtype) if isinstance(y, int | float) else y

    return call


def pulled_back(jax: Any, op: str, call: Callable[..., Any], xs: tuple[Array, ...]) -> tuple[Array, Any]:
    """Return y, and its pullback by `jax.vjp`.

    Raises
    ------
    ShapeError
        What is returned is no array.
    """
    y, back = jax.vjp(call, *map(jax.numpy.array, xs))
    if not isinstance(y, jax.Array):
        raise _no_array(op, y)
    return np.asarray(y), back


def _no_array(op: str, y: Any) -> ShapeError:
    return ShapeError(f"op {op!r}: forward: expected an array, got {type(y).__name__}")


def _called(closed: Any) -> Callable[..., Any]:
    """Return a trace of one result as a function."""
    from jax.extend.core import jaxpr_as_fun
    from jax.numpy import asarray

    call, (aval,) = jaxpr_as_fun(closed), closed.out_avals

    def one(*xs: Any) -> Any:
        return asarray(call(*xs)[0], aval.dtype)

    return one


def _fingerprint(jax: Any, closed: Any, rules: Rules, reads: tuple[str, ...]) -> Fingerprint:
    """Lower value and gradients of a trace, and return the fingerprint of that program and of the files it reads."""
    try:
        text = _lowered(jax, closed)
    except Exception as error:
        return _opaque(f"JAX cannot lower its gradient: {_told(error)}")
    for name in _CALL.findall(text):
        if not _SHOWN.fullmatch(name):
            return _opaque(f"its program calls {name}, which it does not show; say what it computes by identity=")
    if "dense_resource<" in text:
        return _opaque("its program leaves out the values of its constants")
    return declared(text, ("program of jax", *versions(jax), *rules), reads)


def _lowered(jax: Any, closed: Any) -> str:
    call = _called(closed)

    def program(*xs: Any) -> Any:
        y, back = jax.vjp(call, *xs)
        return y, back(jax.numpy.ones_like(y))

    structs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in closed.in_avals]
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
