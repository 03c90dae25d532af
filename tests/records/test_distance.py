"""Distances in units in the last place, of two arrays of any dtype."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from whiteboard.records.distance import largest


class Expect(NamedTuple):
    """Two arrays and their distance."""

    a: Any
    b: Any
    ulps: int | None
    id: str


_SINGLE = np.ones(1, np.float32)
_EPS = float(np.finfo(np.float64).eps)
DISTANCES = [
    Expect(np.array([1.0, 2.0]), np.array([1.0, 2.0]), 0, "equal"),
    Expect(np.array([1.0]), np.array([1.0 + _EPS]), 1, "next"),
    Expect(np.array([0.0]), np.array([-0.0]), 1, "zeros"),
    Expect(np.array([5e-324]), np.array([-5e-324]), 3, "across-zero"),
    Expect(np.array([1.0, 1.0]), np.array([1.0, 1 + 4 * _EPS]), 4, "largest"),
    Expect(_SINGLE, np.nextafter(_SINGLE, np.float32(2)), 1, "float32"),
    Expect(np.array([1 + 1j]), np.array([1 + (1 + _EPS) * 1j]), 1, "complex"),
    Expect(np.array([3]), np.array([-4]), 7, "integers"),
    Expect(np.array([True]), np.array([False]), 1, "booleans"),
    Expect(np.array([np.nan]), np.array([1.0]), None, "nan"),
    Expect(np.array([np.nan]), np.array([np.nan]), 0, "nans"),
    Expect(np.array([1.0]), np.array([1.0, 2.0]), None, "shapes"),
    Expect(np.array([1.0]), _SINGLE, None, "dtypes"),
    Expect(np.array([1.0], ">f8"), np.array([1.0 + _EPS], ">f8"), 1, "big-endian"),
    Expect(np.array([2**63], np.uint64), np.array([1], np.uint64), 2**63 - 1, "unsigned"),
    Expect(np.array([2**63 - 1]), np.array([-(2**63)]), None, "integers-farthest"),
    Expect(np.ones(1, np.longdouble), np.ones(1, np.longdouble), None, "long"),
    Expect(np.empty(0), np.empty(0), 0, "empty"),
]


@pytest.mark.parametrize("case", DISTANCES, ids=lambda case: case.id)
def test_units_in_the_last_place(case: Expect) -> None:
    """The distance counts the numbers between two, over zero too, and is none where they cannot be compared."""
    assert largest(case.a, case.b) == case.ulps
    assert largest(case.b, case.a) == case.ulps
