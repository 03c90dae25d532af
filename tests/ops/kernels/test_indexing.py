"""Adding at indices: the sums of `np.add.at`, to the bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from whiteboard.ops.families.indexing import MANY_ROUNDS, add_at


@given(places=st.lists(st.integers(0, 5), max_size=3 * MANY_ROUNDS), seed=st.integers(0, 99))
def test_add_at_sums_in_the_order_of_the_indices(places: list[int], seed: int) -> None:
    """However often an index comes up, its values are added one after another from the first on."""
    values = np.random.default_rng(seed).standard_normal((2, len(places), 3))
    expected = np.zeros((2, 6, 3))
    for k, place in enumerate(places):
        expected[:, place] += values[:, k]
    assert add_at(values, np.array(places, np.intp), 6).tobytes() == expected.tobytes()
