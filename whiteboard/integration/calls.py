"""`Ops.call`: one op on the nodes of any system, in one line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from whiteboard.integration.bridge_v2 import ForeignSystem, push_impulses_from_op_v2
from whiteboard.systems.jobs import Weight
from whiteboard.systems.system import System
from whiteboard.types import Array, ResultSink


class Ops:
    """The short door to ops over nodes."""

    @staticmethod
    def call(
        sys: ForeignSystem,
        op_name: str,
        src_ids: Sequence[int],
        out_id: int | None,
        *,
        residual: ArrayLike | None = None,
        scale: float = 1.0,
        weight: Weight | None = "none",
        write_out: bool = False,
        sink: ResultSink | None = None,
    ) -> Array:
        """Apply an op to nodes, push its impulses, and return y; see `bridge_v2.push_impulses_from_op_v2`.

        With `write_out`, y becomes the theta of `out_id`: in a `System` with the next commit, elsewhere at once.
        """
        y = push_impulses_from_op_v2(
            sys, op_name, src_ids, out_id, residual=residual, scale=scale, weight=weight, result_sink=sink
        )
        if write_out and out_id is not None:
            if isinstance(sys, System):
                sys.write(out_id, theta=y)
            else:
                sys.nodes[out_id].theta = np.array(y)
        return y
