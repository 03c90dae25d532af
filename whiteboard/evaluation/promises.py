"""The promise of ``batch="lead_axis"``: a row's results depend on that row alone. It is tested, not believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import OpCheckError
from whiteboard.evaluation.session import Session
from whiteboard.ops.spec import OpSpec
from whiteboard.types import Array, Shape

ROWS: Final = 16
"""So many rows of a bin are computed again alone, first and last among them; all of them in another order."""
REMEDY: Final = (
    "row i of y and of the gradients may depend on row i of the sources alone; batch='loop' asks for nothing"
)


class Promises:
    """Which signatures of users' ops have kept their promise, in this process."""

    def __init__(self) -> None:
        self._kept: dict[Any, bool] = {}

    def test(
        self,
        spec: OpSpec,
        params: dict[str, Any],
        xs: Sequence[Array],
        results: Sequence[Array],
        cotangent: Array | None,
    ) -> None:
        """Compute the rows of a signature's first bin alone, and together in another order, and compare the bits.

        A bin of one row is computed as two equal rows; the next bin of more is tested again. Ops of ``tolerance`` are
        not tested, as their bits may depend on the bin.

        Parameters
        ----------
        xs : sequence of ndarray, each (n, *shape)
            The sources of the bin.
        results : sequence of ndarray, each (n, …)
            y and the gradients, as computed together.
        cotangent : ndarray, (n, *y_shape), optional
            What the gradients are the VJPs of; None for ones.

        Raises
        ------
        OpCheckError
            The message names op, row, and which result differs.
        """
        if not spec.user or spec.batch != "lead_axis" or spec.exactness == "tolerance":
            return
        n, shape = len(xs[0]), results[0].shape[1:]
        signature: tuple[Any, ...] = (
            spec.name,
            spec.version,
            spec.fingerprint,
            id(spec.forward),
            tuple(x.shape[1:] for x in xs),
        )
        signature += (xs[0].dtype.str, cotangent is None, repr(sorted(params.items())))
        if self._kept.get(signature, n < 1):
            return
        for how, rows in _orders(n):
            given = _evaluated(spec, params, [x[rows] for x in xs], shape, _taken(cotangent, rows))
            for what, together, again in zip(_names(len(results)), results, given, strict=True):
                _compare(spec, what, how, rows, together[rows], again)
        self._kept[signature] = n > 1


def _orders(n: int) -> list[tuple[str, NDArray[np.intp]]]:
    """Return rows to compute together, and how that is said."""
    if n == 1:
        return [("beside an equal one", np.zeros(2, np.intp))]
    alone = np.unique(np.linspace(0, n - 1, min(n, ROWS)).astype(np.intp))
    return [*(("alone", alone[i : i + 1]) for i in range(len(alone))), ("in another order", np.arange(n)[::-1])]


def _names(results: int) -> list[str]:
    return ["y", *(f"the gradient of source {slot}" for slot in range(results - 1))]


def _taken(cotangent: Array | None, rows: NDArray[np.intp]) -> Array | None:
    return None if cotangent is None else cotangent[rows]


def _evaluated(
    spec: OpSpec, params: dict[str, Any], xs: list[Array], shape: Shape, cotangent: Array | None
) -> tuple[Array, ...]:
    with Session(spec, params, xs, shape) as session:
        return session.run(cotangent)


def _compare(spec: OpSpec, what: str, how: str, rows: NDArray[np.intp], a: Array, b: Array) -> None:
    """Raise at the first row whose bits differ."""
    bits = f"u{a.dtype.itemsize}"
    same = np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits)
    wrong = np.flatnonzero(~same.all(axis=tuple(range(1, same.ndim))))
    if wrong.size:
        msg = (
            f"op {spec.name!r}: batch='lead_axis': {what} of row {rows[wrong[0]]} differs when computed {how}: {REMEDY}"
        )
        raise OpCheckError(msg)
