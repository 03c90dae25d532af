"""Thrift: jobs that cost less to compute than a key and a lookup do are computed without either.

Only where packages are kept by what they cost (``persist="auto"``). Bits are the same; their hit is a miss.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from whiteboard.evaluation.execution import Task

ENOUGH: Final = 16
"""A batch, or bin, of so many jobs says what one costs."""

Signature: TypeAlias = tuple[Any, ...]


class Thrift:
    """What jobs of each signature have cost, and what their keys and lookups did, in nanoseconds: the least of each."""

    def __init__(self, *, on: bool) -> None:
        self.on = on
        self._computed: dict[Signature, float] = {}
        self._keyed: dict[Signature, float] = {}

    def spares(self, task: Task) -> bool:
        """Whether a batch is to be computed without keys."""
        if not self.on:
            return False
        signature = _signature(task)
        computed, keyed = self._computed.get(signature), self._keyed.get(signature)
        return computed is not None and keyed is not None and computed < keyed

    def keyed(self, task: Task, ns: int) -> None:
        """Hear what the keys and lookups of a batch have cost."""
        self._learn(self._keyed, task, task.sources.n, ns)

    def computed(self, task: Task, n: int, ns: int) -> None:
        """Hear what a bin of n jobs has cost."""
        self._learn(self._computed, task, n, ns)

    def _learn(self, known: dict[Signature, float], task: Task, n: int, ns: int) -> None:
        if self.on and n >= ENOUGH:
            signature = _signature(task)
            known[signature] = min(ns / n, known.get(signature, ns / n))


def _signature(task: Task) -> Signature:
    return *task.spec.code, task.sources.shapes, task.sources.dtype, task.cotangent is None
