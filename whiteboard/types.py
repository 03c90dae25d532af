"""Array and parameter types, and the Protocols at the seams between the stages and the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Ids: TypeAlias = NDArray[np.int64]
Params: TypeAlias = Mapping[str, Any]
Shape: TypeAlias = tuple[int, ...]

MISS, MEMORY, DISK = 0, 1, 2
"""The codes of a `hit` column."""

HIT_NAMES = ("miss", "memory", "disk")
"""The name of each code of a `hit` column, as `OpResult.hit` and `CallResult.hit` give it."""


class Page(Protocol):
    """The packages of one bin, stacked: what the stages read of a store's page."""

    @property
    def arrays(self) -> Mapping[str, Array]: ...
    @property
    def cost_ns(self) -> int: ...
    @property
    def n(self) -> int: ...


class Found(Protocol):
    """Where each of n keys was found: page index (-1 for a miss), row in the page, tier code."""

    @property
    def pages(self) -> Sequence[Page]: ...
    @property
    def page(self) -> NDArray[np.int64]: ...
    @property
    def slot(self) -> NDArray[np.int64]: ...
    @property
    def tier(self) -> NDArray[np.uint8]: ...


class ResultSink(Protocol):
    """Anything with ``publish(result)``: it gets each `OpResult`, or each `BatchResult`, in submission order."""

    def publish(self, result: Any) -> None: ...
