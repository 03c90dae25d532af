"""The sweep: every built-in op on all its examples, its bits in any bin, and its errors."""

from __future__ import annotations

import pytest

from whiteboard import ops
from whiteboard.ops import conformance
from whiteboard.ops.catalogue import FAMILY

CASES = [(name, number) for name in FAMILY for number in range(len(ops.get(name).examples))]


@pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{name}-{number}" for name, number in CASES])
def test_every_example_passes_the_check(name: str, number: int) -> None:
    """Shapes, dtypes, gradients by differences and by the adjoint identity, and single = batched, hold."""
    spec = ops.get(name)
    conformance.check_example(spec, spec.examples[number])
