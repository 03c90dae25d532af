"""Foreign answers: from calls over foreign nodes to results, and to the impulses that they send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from whiteboard import ops
from whiteboard.errors import DtypeError
from whiteboard.evaluation.pipeline import Pipeline
from whiteboard.evaluation.sources import ArraySources
from whiteboard.integration.foreign_calls import Call
from whiteboard.integration.foreign_nodes import HasNodes, Slot, look, value_of
from whiteboard.systems.jobs import BatchResult, JobBatch, OpResult, batches
from whiteboard.systems.propagate import answer, raised, weighted
from whiteboard.types import Array


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """What the sources of one call held when they were read, and which were numbers of Python's: pushed as floats."""

    arrays: tuple[Array, ...]
    floats: tuple[bool, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The result of one call, its impulses, one a source, or none, and, where kept, the values it was computed from."""

    result: OpResult
    vectors: tuple[Any, ...]
    values: Values | None


def read(sys: HasNodes, call: Call, batch: JobBatch, row: int, promote: bool) -> Values:
    """Read the sources of a call, which is a row of a batch.

    Raises
    ------
    UnknownNodeError, DtypeError
        The message names op, job, slot and node.
    """
    ids = call.job.src_ids
    found = [value_of(sys, ids[slot], how, promote, Slot(batch, row, slot)) for slot, how in enumerate(call.reads)]
    return Values(tuple(array for array, _ in found), tuple(is_float for _, is_float in found))


def answers(
    sys: HasNodes,
    pipeline: Pipeline,
    calls: Sequence[Call],
    *,
    promote: bool = False,
    keep: bool = False,
    kept: Values | None = None,
) -> list[Answer]:
    """Answer calls; nothing is pushed.

    Parameters
    ----------
    promote : bool
        Read values of any real dtype as float64.
    keep : bool
        Keep the values that were read.
    kept : Values, optional
        What the sources of the one call held, where they are not to be read again.

    Raises
    ------
    UnknownNodeError, ShapeError, DtypeError, ParamError, NonFiniteError
        The message names op, job and slot.
    """
    found: dict[int, Answer] = {}
    for at, batch in batches([call.job for call in calls]):
        values = [kept or read(sys, calls[place], batch, row, promote) for row, place in enumerate(at.tolist())]
        groups: dict[tuple[Any, ...], list[int]] = {}
        for row, each in enumerate(values):
            groups.setdefault(tuple((x.shape, x.dtype) for x in each.arrays), []).append(row)
        for rows in groups.values():
            some = batch.take(np.array(rows, np.int64))
            made = _group(sys, pipeline, some, [values[row] for row in rows], keep)
            found.update(zip(at[rows].tolist(), made, strict=True))
    return [found[place] for place in range(len(calls))]


def _group(sys: HasNodes, pipeline: Pipeline, batch: JobBatch, values: Sequence[Values], keep: bool) -> list[Answer]:
    """Answer a batch of one signature."""
    stacked = [np.stack(column) for column in zip(*(each.arrays for each in values), strict=True)]
    result, vectors = _evaluate(sys, pipeline, batch, stacked)
    made = []
    for row, (one, each) in enumerate(zip(result, values, strict=True)):
        floats = zip(vectors, each.floats, strict=False)  # without a residual there are no vectors
        sent = tuple(float(column[row]) if is_float else column[row] for column, is_float in floats)
        # A copy, as the stack is: a foreign system edits its own arrays in place.
        own = Values(tuple(column[row].copy() for column in stacked), each.floats) if keep else None
        made.append(Answer(one, sent, own))
    return made


def _evaluate(
    sys: HasNodes, pipeline: Pipeline, batch: JobBatch, stacked: list[Array]
) -> tuple[BatchResult, list[Array]]:
    """Answer a batch of one signature; return its results and, with a residual, the impulse vectors of each slot."""
    try:
        sources = ArraySources(ops.name_of(batch.op), stacked)
    except DtypeError as error:
        msg = f"{batch.name(0)}: {error}; promote='float64' makes them so"
        raise DtypeError(msg) from error
    unversioned = np.empty((len(batch), 0), np.int64)
    done = answer(pipeline, ops.get(batch.op), batch, sources, unversioned, unversioned, look(sys, batch))
    rows, failed = np.arange(len(batch), dtype=np.int64), dict(done.result.errors)
    vectors = [
        weighted(batch, rows, slot, each, done.weights[:, slot], failed) for slot, each in enumerate(done.pulled)
    ]
    if failed:
        what = f"op {batch.op!r}"
        raise raised(what, len(batch), failed, batch.job)
    return done.result, vectors
