"""What goes to a worker and comes back: plain records, to be pickled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from whiteboard.evaluation.execution import Outcome
from whiteboard.types import Array, Shape
from whiteboard.workers.passing import Passed

Reason: TypeAlias = Literal["import", "code", "arithmetic", "threads"]
"""Why a worker does not compute: it cannot import the op, has other code of it, rounds otherwise, or adds in another
order, as BLAS has another number of threads there."""


@dataclass(frozen=True, slots=True, eq=False)
class BinJob:
    """One bin to compute: n jobs of one signature.

    Parameters
    ----------
    op : Passed
        How the op is found there.
    name, version, fingerprint : str, int, bytes or None
        What it has to be there.
    arithmetic : bytes
        How has to be rounded there: the class that is in the keys.
    blas : tuple of (str, str, int), or None
        Of an op that may reach BLAS: kind, kernel and threads of each.
    params : dict
        All parameters.
    shape : tuple of int, or None
        y's of one job, where it is known.
    n : int
        How many jobs.
    arrays : tuple of ndarray
        The sources, each (n, *shape); (1, *shape) of one that all jobs share, where the op takes it so.
    cotangent : ndarray, (n, *y_shape), or None
        What the gradients are VJPs of.
    home : object
        The process that asks.
    own : bool
        Whether the worker is there for it alone: then BLAS gets the number of threads that it has here.
    """

    op: Passed
    name: str
    version: int
    fingerprint: bytes | None
    arithmetic: bytes
    blas: tuple[tuple[str, str, int], ...] | None
    params: dict[str, Any]
    shape: Shape | None
    n: int
    arrays: tuple[Array, ...]
    cotangent: Array | None
    home: object
    own: bool


@dataclass(frozen=True, slots=True, eq=False)
class BinDone:
    """What came of a bin, by row of it; or the error of all of it.

    An error that cannot be pickled is a `WhiteboardError` with its text.
    """

    outcomes: tuple[Outcome, ...]
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a worker has not computed a bin, whose results would not be those of the process that asks."""

    reason: Reason
    told: str
