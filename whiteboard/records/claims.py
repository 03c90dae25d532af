"""Who computes what at this moment, beside this process, as it crosses the seam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Holder:
    """A bin that somebody else computes, on the same store.

    Parameters
    ----------
    number : int
        What it is known by; no other one has it.
    rows : ndarray of int64, shape (m,)
        Positions of its keys among those that were asked for.
    stopped : bool or None
        Whether its process is stopped; None where that cannot be known from here.
    seconds : float or None
        How long it was expected to take; None where nobody knew.
    """

    number: int
    rows: NDArray[np.int64]
    stopped: bool | None
    seconds: float | None
