"""``batch="lead_axis"`` is a promise: what does not keep it is refused at its first bin, and nothing of it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

import whiteboard as wb
from whiteboard import ops

pytestmark = pytest.mark.usefixtures("builtin_ops_only")


def branch(x: Any) -> Any:
    """Return another function of all where all are positive."""
    return 2 * x if anp.all(x > 0) else 3 * x


MIXED: dict[str, Callable[..., Any]] = {
    "a share": lambda x: x / anp.sum(x),
    "a reversal": lambda x: x[::-1],
    "a mean": lambda x: x - anp.mean(x, axis=0),
    "a running sum": lambda x: anp.cumsum(x, axis=0),
    "a branch": branch,
    "a shift": lambda x: anp.roll(x, 1, axis=0),
}
X = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, 6.0], [-7.0, 8.0, 9.0]])


@pytest.mark.parametrize("function", MIXED.values(), ids=MIXED.keys())
def test_rows_that_depend_on_each_other_are_refused(function: Callable[..., Any]) -> None:
    """The error names the op and a row; under loop the same function is right, alone and together."""
    ops.op("mixed", batch="lead_axis")(function)
    ops.op("single")(function)
    with wb.open(":memory:") as board:
        with pytest.raises(wb.OpCheckError, match=r"op 'mixed': batch='lead_axis': .* of row \d differs when computed"):
            board.call_many("mixed", X)
        assert board.stats()["puts"] == 0
        many = board.call_many("single", X)
        assert many.y.tolist() == [np.asarray(function(x)).tolist() for x in X]
        for x, y in zip(X, many.y, strict=True):
            assert board.call("single", x).y.tolist() == y.tolist()


def test_a_gradient_that_mixes_rows_is_refused() -> None:
    """Though y does not."""
    ops.op("back", batch="lead_axis", vjp=lambda c, y, x: c * np.sum(x))(lambda x: 2 * x)
    with wb.open(":memory:") as board, pytest.raises(wb.OpCheckError, match="the gradient of source 0 of row"):
        board.call_many("back", X)


def test_a_bin_of_one_row_is_tested_as_far_as_it_goes() -> None:
    """Beside an equal one; and the next bin of more rows is tested again."""
    ops.op("share", batch="lead_axis")(lambda x: x / anp.sum(x))
    ops.op("turned", batch="lead_axis")(lambda x: x[::-1])
    with wb.open(":memory:") as board:
        with pytest.raises(wb.OpCheckError, match="row 0 differs when computed beside an equal one"):
            board.call("share", X[0])
        assert board.call("turned", X[0]).hit == "miss"
        with pytest.raises(wb.OpCheckError, match="op 'turned'"):
            board.call_many("turned", X)


def test_a_kept_promise_is_tested_once_a_signature() -> None:
    """The function is run for the first bin's rows alone, and in another order, and for later bins once."""
    runs: list[int] = []

    @ops.op(batch="lead_axis", vjp=lambda c, y, x: 2 * c, ignore=("runs",))
    def double(x: Any) -> Any:
        runs.append(len(x))
        return 2 * x

    with wb.open(":memory:") as board:
        board.call_many("double", X)
        assert runs == [3, 1, 1, 1, 3]
        runs.clear()
        board.call_many("double", X + 1)
        assert runs == [3]
        board.call_many("double", np.arange(200.0).reshape(100, 2))
        assert runs == [3, 16, *[1] * 16, 16, 84]
