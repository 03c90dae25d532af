"""A user's function as the words of `gradient=` see it, and what it returns, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from whiteboard.errors import DtypeError, MissingExtraError, ShapeError
from whiteboard.types import Array, Shape, is_masked


@dataclass(frozen=True, slots=True)
class Function:
    """A function of arrays that is to be an op.

    Parameters
    ----------
    name : str
        The op's.
    call : callable
        ``call(*sources, **params)``.
    elementwise : bool
        Whether y[j] depends on the sources' j-th elements alone.
    lead : bool
        Whether it gets n jobs at once, on axis 0.
    vjp : callable, optional
        The user's own.
    reads : tuple of str
        Files that it reads.
    """

    name: str
    call: Callable[..., Any]
    elementwise: bool
    lead: bool
    vjp: Callable[..., Any] | None = None
    reads: tuple[str, ...] = ()

    def full(self, xs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Return the sources of an elementwise op in one shape: so its gradients have y's, as a session expects."""
        if not self.elementwise or len({x.shape for x in xs}) == 1:
            return xs
        return tuple(np.ascontiguousarray(x) for x in np.broadcast_arrays(*xs))

    def pair(self, xs: tuple[Array, ...], params: dict[str, Any], second: str) -> tuple[Any, Any]:
        """Call it, and return y as `array` does, and the other thing that it returns.

        Raises
        ------
        ShapeError
            It returns anything but two.
        """
        given = self.call(*xs, **params)
        if not isinstance(given, tuple | list) or len(given) != 2:
            got = f"{len(given)} values" if isinstance(given, tuple | list) else _told(given)
            msg = f"op {self.name!r}: expected the function to return (y, {second}), got {got}"
            raise ShapeError(msg)
        return array(given[0], xs[0].dtype), given[1]

    def each(self, given: Any, what: str, shapes: Sequence[Shape], dtype: np.dtype[Any]) -> tuple[Array, ...]:
        """Return what is given for the sources, one array of its shape for each, in memory of its own.

        Parameters
        ----------
        given : tuple, list, or, of one source, an array
            None stands for zeros, a Python number for an array of shape ().
        what : str
            What it is called: ``"gradient"``.
        shapes : sequence of shapes
            Expected.

        Raises
        ------
        ShapeError, DtypeError
            The message names op, source, expected and got.
        """
        several = given if isinstance(given, tuple | list) else (given,)
        if len(several) != len(shapes):
            got = f"{len(several)}" if several is given else _told(given)
            msg = f"op {self.name!r}: expected one {what} for each of {len(shapes)} sources, got {got}"
            raise ShapeError(msg)
        return tuple(
            self._one(each, f"the {what} of source {slot}", shape, dtype)
            for slot, (each, shape) in enumerate(zip(several, shapes, strict=True))
        )

    def _one(self, given: Any, what: str, shape: Shape, dtype: np.dtype[Any]) -> Array:
        if given is None:
            return np.zeros(shape, dtype)
        found = array(given, dtype)
        if not isinstance(found, np.ndarray | np.generic):
            msg = f"op {self.name!r}: {what}: expected an array, got {_told(found)}"
            raise ShapeError(msg)
        if is_masked(found):
            msg = f"op {self.name!r}: {what}: a masked array is refused: return its filled(…) values"
            raise DtypeError(msg)
        if found.shape != shape:
            msg = f"op {self.name!r}: {what}: expected shape {shape}, got {found.shape}"
            raise ShapeError(msg)
        if found.dtype != dtype:
            msg = f"op {self.name!r}: {what}: expected dtype {dtype}, got {found.dtype}"
            raise DtypeError(msg)
        return np.array(found, order="C")


def number(given: Any, dtype: np.dtype[Any]) -> Any:
    """Return a Python number as an array, and all else as it is: what is wrong with it, is for the session to say."""
    return np.asarray(given, dtype) if isinstance(given, int | float) else given


def array(given: Any, dtype: np.dtype[Any]) -> Any:
    """Return a Python number, or an array of another library, as NumPy's, and all else as it is."""
    known = isinstance(given, np.ndarray | np.generic) or not hasattr(given, "__array__")
    return number(given if known else np.asarray(given), dtype)


def _told(given: Any) -> str:
    shape = getattr(given, "shape", None)
    return type(given).__name__ + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) else "")


def imported(library: str, op: str) -> Any:
    """Import the library that an op of its word needs.

    Raises
    ------
    MissingExtraError
    """
    try:
        return import_module(library)
    except ImportError as error:
        msg = f"op {op!r}: gradient={library!r} needs {library}: pip install 'whiteboard[{library}]' ({error})"
        raise MissingExtraError(msg) from error
