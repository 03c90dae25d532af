"""Where a batch's sources come from: stacked arrays, or what has their methods. The pipeline sees no difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whiteboard.errors import DtypeError, ShapeError
from whiteboard.evaluation import bins
from whiteboard.evaluation.buffers import BufferPool, Lender
from whiteboard.evaluation.columns import check_dtype, numbers
from whiteboard.identity import keys
from whiteboard.identity.keys import DIGEST_BYTES, tokens
from whiteboard.types import Array, Ids, Shape


class Sources(Protocol):
    """The k sources of n jobs of one signature."""

    @property
    def n(self) -> int: ...
    @property
    def shapes(self) -> tuple[Shape, ...]: ...
    @property
    def dtype(self) -> np.dtype[np.floating]: ...

    def tokens(self) -> NDArray[np.uint8]:
        """Return the tokens, (n, k, 16)."""
        ...

    def gather(self, rows: Ids, lend: Lender, *, share: bool = False) -> list[Array]:
        """Return the k sources of m ≥ 1 jobs, each (m, *shape) and C-contiguous; not to be written.

        They are views where the rows lie one after another. With `share`, a slot whose jobs all have one source
        comes as a 0-stride broadcast of it.
        """
        ...

    def take(self, jobs: Ids) -> Sources:
        """Return the sources of some of the jobs."""
        ...

    def provenance(self, rows: Ids) -> tuple[Ids, Ids] | None:
        """Return (source ids, versions) of some jobs, each (m, k), or None where the sources are no nodes."""
        ...


def scheme(sources: Sources, cotangent: Array | None) -> bytes:
    """Return the scheme of the keys of jobs with these sources, and with a row of the cotangent each, if any."""
    shapes = (*sources.shapes, *(() if cotangent is None else (cotangent.shape[1:],)))
    return keys.scheme_of(sources.dtype.itemsize * math.prod(shape) for shape in shapes)


class ArraySources:
    """Sources given as arrays with the jobs on axis 0; `tokens`, of one job alone, where they were made before.

    Raises
    ------
    ShapeError, DtypeError
        Where an array has no axis 0, another number of jobs than the first, or a dtype that is refused; the
        message names the op and the slot.
    """

    def __init__(self, op: str, arrays: Sequence[ArrayLike], tokens: bytes = b"") -> None:
        if not arrays:
            msg = f"op {op!r}: expected at least one source, got none"
            raise ShapeError(msg)
        self._known = tokens
        self._op, self._arrays = op, [numbers(array, f"op {op!r}, source {slot}") for slot, array in enumerate(arrays)]
        for slot, array in enumerate(self._arrays):
            check_dtype(array.dtype, f"op {op!r}, slot {slot}")
            if array.dtype != self._arrays[0].dtype:
                msg = f"op {op!r}, slot {slot}: expected dtype {self._arrays[0].dtype} as in slot 0, got {array.dtype}"
                raise DtypeError(msg)
            if array.ndim == 0 or len(array) != len(self._arrays[0]):
                got = array.shape if array.ndim == 0 else f"{len(array)} jobs"
                msg = f"op {op!r}, slot {slot}: expected {self._count()} on axis 0, got {got}"
                raise ShapeError(msg)

    def _count(self) -> str:
        return f"{len(self._arrays[0])} jobs" if self._arrays[0].ndim else "jobs"

    @property
    def n(self) -> int:
        return len(self._arrays[0])

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(array.shape[1:] for array in self._arrays)

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return self._arrays[0].dtype

    def tokens(self) -> NDArray[np.uint8]:
        if self._known:
            return np.frombuffer(self._known, np.uint8).reshape(1, -1, DIGEST_BYTES)
        return np.stack([tokens(array) for array in self._arrays], axis=1)

    def gather(self, rows: Ids, lend: Lender, *, share: bool = False) -> list[Array]:
        return [take_rows(array, rows, lend, share=share) for array in self._arrays]

    def take(self, jobs: Ids) -> ArraySources:
        """Return the sources of some of the jobs."""
        return ArraySources(self._op, [array[jobs] for array in self._arrays])

    def provenance(self, rows: Ids) -> None:  # noqa: ARG002 - the Protocol's
        return None


def one_job(op: str, sources: Sequence[ArrayLike], tokens: bytes = b"") -> ArraySources:
    """Return the sources of one job, which have no axis of jobs, as those of a batch of one."""
    rows = [numbers(each, f"op {op!r}, source {slot}")[None] for slot, each in enumerate(sources)]
    return ArraySources(op, rows, tokens)


class StackedSources:
    """The k sources of each job as one, (k, *shape), for an op that takes one.

    Raises
    ------
    ShapeError
        There is none, or they have several shapes; the message names op and slot.
    """

    def __init__(self, op: str, sources: Sources) -> None:
        self._op, self._sources = op, sources
        shapes = sources.shapes
        if not shapes:
            msg = f"op {op!r}: expected at least one source to stack, got none"
            raise ShapeError(msg)
        if odd := [slot for slot, shape in enumerate(shapes) if shape != shapes[0]]:
            msg = f"op {op!r}, slot {odd[0]}: expected shape {shapes[0]} as in slot 0 to stack, got {shapes[odd[0]]}"
            raise ShapeError(msg)
        self.shapes: tuple[Shape, ...] = ((len(shapes), *shapes[0]),)

    @property
    def n(self) -> int:
        return self._sources.n

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return self._sources.dtype

    def tokens(self) -> NDArray[np.uint8]:
        found = np.empty((self.n, 1, DIGEST_BYTES), np.uint8)
        size = self.dtype.itemsize * math.prod(self.shapes[0])
        pool = BufferPool()
        for rows in bins.cut(np.arange(self.n, dtype=np.int64), size):
            with pool.lend() as lend:
                found[rows, 0] = tokens(self.gather(rows, lend)[0])
        return found

    def gather(self, rows: Ids, lend: Lender, *, share: bool = False) -> list[Array]:  # noqa: ARG002 - the Protocol's
        out = lend((len(rows), *self.shapes[0]), self.dtype)
        for slot, each in enumerate(self._sources.gather(rows, lend)):
            out[:, slot] = each
        return [out]

    def take(self, jobs: Ids) -> StackedSources:
        """Return the sources of some of the jobs."""
        return StackedSources(self._op, self._sources.take(jobs))

    def provenance(self, rows: Ids) -> tuple[Ids, Ids] | None:
        return self._sources.provenance(rows)


def take_rows(values: Array, rows: Ids, lend: Lender, *, share: bool) -> Array:
    """Return some rows as `Sources.gather` does: a view where they lie one after another, else in what `lend` gives."""
    first, n = int(rows[0]), len(rows)
    if int(rows[-1]) - first == n - 1 and values.flags.c_contiguous and values.flags.aligned and _consecutive(rows):
        return values[first : first + n]
    if share and np.all(rows == first):
        return np.broadcast_to(values[first], (n, *values.shape[1:]))
    out = lend((len(rows), *values.shape[1:]), values.dtype)
    # Rows are known to be in range; "clip" spares the copy through a buffer that "raise" makes of `out`.
    return np.take(values, rows, axis=0, out=out, mode="clip")


def _consecutive(rows: Ids) -> bool:
    return len(rows) == 1 or bool(np.all(rows[1:] - rows[:-1] == 1))
