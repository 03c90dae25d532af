"""A system: a named set of nodes with its commit history, what an experiment resumes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from whiteboard import bins, state
from whiteboard.errors import (
    NonFiniteError,
    ParamError,
    ShapeError,
    UnknownNodeError,
    UnknownSystemError,
    WhiteboardError,
)
from whiteboard.impulses import Impulses, Inbox, Sums
from whiteboard.jobs import BatchResult, Job, JobBatch, OpResult, batches, ids_column, real_column
from whiteboard.keys import digest, encode
from whiteboard.nodes import Arena, Nodes
from whiteboard.ops.spec import OpSpec
from whiteboard.pipeline import Pipeline
from whiteboard.propagate import Propagated, propagate
from whiteboard.rules import Rule
from whiteboard.sources import check_dtype, locate
from whiteboard.storage.base import CommitRecord, State, SystemRecord, VersionStore
from whiteboard.types import Array, Ids, ResultSink


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of a system.

    Attributes
    ----------
    id : int
        Position in the system's history, from 0.
    parent : int or None
        The commit before it.
    changed : int
        Number of nodes that are new or got a new version.
    stress : float or None
        Σσ² over the jobs with targets that it consumed, so of its parent's state; None without such jobs.
    residual_norm : float or None
        √Σr² over all residuals that it consumed, likewise.
    digest : str
        Hex digest of the state it made.
    """

    id: int
    parent: int | None
    changed: int
    stress: float | None
    residual_norm: float | None
    digest: str


class Snapshot:
    """A system as it stood at one commit, to read: `commit`, `nodes` and `digest()`."""

    def __init__(self, kept: State) -> None:
        self.commit = _commit(kept.commit)
        self.nodes = state.load(kept.columns)

    def digest(self) -> str:
        """Return the hex digest of (ids, versions, attribute bytes)."""
        return state.digest(self.nodes)


class System:
    """A named set of nodes; `Board.system` opens or creates it.

    Every method may be called from any thread. `process` and `commit` exclude one another, so what a commit
    consumes was computed from the very versions that it moves.
    """

    def __init__(
        self,
        record: SystemRecord,
        kept: State | None,
        store: VersionStore,
        pipeline: Pipeline,
        op: Callable[[str], OpSpec],
    ) -> None:
        self._record, self._store, self._pipeline, self._op = record, store, pipeline, op
        self._lock = threading.RLock()
        self._inbox = Inbox()
        self._head = None if kept is None else _commit(kept.commit)
        self.nodes = Nodes() if kept is None else state.load(kept.columns)
        self._committed = len(self.nodes)

    @property
    def name(self) -> str:
        """The system's name, unique in its store."""
        return self._record.name

    @property
    def spec(self) -> Mapping[str, Any] | None:
        """The specification it was made with, or None."""
        return self._record.spec

    @property
    def head(self) -> Commit | None:
        """The last commit, or None before the first."""
        return self._head

    def add_nodes(
        self,
        ids: ArrayLike,
        theta: ArrayLike | None = None,
        p: ArrayLike | None = None,
        fixed: bool | ArrayLike = False,
    ) -> None:
        """Add n nodes at version 0; they are durable with the next commit.

        Parameters
        ----------
        ids : array_like of int, shape (n,)
        theta : array_like of float, shape (n, …), optional
        p : array_like of float, shape (n, d), optional
            At least one of `theta` and `p`; float32 or float64.
        fixed : bool or array_like of bool, shape (n,)
            Fixed nodes take no impulses.

        Raises
        ------
        DuplicateNodeError, ShapeError, DtypeError
            Nothing is added then.
        """
        where = f"system {self.name!r}: add_nodes"
        column = np.atleast_1d(ids_column(ids, f"{where}: ids"))
        if column.ndim != 1:
            msg = f"{where}: ids: expected shape (n,), got {column.shape}"
            raise ShapeError(msg)
        given = {"theta": theta, "p": p}
        attrs = {
            name: _attribute(value, len(column), f"{where}: {name}")
            for name, value in given.items()
            if value is not None
        }
        if not attrs:
            msg = f"{where}: give theta, p or both"
            raise ShapeError(msg)
        if "p" in attrs and attrs["p"].ndim != 2:
            msg = f"{where}: p: expected shape ({len(column)}, d), got {attrs['p'].shape}"
            raise ShapeError(msg)
        flags = np.asarray(fixed)
        if flags.dtype != np.bool_ or flags.shape not in ((), column.shape):
            msg = (
                f"{where}: fixed: expected bool of shape () or {column.shape}, got {flags.dtype} of shape {flags.shape}"
            )
            raise ShapeError(msg)
        with self._lock:
            versions = np.zeros(len(column), np.int64)
            self.nodes.add(column, versions, np.array(np.broadcast_to(flags, column.shape)), attrs)

    @overload
    def process(self, jobs: JobBatch, sink: ResultSink | None = None) -> BatchResult: ...
    @overload
    def process(self, jobs: Sequence[Job], sink: ResultSink | None = None) -> list[OpResult]: ...
    def process(self, jobs: JobBatch | Sequence[Job], sink: ResultSink | None = None) -> BatchResult | list[OpResult]:
        """Answer jobs, from the cache or by computing, and take in the impulses of those with residual or target.

        Parameters
        ----------
        jobs : JobBatch or sequence of Job
        sink : ResultSink, optional
            Gets each `OpResult` in order, or the one `BatchResult`.

        Raises
        ------
        UnknownOpError, UnknownNodeError, ShapeError, DtypeError, ParamError, NonFiniteError
            The message names the op, the job and the slot. No impulse of the call is taken in then.
        """
        with self._lock:
            results = self._batch(jobs) if isinstance(jobs, JobBatch) else self._list(jobs)
        if sink is not None:
            for result in (results,) if isinstance(results, BatchResult) else results:
                sink.publish(result)
        return results

    def _batch(self, batch: JobBatch) -> BatchResult:
        done = propagate(self.nodes, self._pipeline, self._op(batch.op), batch)
        self._inbox.push(done.impulses, done.measures)
        return done.result

    def _list(self, jobs: Sequence[Job]) -> list[OpResult]:
        placed: dict[int, OpResult] = {}
        parts: list[Propagated] = []
        for at, batch in batches(jobs):
            spec = self._op(batch.op)
            _, arena, _ = locate(self.nodes, batch)
            for rows in bins.by_signature(arena):
                part = propagate(self.nodes, self._pipeline, spec, batch.take(rows))
                placed.update(zip(at[rows].tolist(), part.result, strict=True))
                parts.append(part)
        for part in parts:  # only now: a job that fails leaves no impulse of the others behind
            self._inbox.push(part.impulses, part.measures)
        return [placed[position] for position in range(len(jobs))]

    def impulse(self, src_id: int, out_id: int | None, op_name: str, vector: ArrayLike) -> None:
        """Push one impulse of weight 1 onto the theta of `src_id`; a fixed node takes none.

        Raises
        ------
        UnknownNodeError, ShapeError, DtypeError, NonFiniteError
        """
        where = f"op {op_name!r}: impulse on node {src_id!r} from {out_id!r}"
        with self._lock:
            index = self.nodes.index(np.atleast_1d(ids_column(src_id, where)))
            arena, rows = self.nodes.locate("theta", index)
            if index[0] < 0 or arena[0] < 0:
                msg = f"{where}: {'no such node' if index[0] < 0 else 'the node has no theta'}"
                raise UnknownNodeError(msg)
            to = self.nodes.arenas[int(arena[0])]
            value = real_column(vector, where).astype(to.dtype)
            if value.shape != to.shape:
                msg = f"{where}: expected shape {to.shape}, got {value.shape}"
                raise ShapeError(msg)
            if not np.isfinite(value).all():
                msg = f"{where}: the impulse is not finite"
                raise NonFiniteError(msg)
            if not self.nodes.fixed[index[0]]:
                key = np.frombuffer(digest(encode((op_name, out_id))), np.uint8)[None]
                one = Impulses(int(arena[0]), rows, key, np.zeros(1, np.int64), np.ones(1), value[None])
                self._inbox.push([one])

    def commit(self, rule: Rule | None = None) -> Commit:
        """Consume all impulses in one atomic, durable step.

        Parameters
        ----------
        rule : callable, optional
            ``rule(rows, sums) → new rows``; without impulses it is not called and may be None.

        Raises
        ------
        NonFiniteError, ShapeError, ParamError
            For what the rule returned. State, impulses and store are as before.
        StoreError, ConflictError
            The commit could not be written. State, impulses and store are as before.
        """
        with self._lock:
            steps = self._steps(rule)
            undo = [(arena, rows, arena.values[rows]) for arena, rows, _ in steps.values()]
            moved = np.unique(np.concatenate([np.empty(0, np.int64), *(arena.owner[rows] for arena, rows, _ in undo)]))
            for arena, rows, values in steps.values():
                arena.write(rows, values)
            self.nodes.versions[moved] += 1
            record = self._record_of(moved)
            try:
                self._store.append(self._record, record, self._changed(steps), lambda: state.dump(self.nodes))
            except BaseException as error:
                # An interrupt may come after the store's own commit; what the store refuses has not landed.
                if not isinstance(error, WhiteboardError) and self._landed(record):
                    self._advance(record)
                    raise
                for arena, rows, values in undo:
                    arena.write(rows, values)
                self.nodes.versions[moved] -= 1
                raise
            return self._advance(record)

    def _steps(self, rule: Rule | None) -> dict[int, tuple[Arena, Ids, Array]]:
        """Ask the rule for the new rows of every arena with impulses; keep those whose bytes changed."""
        steps = {}
        for number, (rows, sums) in self._inbox.sums().items():
            arena = self.nodes.arenas[number]
            if rule is None:
                msg = f"system {self.name!r}: commit: {len(self._inbox)} impulses wait, so a rule is needed"
                raise ParamError(msg)
            new = self._ruled(rule, arena, rows, sums)
            differs = (_bytes(arena.values[rows]) != _bytes(new)).any(axis=1)
            if differs.any():
                steps[number] = (arena, rows[differs], new[differs])
        return steps

    def _ruled(self, rule: Rule, arena: Arena, rows: Ids, sums: Sums) -> Array:
        old = arena.values[rows]
        old.flags.writeable = False
        with np.errstate(all="ignore"):  # refused below, with the nodes' ids
            new = np.ascontiguousarray(rule(old, sums))
        where = f"system {self.name!r}: commit: rule {type(rule).__name__}"
        if new.shape != old.shape or new.dtype != old.dtype:
            msg = f"{where}: expected {old.dtype} of shape {old.shape}, got {new.dtype} of shape {new.shape}"
            raise ShapeError(msg)
        bad = ~np.isfinite(new).all(axis=tuple(range(1, new.ndim)))
        if bad.any():
            ids = self.nodes.ids[arena.owner[rows[bad]]]
            names = ", ".join(map(str, ids[:5])) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
            msg = f"{where}: the new {arena.attr} of node {names} is not finite"
            raise NonFiniteError(msg)
        return new

    def _record_of(self, moved: Ids) -> CommitRecord:
        new = np.arange(self._committed, len(self.nodes))
        return CommitRecord(
            0 if self._head is None else self._head.id + 1,
            None if self._head is None else self._head.id,
            len(np.union1d(moved, new)),
            self._inbox.stress(),
            self._inbox.residual_norm(),
            state.digest(self.nodes),
        )

    def _changed(self, steps: Mapping[int, tuple[Arena, Ids, Array]]) -> list[Any]:
        """Return the rows that moved and those of nodes added since the last commit."""
        changed = {}
        for number, arena in enumerate(self.nodes.arenas):
            moved = steps[number][1] if number in steps else np.empty(0, np.int64)
            changed[number] = np.union1d(moved, np.flatnonzero(arena.owner >= self._committed))
        return state.dump(self.nodes, changed)

    def _landed(self, record: CommitRecord) -> bool:
        try:
            return self._store.commits(self.name)[-1:] == [record]
        except WhiteboardError:
            return False

    def _advance(self, record: CommitRecord) -> Commit:
        self._head = _commit(record)
        self._committed = len(self.nodes)
        self._inbox.clear()
        return self._head

    def digest(self) -> str:
        """Return the hex digest of (ids, versions, attribute bytes), uncommitted nodes included."""
        with self._lock:
            return state.digest(self.nodes)

    def history(self) -> list[Commit]:
        """Return all commits, oldest first."""
        try:
            return [_commit(record) for record in self._store.commits(self.name)]
        except UnknownSystemError:  # nothing is committed yet
            return []

    def at(self, commit_id: int) -> Snapshot:
        """Return the system as it stood at a commit, to read.

        Raises
        ------
        UnknownCommitError
        """
        return Snapshot(self._store.state(self.name, commit_id))


def _commit(record: CommitRecord) -> Commit:
    return Commit(record.number, record.parent, record.changed, record.stress, record.residual_norm, record.digest)


def _attribute(value: ArrayLike, n: int, where: str) -> Array:
    array = np.array(value, order="C")
    check_dtype(array.dtype, where)
    if array.ndim == 0 or len(array) != n:
        msg = f"{where}: expected shape ({n}, …), got {array.shape}"
        raise ShapeError(msg)
    return array


def _bytes(rows: Array) -> Array:
    """View m contiguous rows as bytes, (m, row bytes)."""
    return rows.reshape(len(rows), math.prod(rows.shape[1:])).view(np.uint8)
