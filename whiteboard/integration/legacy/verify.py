"""Results beside what their op computes: the same bits, near enough, or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import ParamError
from whiteboard.evaluation.session import Session
from whiteboard.ops.spec import OpSpec
from whiteboard.records.distance import ulps
from whiteboard.types import Array


@dataclass(frozen=True, slots=True)
class Compared:
    """For each of n results: whether it may stand for what the op computes, and how far it is from it in ulps."""

    good: NDArray[np.bool_]
    ulps: NDArray[np.uint64]


def compare(
    spec: OpSpec, params: dict[str, Any], xs: Sequence[Array], results: Sequence[Array], rtol: float | None
) -> Compared:
    """Compute n jobs and compare y and the gradients, all stacked on axis 0.

    Parameters
    ----------
    rtol : float or None
        Largest distance, as a part of the largest element of the array. None: half of the digits for an op of
        ``tolerance``, whose last ones depend on the batch, and for others nothing but the same bits will do.

    Raises
    ------
    ParamError
        The op fails.
    """
    try:
        spec = spec.at(tuple(x.shape[1:] for x in xs), xs[0].dtype, spec.bind(params))
        with Session(spec, spec.bind(params), xs) as session, np.errstate(all="ignore"):
            made = session.run()
    except Exception as error:
        msg = f"op {spec.name!r} fails on sources of shapes {[x.shape[1:] for x in xs]}: {error!r}"
        raise ParamError(msg) from error
    if rtol is None:
        rtol = 0.0 if spec.exactness != "tolerance" else float(np.sqrt(np.finfo(xs[0].dtype).eps))
    n = len(xs[0])
    good, apart = np.ones(n, np.bool_), np.zeros(n, np.uint64)
    for stored, right in zip(results, made, strict=True):
        a, b = stored.reshape(n, -1), right.reshape(n, -1)
        distance = ulps(a, b)
        apart = np.maximum(apart, distance.max(axis=1, initial=np.uint64(0)))
        good &= ((distance == 0) | _near(a, b, rtol)).all(axis=1)
    return Compared(good, apart)


def _near(a: Array, b: Array, rtol: float) -> NDArray[np.bool_]:
    if not rtol:
        return np.zeros(a.shape, np.bool_)
    with np.errstate(all="ignore"):
        size = np.abs(np.where(np.isfinite(b), b, 0)).max(axis=1, initial=0, keepdims=True)
        return np.asarray(np.abs(a - b) <= rtol * size)
