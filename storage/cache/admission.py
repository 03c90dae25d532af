"""Which packages are worth their place on disk: those that cost more to compute than to load, both measured."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from whiteboard.records.packages import Page

Signature: TypeAlias = tuple[Any, ...]

# A new measurement counts this much: old ones fade within some ten, and one outlier decides nothing.
_WEIGHT: Final = 0.25


@dataclass(slots=True)
class Figures:
    """What is known of packages of one op and shape, in nanoseconds a package."""

    compute_ns: float | None = None
    load_ns: float | None = None
    kept: int = 0
    refused: int = 0


class Admission:
    """The figures of every op and shape, and the decision that follows from them."""

    def __init__(self) -> None:
        self._figures: dict[Signature, Figures] = {}
        self._lock = threading.Lock()

    def admits(self, page: Page) -> bool:
        """Note what the page cost to compute, and say whether it goes to disk.

        Until both costs are known it does: what cannot be compared is kept.
        """
        with self._lock:
            figures = self._figures.setdefault(signature(page), Figures())
            if page.cost_ns > 0 and page.n:
                figures.compute_ns = _faded(figures.compute_ns, page.cost_ns / page.n)
            known = figures.compute_ns is not None and figures.load_ns is not None
            kept = not known or (figures.compute_ns or 0.0) > (figures.load_ns or 0.0)
            if kept:
                figures.kept += page.n
            else:
                figures.refused += page.n
            return kept

    def loaded(self, page: Page, ns: float) -> None:
        """Note what it cost to load one package of a page."""
        with self._lock:
            figures = self._figures.setdefault(signature(page), Figures())
            figures.load_ns = _faded(figures.load_ns, ns)

    def needs_load(self, page: Page) -> bool:
        """Whether loading packages like these was never measured."""
        with self._lock:
            figures = self._figures.get(signature(page))
            return figures is None or figures.load_ns is None

    def info(self) -> list[dict[str, Any]]:
        """The figures, one dict an op and shape."""
        with self._lock:
            return [
                {
                    "op": op,
                    "arrays": {name: f"{dtype}{list(shape)}" for name, dtype, shape in arrays},
                    "compute_ns": figures.compute_ns,
                    "load_ns": figures.load_ns,
                    "kept": figures.kept,
                    "refused": figures.refused,
                }
                for (op, arrays), figures in sorted(self._figures.items(), key=repr)
            ]


def signature(page: Page) -> Signature:
    """Op, and name, dtype and shape of each array of one package."""
    return page.op, tuple((name, array.dtype.str, array.shape[1:]) for name, array in page.arrays.items())


def _faded(old: float | None, new: float) -> float:
    return new if old is None else (1 - _WEIGHT) * old + _WEIGHT * new
