"""The arithmetic class: how this machine, process and thread round, as far as bits of results depend on it.

What takes IEEE's basic operations in a fixed order has the same bits on every machine: its class says no more than
that they are kept. NumPy chooses SIMD kernels of exp and the like by processor, BLAS its kernel too, and BLAS adds in
another order with another number of threads; a thread may flush denormals to zero or round another way, as libraries
that were built for speed make it do. Results of different arithmetic are different packages, so the class is in their
keys, and in no others.
"""

from __future__ import annotations

import struct
import sys
from functools import cache, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np

from whiteboard.types import FLOATS, Array, Blas

Setting = tuple[str, str, int]
"""Of one BLAS: its kind, its kernel, and its number of threads."""


def arithmetic_class(*, portable: bool = False, blas: Blas = Blas.NONE) -> bytes:
    """Return a digest of how the calling thread rounds now: equal where kernels and settings give equal bits.

    Parameters
    ----------
    portable : bool
        For what takes IEEE's basic operations alone, in NumPy's orders: equal on all machines that keep to them.
    blas : Blas
        For what may reach BLAS: then its kernel and its number of threads count, of NumPy's or of every one that is
        loaded. Nothing of that is portable.
    """
    if blas:
        return _digest(_basic() + _kernels() + _products(), float_mode(), _blas.settings(blas))
    return _digest(_basic() if portable else _basic() + _kernels(), float_mode(), ())


@lru_cache(maxsize=256)
def _digest(results: bytes, mode: bytes, settings: tuple[Setting, ...]) -> bytes:
    return blake2b(repr((results, mode, settings)).encode(), digest_size=16).digest()


MANY = 2**12
"""Numbers that kernels are told apart by. The C library's with and without fused operations differ in one result of
1,200 of exp, sin, cos and power, one of 8,000 of log1p, one of 30,000 of log (glibc 2.36); they are chosen together."""


def _inputs(n: int) -> list[tuple[Array, Array]]:
    """Return, in both dtypes, n numbers from 0 to 8 and three matrices of them: equal everywhere, each one division."""
    numbers = np.arange(1, n + 1)
    columns: list[Array] = [np.divide(numbers.astype(dtype), n / 7.9, dtype=dtype) for dtype in FLOATS]
    return [(x, np.resize(x, 3 * 33 * 65).reshape(3, 33, 65)) for x in columns]


@cache
def _basic() -> bytes:
    """Return a digest of basic operations and sums of fixed inputs: they stand for the orders in which NumPy adds."""
    state = blake2b(digest_size=16)
    with np.errstate(all="ignore"):
        for x, square in _inputs(257):
            state.update((x * x[::-1] + x / x[::-1] - np.sqrt(x)).tobytes())
            state.update(square.sum(-1).tobytes() + square.sum(1).tobytes() + square.reshape(-1).sum().tobytes())
            state.update(np.add.reduceat(square, [0, 2], axis=0).tobytes() + np.cumsum(x).tobytes())
            state.update(np.multiply.reduce(x[:65]).tobytes())
    return state.digest()


@cache
def _kernels() -> bytes:
    """Return a digest of results of fixed inputs: they stand for the kernels that NumPy chooses by processor."""
    state = blake2b(digest_size=16)
    with np.errstate(all="ignore"):
        for x, square in _inputs(MANY):
            for ufunc in (np.exp, np.expm1, np.log, np.log1p, np.tanh, np.sin, np.cos):
                state.update(ufunc(x).tobytes())
            state.update(np.power(x, x[::-1]).tobytes())
            state.update(np.einsum("...i,...i->...", square, square[::-1]).tobytes())
    return state.digest()


@cache
def _products() -> bytes:
    """Return a digest of products of fixed inputs: they stand for the kernel of NumPy's BLAS."""
    state = blake2b(digest_size=16)
    for x, square in _inputs(257):
        state.update(np.vecdot(square, square[::-1]).tobytes())
        state.update(np.matmul(square, square.swapaxes(1, 2)).tobytes())
        state.update(np.matvec(square, x[:65]).tobytes())
    return state.digest()


# -- the mode of the floating-point unit, which is the thread's

# Variables, so that they are computed with when asked, and not by the compiler.
_least, _half, _denormal, _large = sys.float_info.min, 0.5, 5e-324, 2.0**60
_one, _less, _next = 1.0, 3 * 2.0**-54, 1 + 2.0**-52


def float_mode() -> bytes:
    """Return b"" where denormals are kept and results rounded to the nearest, as IEEE 754 begins; else what is done."""
    if _least * _half > 0.0 and _one + _less == _next and -_one - _less == -_next:
        return b""
    return struct.pack("<4d", _least * _half, _denormal * _large, _one + _less, -_one - _less)


# -- BLAS, whose settings are the process's


class _Blas:
    """The BLAS libraries that are loaded, found again when modules were imported since.

    Threads may ask at once: what belongs together is kept in one tuple, and set in one go.
    """

    def __init__(self) -> None:
        self._found: tuple[int, dict[Blas, list[tuple[str, str, Any]]]] = (0, {})
        self._known: dict[Blas, tuple[list[Any], tuple[Setting, ...]]] = {}

    def settings(self, blas: Blas) -> tuple[Setting, ...]:
        """Return kind, kernel and threads of each; libraries with equal ones count once, whoever has loaded them."""
        modules, libraries = self._found
        if len(sys.modules) != modules:
            modules, loaded = len(sys.modules), [each for each in _libraries() if each.user_api == "blas"]
            libraries = {
                Blas.NONE: [],
                Blas.ANY: [_setting(each) for each in loaded],
                Blas.NUMPY: [_setting(each) for each in loaded if _is_numpys(each.filepath)],
            }
            self._found = modules, libraries
        found = libraries[blas]
        asked: list[Any] = [found, *(count() for _, _, count in found)]
        known, settings = self._known.get(blas, ([], ()))
        if asked != known:
            of_each = zip(found, asked[1:], strict=True)
            settings = tuple(sorted({(kind, kernel, n) for (kind, kernel, _), n in of_each}))
            self._known[blas] = asked, settings
        return settings


def _setting(library: Any) -> tuple[str, str, Any]:
    """Return kind and kernel of one, and what asks for its number of threads."""
    return library.internal_api, str(getattr(library, "architecture", "")), library.get_num_threads


def _is_numpys(path: str) -> bool:
    """Whether a library is none that another package has brought: what lies among the system's NumPy may use."""
    parts = Path(path).parts
    places = [place for place, part in enumerate(parts[:-1]) if part in ("site-packages", "dist-packages")]
    return not places or parts[places[-1] + 1] in ("numpy", "numpy.libs")


_blas: Final = _Blas()


def blas_settings(blas: Blas) -> tuple[Setting, ...]:
    """Return kind, kernel and number of threads of NumPy's BLAS, or of every one that is loaded."""
    return _blas.settings(blas)


def set_blas_threads(settings: tuple[Setting, ...]) -> None:
    """Give every BLAS that is loaded, for this whole process, the number of threads that `settings` have for it."""
    for each in _libraries():
        for kind, kernel, threads in settings:
            if (each.internal_api, str(getattr(each, "architecture", ""))) == (kind, kernel):
                each.set_num_threads(threads)


def _libraries() -> list[Any]:
    import threadpoolctl  # for ops that reach BLAS

    libraries: list[Any] = threadpoolctl.ThreadpoolController().lib_controllers
    return libraries
