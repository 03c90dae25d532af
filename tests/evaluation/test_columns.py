"""From what a caller gives to columns: what would lose something on the way is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.integration.bridge_v2 import push_impulses_from_op_v2

MASKED = np.ma.masked_array([1.0, 2.0, 1e20], mask=[False, False, True])


class Legacy:
    """A system that is not ours, whose node 3 has a mask."""

    nodes: ClassVar[dict[int, Any]] = {3: SimpleNamespace(theta=MASKED)}

    def impulse(self, *_: Any) -> None:
        """Never called."""
        raise AssertionError


GIVEN: dict[str, tuple[Callable[[wb.Board, wb.System], Any], str]] = {
    "a source": (lambda board, _: board.call("mean", MASKED), "op 'mean', source 0"),
    "a second source": (lambda board, _: board.call("mul", np.ones(3), MASKED), "op 'mul', source 1"),
    "sources": (lambda board, _: board.call_many("mean", MASKED[None]), "op 'mean', source 0"),
    "a list of sources": (lambda board, _: board.call_many("mean", [MASKED, MASKED]), "op 'mean', source 0"),
    "a node's value": (lambda _, system: system.add_nodes([7], theta=MASKED[None]), "theta"),
    "a node's position": (lambda _, system: system.add_nodes([7], p=MASKED[None]), "p"),
    "a target": (lambda _, system: system.process([wb.Job("exp", (0,), target=MASKED)]), "target"),
    "a residual": (lambda _, system: system.process([wb.Job("exp", (0,), residual=MASKED)]), "residual"),
    "targets": (lambda _, system: system.process(wb.JobBatch("exp", [[0]], target=MASKED[None])), "target"),
    "residuals": (lambda _, system: system.process(wb.JobBatch("exp", [[0]], residual=MASKED[None])), "residual"),
    "scales": (lambda _, system: system.process(wb.JobBatch("exp", [[0]], target=1.0, scale=MASKED[:1])), "scale"),
    "ids": (lambda _, system: system.process(wb.JobBatch("exp", np.ma.masked_array([[0]]), target=1.0)), "src_ids"),
    "an impulse": (lambda _, system: system.impulse(0, None, "exp", MASKED), "impulse on node 0"),
    "a node that is not ours": (
        lambda board, _: push_impulses_from_op_v2(Legacy(), "exp", (3,), 3, cache=board),
        "node 3",
    ),
    "a parameter": (lambda board, _: board.call("sum", np.ones(3), params={"axis": MASKED}), "masked"),
}


@pytest.mark.parametrize(("use", "where"), GIVEN.values(), ids=GIVEN.keys())
def test_masked_arrays_are_refused_by_name(use: Callable[..., Any], where: str) -> None:
    """Their masks would be lost; nothing of them is stored, pushed or written."""
    with wb.open(":memory:") as board:
        system = board.system("s")
        system.add_nodes([0], theta=np.ones((1, 3)))
        with pytest.raises((wb.DtypeError, wb.ParamError)) as error:
            use(board, system)
        assert where in str(error.value).lower()
        assert len(system.nodes) == 1
        assert board.stats()["puts"] == 0
