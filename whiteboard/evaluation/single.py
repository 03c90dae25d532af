"""One job that lies in memory, answered without arrays about arrays: bits, checks and counts are those of columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from whiteboard.errors import ParamError
from whiteboard.evaluation import contents
from whiteboard.evaluation.agreement import Agreement
from whiteboard.identity import keys
from whiteboard.identity.arithmetic import arithmetic_class
from whiteboard.ops.spec import OpSpec
from whiteboard.records.packages import Page
from whiteboard.storage.base import PackageStore
from whiteboard.types import FLOATS, Array, Params

_FLOATS: Final = frozenset(map(id, FLOATS))
"""NumPy has one object for each dtype in the machine's byte order; an array with another one goes the longer way."""

_MOST: Final = 1000
"""Prefixes that are kept, each with its op, whose `id` is then no other's."""


class One(NamedTuple):
    """What one job gives: y, one gradient a source, read-only, and its hit code."""

    y: Array
    grads: tuple[Array, ...]
    hit: int


def held(
    store: PackageStore, agreement: Agreement, spec: OpSpec, params: Params | None, sources: Sequence[Any]
) -> tuple[Page, int] | None:
    """Return the page and row in memory of one job over arrays, or None where columns have to answer it.

    These answer whatever is out of the ordinary: a miss, an error, sources that are no plain arrays, ops that are known
    by a program or hold Jacobians, and hits that are due to be checked.
    """
    if spec.program is not None or spec.fingerprint is None or spec.gradient == "jacobian" or not sources:
        return None
    dtype = getattr(sources[0], "dtype", None)
    if id(dtype) not in _FLOATS:
        return None
    for source in sources:
        if type(source) is not np.ndarray or source.dtype is not dtype:
            return None
    if spec.user and agreement.distrusts(spec):
        return None
    try:
        scheme = keys.scheme_of([source.nbytes for source in sources])
        prefix = _prefix(spec, params, len(sources), scheme)
        place = store.find_one(keys.key_of(prefix, sources))
    except (ParamError, ValueError):  # parameters without canonical bytes; an array that does not lie in one piece
        return None
    if place is None or (spec.user and not agreement.passes(spec, place[0].cost_ns / place[0].n)):
        return None
    return place


_known: dict[tuple[int, bytes, int, bytes], tuple[OpSpec, bytes]] = {}


def _prefix(spec: OpSpec, params: Params | None, fan_in: int, scheme: bytes) -> bytes:
    """Return what the keys of an op begin from; of one without parameters and settings it is made once."""
    kind = contents.kind(spec, None)
    if params or spec.params or spec.settings is not None:
        return keys.key_prefix(keys.Identity.of(spec, spec.bind(params), kind), fan_in, scheme)
    asked = id(spec), arithmetic_class(portable=spec.exactness == "portable", blas=spec.blas), fan_in, scheme
    if (known := _known.get(asked)) is None:
        if len(_known) > _MOST:
            _known.clear()
        prefix = keys.key_prefix(keys.Identity.of(spec, spec.bind(params), kind), fan_in, scheme)
        known = _known[asked] = spec, prefix
    return known[1]


def taken(page: Page, row: int) -> tuple[Array, tuple[Array, ...]]:
    """Return y and what lies beside it of one package, read-only, in memory that keeps no more alive than itself."""
    alone = page.n == 1
    taken = []
    for name in ("y", *(f"g{slot}" for slot in range(len(page.arrays) - 1))):
        value = page.arrays[name][row]
        if value.ndim:  # else it is a number, which nobody can write to
            if not alone:
                value = value.copy()
            value.flags.writeable = False
        taken.append(value)
    return taken[0], tuple(taken[1:])
