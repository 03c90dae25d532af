"""A system: a named set of nodes with its commit history, what an experiment resumes."""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NoReturn, overload

import numpy as np
from numpy.typing import ArrayLike

from whiteboard.errors import (
    ParamError,
    ShapeError,
    StaleImpulseError,
    UnansweredError,
    UnknownCommitError,
    UnknownSystemError,
    WhiteboardError,
)
from whiteboard.evaluation.columns import ids_column
from whiteboard.evaluation.pipeline import Pipeline, check_errors
from whiteboard.ops.spec import OpSpec
from whiteboard.records.systems import CommitRecord, State, SystemRecord
from whiteboard.storage.base import VersionStore
from whiteboard.systems import attributes, specification, state
from whiteboard.systems.answering import answer_batch, answer_list
from whiteboard.systems.history import Commit, Snapshot
from whiteboard.systems.impulses import Parcel
from whiteboard.systems.jobs import BatchResult, Job, JobBatch, OpResult
from whiteboard.systems.node_impulse import impulse
from whiteboard.systems.nodes import Nodes
from whiteboard.systems.rounds import Round, Step, prepare
from whiteboard.systems.rules import Rule
from whiteboard.systems.sinks import check_sink
from whiteboard.types import Errors, OpLike, ResultSink

_log = logging.getLogger(__name__)


class System:
    """A named set of nodes; `Board.system` opens or creates it.

    Every method may be called from any thread. `process` and `commit` exclude one another, so what a commit
    consumes was computed from the very versions that it moves. A KeyboardInterrupt, at whatever line, leaves the state
    before a call or the one after it: `head` and `waiting` say which.
    """

    def __init__(
        self,
        record: SystemRecord,
        kept: State | None,
        store: VersionStore,
        pipeline: Pipeline,
        op: Callable[[OpLike], OpSpec],
        make: Callable[[SystemRecord, State | None], System],
        claim: Callable[[], None],
    ) -> None:
        self._record, self._store, self._pipeline, self._op, self._make = record, store, pipeline, op, make
        self._claim, self._claimed = claim, False
        self.nodes = Nodes() if kept is None else state.load(kept.columns)
        self.nodes.written_by(self._write)
        self._lock = self.nodes.lock
        self._round = Round.after(None if kept is None else Commit.of(kept.commit), self.nodes)
        self._step: Step | None = None

    def __repr__(self) -> str:
        where = "before its first commit" if self.head is None else f"at commit {self.head.id}"
        return f"<system {self.name!r} {where}: {len(self.nodes):,} nodes>"

    def __reduce__(self) -> NoReturn:
        msg = f"{self!r} cannot be pickled or copied: open it in each process, or fork it"
        raise ParamError(msg)

    def _begin(self) -> None:
        """Become the system's writer, at the first call that needs it, and before anything is computed."""
        if not self._claimed:
            self._claim()
            self._claimed = True

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
        with self._lock:
            self.settle()
            return self._round.head

    @property
    def waiting(self) -> int:
        """Impulses and writes that the next commit will consume."""
        with self._lock:
            self.settle()
            return len(self._round.inbox) + sum(map(len, self._round.written.values()))

    def discard(self) -> None:
        """Forget the impulses and writes that wait, as if they had never come: to begin a round anew."""
        with self._lock:
            self.settle()
            self._round.inbox.consume()
            self._round = Round(self._round.head, self._round.committed, self._round.rows)

    def settle(self) -> None:
        """Finish a commit that an interrupt came through; for whoever has `nodes.lock`, before the state is read.

        Raises
        ------
        StoreError
            It cannot be said whether the commit has landed, as the store cannot be read: nothing is said then.
        """
        step = self._step
        if step is not None:
            if self._landed(step.record):
                self._advance(step)
            else:
                self._step = None
        self.nodes.settle()

    def add_nodes(
        self,
        ids: ArrayLike,
        theta: ArrayLike | None = None,
        p: ArrayLike | None = None,
        fixed: bool | ArrayLike = False,
        *,
        attrs: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        """Add n nodes at version 0; they are durable with the next commit.

        Parameters
        ----------
        ids : array_like of int, shape (n,)
        theta : array_like of float, shape (n, …), optional
        p : array_like of float, shape (n, d), optional
        fixed : bool or array_like of bool, shape (n,)
            Fixed nodes take no impulses.
        attrs : mapping of str to array_like of float, shape (n, …), optional
            Any other attributes by name. Of all attributes at least one; float32 or float64.

        Raises
        ------
        DuplicateNodeError, ShapeError, DtypeError, ParamError
            Nothing is added then.
        """
        where = f"system {self.name!r}: add_nodes"
        column = np.atleast_1d(ids_column(ids, f"{where}: ids"))
        if column.ndim != 1:
            msg = f"{where}: ids: expected shape (n,), got {column.shape}"
            raise ShapeError(msg)
        columns = attributes.of_new_nodes(len(column), {"theta": theta, "p": p}, attrs or {}, where)
        flags = np.asarray(fixed)
        if flags.dtype != np.bool_ or flags.shape not in ((), column.shape):
            msg = (
                f"{where}: fixed: expected bool of shape () or {column.shape}, got {flags.dtype} of shape {flags.shape}"
            )
            raise ShapeError(msg)
        with self._lock:
            self.settle()
            self._begin()
            versions = np.zeros(len(column), np.int64)
            self.nodes.add(column, versions, np.array(np.broadcast_to(flags, column.shape)), columns)

    def add_attribute(self, name: str, ids: ArrayLike, values: ArrayLike) -> None:
        """Give n nodes an attribute that they do not have; it can be read at once, and is durable with the next commit.

        Their versions go up by one with that commit; commits before it are as they were.

        Parameters
        ----------
        name : str
        ids : array_like of int, shape (n,)
            Nodes of the system, fixed or not.
        values : array_like of float, shape (n, …)
            float32 or float64.

        Raises
        ------
        UnknownNodeError, ShapeError, DtypeError, ParamError
            Nothing is added then; `ParamError` also where a node has the attribute already.
        """
        where = f"system {self.name!r}: add_attribute"
        with self._lock:
            self.settle()
            self._begin()
            index, column = attributes.new_to_nodes(self.nodes, name, ids, values, where)
            self.nodes.attach(name, index, column)

    @overload
    def process(self, jobs: JobBatch, sink: ResultSink | None = None, *, errors: Errors = "raise") -> BatchResult: ...
    @overload
    def process(
        self, jobs: Sequence[Job], sink: ResultSink | None = None, *, errors: Errors = "raise"
    ) -> list[OpResult]: ...
    @overload
    def process(
        self, jobs: JobBatch | Sequence[Job], sink: ResultSink | None = None, *, errors: Errors = "raise"
    ) -> BatchResult | list[OpResult]: ...
    def process(
        self, jobs: Any, sink: ResultSink | None = None, *, errors: Errors = "raise"
    ) -> BatchResult | list[OpResult]:
        """Answer jobs, from the cache or by computing, and take in the impulses of those with residual or target.

        Parameters
        ----------
        jobs : JobBatch or sequence of Job
        sink : ResultSink, optional
            Gets each `OpResult` in order, or the one `BatchResult`, before their impulses are taken in.
        errors : {"raise", "collect"}
            What becomes of jobs that fail, or whose impulse is not finite. What the others gave is kept in any case;
            with ``collect`` their impulses are taken in too, and the results say what each of those raised.

        Raises
        ------
        JobsError
            Jobs of several failed; of one job alone what it raised.
        UnknownOpError, UnknownNodeError, ShapeError, DtypeError, ParamError, NonFiniteError
            The message names the op, the job and the slot. No impulse of the call is taken in then, nor where the sink
            raises.
        """
        if not isinstance(jobs, JobBatch | Sequence) or isinstance(jobs, str):
            msg = f"system {self.name!r}: process: expected a JobBatch or a sequence of Job, got {type(jobs).__name__}"
            raise ParamError(msg)
        check_errors(errors, f"system {self.name!r}: process")
        check_sink(sink, f"system {self.name!r}: process")
        with self._lock:
            results, parcel = self.answer(jobs, errors)
            if sink is not None:
                for result in (results,) if isinstance(results, BatchResult) else results:
                    sink.publish(result)
            self.receive(parcel)  # only now: a job or a sink that fails leaves no impulse behind
        return results

    @overload
    def answer(self, jobs: JobBatch, errors: Errors = ...) -> tuple[BatchResult, Parcel]: ...
    @overload
    def answer(self, jobs: Sequence[Job], errors: Errors = ...) -> tuple[list[OpResult], Parcel]: ...
    @overload
    def answer(
        self, jobs: JobBatch | Sequence[Job], errors: Errors = ...
    ) -> tuple[BatchResult | list[OpResult], Parcel]: ...
    def answer(self, jobs: Any, errors: Errors = "raise") -> tuple[BatchResult | list[OpResult], Parcel]:
        """As `process`, but what the jobs send is returned and not taken in; for whoever has `nodes.lock`."""
        self.settle()
        self._begin()
        results: BatchResult | list[OpResult]
        if isinstance(jobs, JobBatch):
            results, parts = answer_batch(jobs, self.nodes, self._pipeline, self._op, errors)
        else:
            results, parts = answer_list(jobs, self.nodes, self._pipeline, self._op, errors, self._record.name)
        impulses = chain.from_iterable(part.impulses for part in parts)
        return results, Parcel.of(impulses, chain.from_iterable(part.measures for part in parts))

    def receive(self, parcel: Parcel) -> None:
        """Take in what `answer` returned, before any commit; for whoever has `nodes.lock` since then."""
        self._round.inbox.push(parcel)

    def has_taken(self, parcel: Parcel) -> bool:
        """Whether a parcel was taken in, by whatever call, since it was made."""
        with self._lock:
            self.settle()
            return parcel.consumed or self._round.inbox.holds(parcel)

    def is_current(self, result: OpResult) -> bool:
        """Return whether all sources of a result still have the versions that it was computed from."""
        with self._lock:
            self.settle()
            index = self.nodes.index(np.array(result.src_ids, np.int64))
            return bool((index >= 0).all()) and self.nodes.versions[index].tolist() == list(result.versions)

    def versions(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return the present versions of some nodes, -1 for a node that is not there."""
        with self._lock:
            self.settle()
            index = self.nodes.index(ids_column(ids, "versions"))
            return tuple(np.where(index < 0, -1, self.nodes.versions[index]).tolist()) if len(self.nodes) else ()

    def impulse(
        self,
        src_id: int,
        out_id: int | None,
        op_name: str,
        vector: ArrayLike,
        *,
        version: int | None = None,
        attr: str = "theta",
    ) -> None:
        """Push one impulse of weight 1 onto an attribute of `src_id`; a fixed node takes none.

        Parameters
        ----------
        vector : array_like of the attribute's shape
        version : int, optional
            The version of `src_id` that it was made against, checked where it is given.

        Raises
        ------
        UnknownNodeError, ShapeError, DtypeError, NonFiniteError
        StaleImpulseError
            The node has another version than `version`.
        """
        with self._lock:
            self.settle()
            self._begin()
            one = impulse(self.nodes, src_id, out_id, op_name, vector, version, attr)
            if not self.nodes.fixed[self.nodes.arenas[one.arena].owner[one.rows[0]]]:
                self._round.inbox.push(Parcel.of([one]))

    def retract(
        self,
        src_id: int,
        out_id: int | None,
        op_name: str,
        vector: ArrayLike,
        *,
        version: int | None = None,
        attr: str = "theta",
    ) -> None:
        """Take an impulse out again that `impulse` was given, with the same arguments; it leaves no trace.

        Raises
        ------
        StaleImpulseError
            No such impulse waits: it was never pushed, is retracted already, or a commit has consumed it.
        """
        with self._lock:
            self.settle()
            one = impulse(self.nodes, src_id, out_id, op_name, vector, version, attr)
            fixed = self.nodes.fixed[self.nodes.arenas[one.arena].owner[one.rows[0]]]
            if not fixed and not self._round.inbox.retract(one):
                msg = f"op {op_name!r}: no such impulse on node {src_id} from {out_id} waits: retracted, or committed"
                raise StaleImpulseError(msg)

    def write(
        self, node_id: int, *, theta: ArrayLike | None = None, p: ArrayLike | None = None, **attrs: ArrayLike | None
    ) -> None:
        """Set attributes of a node, fixed or not, with the next commit; ``nodes[7].ctrl = x`` does the same.

        Raises
        ------
        UnknownNodeError, ShapeError, DtypeError, NonFiniteError
        ParamError
            The node was written with another value since the last commit: which one counts would be a matter of order.
        """
        given = {"theta": theta, "p": p, **attrs}
        self._write(node_id, {attr: value for attr, value in given.items() if value is not None})

    def _write(self, node_id: int, values: Mapping[str, ArrayLike]) -> None:
        with self._lock:
            self.settle()
            self._begin()
            self._round = self._round.writing(self.nodes, node_id, values, f"system {self.name!r}: write")

    def commit(self, rule: Rule | None = None) -> Commit:
        """Consume all impulses and writes in one atomic, durable step.

        Parameters
        ----------
        rule : callable, optional
            ``rule(rows, sums) → new rows``; without impulses it is not called and may be None.

        Raises
        ------
        NonFiniteError, ShapeError, ParamError
            For what the rule returned, or for a node that has impulses and was written. Nothing has changed.
        StoreError, ConflictError
            The commit could not be written. Nothing has changed.
        UnansweredError
            A server's answer was lost. What is asked of the system next, as `head`, reads first whether it was done.
        """
        with self._lock:
            self.settle()
            self._begin()
            step = prepare(self._round, self.nodes, rule, f"system {self.name!r}: commit")
            changed = state.dump(step.ahead, self._round.changed(self.nodes, step.ahead.changes))
            # From here on whoever comes next asks the store whether it has landed, wherever an interrupt comes.
            self._step = step
            try:
                self._store.append(self._record, step.record, changed, lambda: state.dump(step.ahead))
            except UnansweredError:
                raise  # whoever comes next asks the store
            except WhiteboardError:
                self._step = None  # what the store refuses has not landed
                raise
            return self._advance(step)

    def _landed(self, record: CommitRecord) -> bool:
        try:
            last = self._store.commits(self.name)[-1:]
        except UnknownSystemError:  # it would have been the first
            return False
        return [(each.number, each.digest) for each in last] == [(record.number, record.digest)]

    def _advance(self, step: Step) -> Commit:
        """Bring what is in memory to a commit that has landed; done twice it is as if done once."""
        self.nodes.advance(list(step.ahead.changes.values()), step.ahead.versions)
        self._round.inbox.consume()
        head = Commit.of(step.record)
        _log.debug("system %r: commit %d, %d nodes changed", self.name, head.id, head.changed)
        self._round = Round.after(head, self.nodes)
        self._step = None
        return head

    def digest(self) -> str:
        """Return the hex digest of (ids, versions, attribute bytes), uncommitted nodes included."""
        with self._lock:
            self.settle()
            return state.digest(state.Ahead.now(self.nodes))

    def history(self) -> list[Commit]:
        """Return all commits, oldest first."""
        try:
            return [Commit.of(record) for record in self._store.commits(self.name)]
        except UnknownSystemError:  # nothing is committed yet
            return []

    def at(self, commit_id: int) -> Snapshot:
        """Return the system as it stood at a commit, to read.

        Raises
        ------
        UnknownCommitError
        """
        return Snapshot(self._kept(commit_id))

    def fork(self, name: str, at: int | None = None) -> System:
        """Create a system that goes on from a commit of this one, and shares all that came before.

        Parameters
        ----------
        name : str
            Its name, new in the store.
        at : int, optional
            The commit; the last one where it is None.

        Raises
        ------
        UnknownCommitError, SpecError
        ParamError
            For a name that cannot be one.
        """
        specification.check_name(name)
        head = self.head
        kept = self._kept(head.id if at is None and head is not None else at)
        record = SystemRecord(name, os.urandom(16).hex(), self.spec, (self.name, kept.commit.number))
        self._store.fork(record)
        return self._make(record, kept)

    def _kept(self, commit_id: int | None) -> State:
        if self.head is None or commit_id is None:
            msg = f"system {self.name!r} has no commit yet"
            raise UnknownCommitError(msg)
        try:
            number = operator.index(commit_id)
        except TypeError as error:
            msg = f"system {self.name!r}: expected the number of a commit, got {commit_id!r}"
            raise ParamError(msg) from error
        if not 0 <= number <= self.head.id:
            msg = f"system {self.name!r} has no commit {number}: it stands at commit {self.head.id}"
            raise UnknownCommitError(msg)
        return self._store.state(self.name, number)
