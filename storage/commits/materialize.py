"""The state of a system out of the pages of several commits: the last row of each node, by arena."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard.records.systems import NodeColumns


def latest(columns: Sequence[NodeColumns]) -> list[NodeColumns]:
    """The last row of each (attribute, node): arenas by attribute, shape and dtype, their rows by ascending id."""
    arenas: dict[tuple[Any, ...], list[tuple[int, NodeColumns]]] = {}
    for order, column in enumerate(columns):
        key = (column.attr, column.values.shape[1:], column.values.dtype.str)
        arenas.setdefault(key, []).append((order, column))
    last = _last_places(columns)
    made = []
    for (attr, *_), members in sorted(arenas.items(), key=lambda item: item[0]):
        ids = np.concatenate([column.ids for _, column in members])
        place = np.concatenate([_places(order, len(column.ids)) for order, column in members])
        wanted_ids, wanted = last[attr]
        keep = np.flatnonzero(wanted[np.searchsorted(wanted_ids, ids)] == place)
        keep = keep[np.argsort(ids[keep])]
        if len(keep):
            made.append(
                NodeColumns(
                    attr,
                    *(
                        _frozen(np.concatenate([getattr(column, name) for _, column in members])[keep])
                        for name in ("ids", "versions", "fixed", "values")
                    ),
                )
            )
    return made


def _last_places(columns: Sequence[NodeColumns]) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each attribute, its node ids in order and the place where each was written last."""
    places: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    for attr in {column.attr for column in columns}:
        members = [(order, column.ids) for order, column in enumerate(columns) if column.attr == attr]
        ids = np.concatenate([mine for _, mine in members])
        place = np.concatenate([_places(order, len(mine)) for order, mine in members])
        unique, inverse = np.unique(ids, return_inverse=True)
        last = np.full(len(unique), -1, np.int64)
        np.maximum.at(last, inverse, place)
        places[attr] = unique, last
    return places


def _places(order: int, n: int) -> NDArray[np.int64]:
    return (np.int64(order) << 32) + np.arange(n, dtype=np.int64)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
