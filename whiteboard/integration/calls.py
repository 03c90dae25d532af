"""`Ops.call`: one op on the nodes of any system, in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from whiteboard.board import Board
from whiteboard.errors import ParamError
from whiteboard.integration.bridge_v2 import push_impulses_from_op_v2
from whiteboard.integration.foreign_calls import Op, Source
from whiteboard.integration.foreign_names import ForeignNames
from whiteboard.integration.foreign_nodes import HasNodes, Read, assign, node_of
from whiteboard.systems.jobs import Weight
from whiteboard.systems.system import System
from whiteboard.types import Array, ResultSink


class Ops:
    """The short door to ops over nodes."""

    @staticmethod
    def call(
        sys: HasNodes,
        op_name: Op,
        src_ids: Sequence[Source],
        out_id: int | None,
        *,
        residual: ArrayLike | None = None,
        scale: float = 1.0,
        weight: Weight | None = "none",
        write_out: bool = False,
        sink: ResultSink | None = None,
        cache: Board | None = None,
        op_args: Sequence[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        read: Read = "theta",
        names: ForeignNames | None = None,
    ) -> Array:
        """Apply an op to nodes, push its impulses, and return y; see `bridge_v2.push_impulses_from_op_v2`.

        With `write_out`, y becomes what `read` names of `out_id`: in a `System` by the next commit, elsewhere at once.

        Raises
        ------
        ParamError
            `write_out` with a `read` that is a function: where y belongs is not said.
        """
        if write_out and not isinstance(read, str):
            msg = f"write_out: expected read to be the attribute that y becomes, got {read!r}"
            raise ParamError(msg)
        into = out_id if write_out else None
        # Looked for before anything is pushed.
        out = None if into is None or isinstance(sys, System) else node_of(sys, into, "write_out: out_id")
        y = push_impulses_from_op_v2(
            sys,
            op_name,
            src_ids,
            out_id,
            residual=residual,
            scale=scale,
            weight=weight,
            cache=cache,
            result_sink=sink,
            op_args=op_args,
            op_kwargs=op_kwargs,
            read=read,
            names=names,
        )
        if into is not None and isinstance(sys, System):
            setattr(sys.nodes[into], str(read), y)
        elif into is not None:
            assign(out, str(read), np.array(y))
        return y
