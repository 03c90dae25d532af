"""Rules: pure functions from node rows and summed impulses to new rows.

A rule is called as ``rule(rows, sums)`` with ``rows`` (m, *shape) and a `Sums` of the same m nodes, and returns the
new rows in the same shape and dtype. Rows must not depend on one another; a user's rule is any such function. A rule
with a true attribute `exact` gets sums that are exactly rounded.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from whiteboard.errors import ParamError
from whiteboard.systems.impulses import Sums
from whiteboard.types import Array, is_number


class Rule(Protocol):
    """``rule(rows, sums) → new rows``."""

    def __call__(self, rows: Array, sums: Sums, /) -> Array: ...


@dataclass(frozen=True, slots=True)
class StressDescent:
    """p' = p + ω · ΣJ / Σw: a damped Jacobi step of stress majorisation.

    With impulses ``J = w (L* − L) û`` and their weights w, the step minimises, node by node, the majorising
    quadratic of the stress Σ w (L − L*)²; as the Laplacian of the weights is at most twice its diagonal, no
    0 < ω < 1 raises the stress, whichever nodes move.

    Source: J. de Leeuw, "Applications of convex analysis to multidimensional scaling", 1977.

    Parameters
    ----------
    omega : float
        Step, 0 < ω < 1.
    exact : bool
        Sum the impulses as integers, correctly rounded (`whiteboard.systems.exact`), instead of in content order.
    """

    omega: float = 0.9
    exact: bool = False

    def __post_init__(self) -> None:
        if not (is_number(self.omega) and 0 < self.omega < 1):
            msg = f"StressDescent: omega: expected 0 < omega < 1, got {self.omega!r}"
            raise ParamError(msg)

    def __call__(self, rows: Array, sums: Sums, /) -> Array:
        weight = np.where(sums.weight == 0, 1, sums.weight).astype(rows.dtype)
        step = sums.vector / _per_row(weight, rows)
        moved: Array = rows + rows.dtype.type(self.omega) * step
        return moved


@dataclass(frozen=True, slots=True)
class Relax:
    """θ' = θ − ηS / max(1, e), e = RMS(ηS / (atol + rtol·|θ|)): a step that never exceeds its error scale.

    S is the summed gradient, the negative of the summed impulses; the RMS is over the elements of one node.

    Parameters
    ----------
    eta : float
        Step size, > 0.
    rtol, atol : float
        Relative and absolute size of the largest step; rtol ≥ 0, atol > 0.
    exact : bool
        As in `StressDescent`.
    """

    eta: float = 0.1
    rtol: float = 1e-2
    atol: float = 1e-2
    exact: bool = False

    def __post_init__(self) -> None:
        for name, value, low in (("eta", self.eta, 0), ("atol", self.atol, 0), ("rtol", self.rtol, -math.ulp(0))):
            if not (is_number(value) and low < value <= sys.float_info.max):
                msg = f"Relax: {name}: expected a finite number {'>= 0' if low else '> 0'}, got {value!r}"
                raise ParamError(msg)

    def __call__(self, rows: Array, sums: Sums, /) -> Array:
        kind = rows.dtype.type
        step: Array = kind(self.eta) * sums.vector
        scaled = np.abs(rows)  # in place from here: large arrays cost more to make than to fill
        scaled *= kind(self.rtol)
        scaled += kind(self.atol)
        np.divide(step, scaled, out=scaled)
        scaled *= scaled
        square = np.ascontiguousarray(scaled).reshape(len(rows), math.prod(rows.shape[1:]))
        error = np.sqrt(square.mean(-1)) if square.shape[1] else np.zeros(len(rows), rows.dtype)
        step /= _per_row(np.maximum(kind(1), error), rows)
        step += rows
        return step


def _per_row(column: Array, rows: Array) -> Array:
    """View a column (m,) so that it broadcasts over rows (m, …)."""
    return column.reshape(-1, *(1,) * (rows.ndim - 1))
