"""The table of subgradients: what Whiteboard returns where there is no derivative, and what JAX 0.10 does."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Convention(NamedTuple):
    """A point without a derivative: what Whiteboard returns there, and what JAX does."""

    name: str
    xs: tuple[Any, ...]
    ours: tuple[Any, ...]
    theirs: tuple[Any, ...]
    params: dict[str, Any] = {}  # noqa: RUF012 - read only


NAN, INF = np.nan, np.inf
CONVENTIONS = (
    Convention("abs", (0.0,), (0.0,), (1.0,)),
    Convention("relu", (0.0,), (0.0,), (0.0,)),
    Convention("sqrt", (0.0,), (INF,), (INF,)),
    Convention("maximum", (1.0, 1.0), (0.5, 0.5), (0.5, 0.5)),
    Convention("minimum", (1.0, 1.0), (0.5, 0.5), (0.5, 0.5)),
    Convention("clip", (1.0,), (1.0,), (0.5,), {"hi": 1.0}),
    Convention("clip", (1.0,), (1.0,), (0.5,), {"lo": 1.0}),
    Convention("power", (0.0, 0.0), (0.0, 0.0), (NAN, 0.0)),
    Convention("power", (0.0, 2.0), (0.0, 0.0), (0.0, 0.0)),
    Convention("power", (-1.0, 2.0), (-2.0, NAN), (-2.0, NAN)),
    Convention("where", (0.0, 1.0, 2.0), (0.0, 0.0, 1.0), (0.0, 0.0, 1.0)),
    Convention("max", ([1.0, 3.0, 3.0],), ([0.0, 0.5, 0.5],), ([0.0, 0.5, 0.5],)),
    Convention("norm", ([0.0, 0.0],), ([0.0, 0.0],), ([NAN, NAN],)),
    Convention("distance", ([1.0, 2.0], [1.0, 2.0]), ([0.0, 0.0], [0.0, 0.0]), ([NAN, NAN], [NAN, NAN])),
    Convention("max", ([1.0, 1.0, NAN],), ([0.0, 0.0, 0.0],), ([NAN, NAN, NAN],)),
    Convention("logsumexp", ([-INF, -INF],), ([0.0, 0.0],), ([NAN, NAN],)),
    Convention("prod_k", (0.0, 2.0, 3.0), (6.0, 0.0, 0.0), (6.0, 0.0, 0.0)),
    Convention("prod", ([0.0, 2.0, 3.0],), ([6.0, 0.0, 0.0],), ([6.0, 0.0, 0.0],)),
    Convention("prod", ([0.0, 0.0, 3.0],), ([0.0, 0.0, 0.0],), ([0.0, 0.0, 0.0],)),
)
