"""The sweep: every built-in op on all its examples."""

from __future__ import annotations

import numpy as np
import pytest

from whiteboard import ops
from whiteboard.ops.catalogue import FAMILY
from whiteboard.ops.checking import conformance

CASES = [(name, number) for name in FAMILY for number in range(len(ops.get(name).examples))]


@pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{name}-{number}" for name, number in CASES])
def test_every_example_passes_the_check(name: str, number: int) -> None:
    """Shapes, dtypes, gradients by differences and by the adjoint identity, and single = batched, hold."""
    spec = ops.get(name)
    conformance.check_example(spec, spec.examples[number])


@pytest.mark.parametrize("name", FAMILY)
def test_only_the_gradients_that_are_needed_are_computed(name: str) -> None:
    """Where ``need`` is false there is None, and the others are the same bits."""
    spec, rng = ops.get(name), np.random.default_rng(6)
    example = spec.examples[0]
    sources = tuple(conformance.draw(rng, example, 4, np.float64))
    params = spec.bind(example.params)
    y, saved = spec.forward(sources, None, **params)
    whole = spec.vjp(saved, np.ones_like(y), (True,) * len(sources), **params)
    for slot in range(len(sources)):
        need = tuple(other == slot for other in range(len(sources)))
        grads = spec.vjp(spec.forward(sources, None, **params)[1], np.ones_like(y), need, **params)
        assert [grad is not None for grad in grads] == list(need)
        assert np.array_equal(np.asarray(grads[slot]), np.asarray(whole[slot]))


def test_the_check_of_a_builtin_op_is_public() -> None:
    """`ops.check` goes through an op's own examples."""
    ops.check("distance")
