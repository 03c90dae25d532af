"""Systems as they cross the seam: what is kept of them, of their commits, and of their nodes."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_ATTR: Final = re.compile("[A-Za-z][A-Za-z0-9_]{0,63}")
_NO_ATTRS: Final = frozenset({"id", "node_id", "version", "fixed", "attrs"})
"""What a node says of itself beside its attributes."""


def is_attr(name: object) -> bool:
    """Whether something can be an attribute's name: up to 64 ASCII letters, digits and ``_``, a letter first."""
    return isinstance(name, str) and _ATTR.fullmatch(name) is not None and name not in _NO_ATTRS


@dataclass(frozen=True, slots=True)
class SystemRecord:
    """A system as the store knows it. `spec` is JSON-able; `origin` is (name, commit number) for a fork."""

    name: str
    uuid: str
    spec: Mapping[str, Any] | None = None
    origin: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """One commit of a system. `number` counts from 0 within the system's history; `parent` is None for the first.

    `stress` and `residual_norm` are of the state that the commit consumed (its parent's), or None where no
    job measured them. `digest` is the hex digest of the state that the commit made. `changed` counts nodes.
    """

    number: int
    parent: int | None
    changed: int
    stress: float | None
    residual_norm: float | None
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class NodeColumns:
    """Rows of one arena: n nodes that share attribute, shape and dtype.

    Parameters
    ----------
    attr : str
        Attribute name, such as ``"theta"`` or ``"p"``; see `is_attr`.
    ids, versions : ndarray of int64, shape (n,)
    fixed : ndarray of bool, shape (n,)
    values : ndarray, shape (n, …)
    """

    attr: str
    ids: NDArray[np.int64]
    versions: NDArray[np.int64]
    fixed: NDArray[np.bool_]
    values: NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """All nodes of a system at one commit, one `NodeColumns` an arena, rows by ascending id."""

    commit: CommitRecord
    columns: list[NodeColumns] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class NodeValues:
    """The values that one attribute of a system's nodes had at the versions that were asked for."""

    system: str
    attr: str
    _kept: dict[int, tuple[list[int], list[NDArray[Any]]]] = field(
        default_factory=lambda: defaultdict(lambda: ([], []))
    )

    def at(self, node_id: int, version: int) -> NDArray[Any] | None:
        """The attribute of a node at a version, None where the system has no such node or never committed it."""
        versions, values = self._kept.get(node_id, ((), ()))
        place = bisect_right(versions, version)
        return values[place - 1] if place else None

    def keep(self, node_id: int, version: int, value: NDArray[Any], wanted: Sequence[int]) -> None:
        """Take in a row of the history, oldest first, where a wanted version may be answered by it."""
        if bisect_left(wanted, version) == len(wanted):
            return
        versions, values = self._kept[node_id]
        # A row that another follows before the next wanted version answers nothing.
        if versions and bisect_left(wanted, versions[-1]) == bisect_left(wanted, version):
            versions.pop()
            values.pop()
        versions.append(version)
        values.append(value)
