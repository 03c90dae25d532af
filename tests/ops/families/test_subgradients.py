"""The published subgradients: what a VJP returns where the derivative does not exist."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops.conventions import CONVENTIONS, Convention
from whiteboard import ops
from whiteboard.ops.catalogue import FAMILY
from whiteboard.ops.checking.run_once import run


@pytest.mark.parametrize("row", CONVENTIONS, ids=CONVENTIONS.index)
def test_subgradients_are_what_is_published(row: Convention) -> None:
    """At a kink, a tie, a bound or 0 the gradient is the table's, without a warning."""
    grads = run(ops.get(row.name), [np.array(x)[None] for x in row.xs], row.params).grads
    for got, expected in zip(grads, row.ours, strict=True):
        np.testing.assert_array_equal(got[0], expected)


def test_every_op_with_a_subgradient_is_in_the_table() -> None:
    """What an op publishes is tried."""
    published = {name for name in FAMILY if ops.get(name).subgradients}
    assert published <= {row.name for row in CONVENTIONS}
