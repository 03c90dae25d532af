"""The board: one open store, the pipeline over it, and the systems in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whiteboard import ops
from whiteboard.concurrency import locks
from whiteboard.errors import ClosedError, ParamError
from whiteboard.evaluation import bins
from whiteboard.evaluation.bound import Bound
from whiteboard.evaluation.buffers import BufferPool
from whiteboard.evaluation.pipeline import Pipeline, check_errors
from whiteboard.evaluation.progress import Reporter, shown
from whiteboard.evaluation.queue import JobQueue, Ticket
from whiteboard.evaluation.sources import ArraySources
from whiteboard.records.packages import HIT_NAMES, Hit, results_told
from whiteboard.storage import open_store
from whiteboard.storage.base import Durability, Persist, Store
from whiteboard.types import Array, Errors, OpLike, Params, Stale

# These are imported where they are used: many processes ask for packages alone.
if TYPE_CHECKING:
    from whiteboard.inspection.asking import Inspection
    from whiteboard.inspection.audit import AuditReport
    from whiteboard.inspection.explain import Explanation
    from whiteboard.inspection.table import Omission, Table
    from whiteboard.records.reports import Evicted, GcReport, Removed, VerifyReport
    from whiteboard.systems.jobs import Job, OpResult
    from whiteboard.systems.opened import OpenSystems
    from whiteboard.systems.submission import Submission
    from whiteboard.systems.system import System
    from whiteboard.workers.client import Workers


@dataclass(slots=True, eq=False)  # frozen, it would take 0.3 of the 7 µs of a hit
class CallResult:
    """Result of `Board.call`: y, one gradient ∂(Σy)/∂xᵢ a source, and "miss", "memory" or "disk".

    Of an op with ``gradient="none"`` the gradients are ().
    """

    y: Array
    grads: tuple[Array, ...]
    hit: Hit


@dataclass(frozen=True, slots=True, eq=False)
class ManyResult:
    """Result of `Board.call_many`: y (n, …), gradients (n, …), hit (n,) uint8 of 0 miss, 1 memory, 2 disk.

    With ``errors="collect"`` also what jobs have raised, by row; y and the gradients of these are NaN.
    """

    y: Array
    grads: tuple[Array, ...]
    hit: NDArray[np.uint8]
    errors: Mapping[int, Exception] = field(default_factory=dict)

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which jobs have failed, (n,)."""
        mask = np.zeros(len(self.hit), np.bool_)
        mask[list(self.errors)] = True
        return mask

    def __repr__(self) -> str:
        return f"<{results_told(self.hit, self.y, len(self.errors))}>"


class Board:
    """One open store and everything that runs over it; made by `open`. A context manager.

    Every method may be called from any thread.
    """

    def __init__(self, store: Store, *, bin_bytes: int, bin_jobs: int, workers: Workers | None = None) -> None:
        self._store, self._workers = store, workers
        ways = {} if workers is None else {"execution": workers.execution}
        thrifty = store.options.persist == "auto"
        self._pipeline = Pipeline(
            store.packages, BufferPool(), max_bin_bytes=bin_bytes, max_bin_jobs=bin_jobs, thrifty=thrifty, **ways
        )
        self._opened: OpenSystems | None = None
        self._queue: JobQueue[Submission, OpResult] = JobQueue()
        self._lock = locks.rlock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<board over {self._store}{', closed' if self._closed else ''}>"

    def call(self, op: OpLike, *sources: ArrayLike, params: Params | None = None) -> CallResult:
        """Apply an op to arrays, from the cache or by computing.

        Parameters
        ----------
        op : str or function
            Name of a registered op, or the function itself.
        *sources : array_like of float32 or float64
            Its sources; Python's own whole numbers count as float64.
        params : mapping, optional
            Its parameters.

        Raises
        ------
        UnknownOpError, ShapeError, DtypeError, ParamError
        """
        if self._closed:
            self._open()
        y, grads, hit = self._pipeline.one(ops.get(op), params, sources)
        return CallResult(y, grads, HIT_NAMES[hit])

    def call_many(
        self,
        op: OpLike,
        *sources: ArrayLike,
        params: Params | None = None,
        errors: Errors = "raise",
        progress: bool | Reporter = False,
    ) -> ManyResult:
        """Apply an op to n jobs whose sources are stacked on axis 0; otherwise as `call`.

        Parameters
        ----------
        errors : {"raise", "collect"}
            A job that fails costs no other job its result: all others are computed and kept. Then one `JobsError` names
            each that failed; or, with ``collect``, they are in the result's `errors`.
        progress : bool or callable
            True shows done, hits, rate and time left in a notebook or on a terminal, and nothing elsewhere; a function
            is called with a `whiteboard.evaluation.progress.Progress` as results come.

        Raises
        ------
        JobsError
            Of one job alone what it raised.
        UnknownOpError, ShapeError, DtypeError, ParamError
            Of all jobs.
        """
        self._open()
        check_errors(errors, "call_many")
        name = ops.name_of(op)
        columns = ArraySources(name, sources)
        with shown(progress, name) as report:
            done = self._pipeline.evaluate(ops.get(name), params, columns, errors=errors, report=report)
        return ManyResult(done.y, done.grads, done.hit, done.failed)

    def bind(self, op: OpLike, /, **params: Any) -> Bound:
        """Return an op with its parameters as a function: what an optimizer calls.

        ``f(x)``, ``f.value_and_grad(x)``, ``f.grad(x)``, ``f.jacobian(x)`` and ``f.many(X)`` answer from the cache or
        by computing: a scalar y is a float, and of one source its gradient is one array.

        Parameters
        ----------
        op : str or function
            Name of a registered op, or the function itself.
        **params
            Its parameters.

        Raises
        ------
        UnknownOpError, ParamError
            At once.
        """
        self._open()
        name = ops.name_of(op)
        ops.get(name).bind(params)
        return Bound(lambda: self.pipeline, partial(ops.get, name), name, params)

    def system(self, name: str, spec: Mapping[str, Any] | None = None, *, takeover: bool = False) -> System:
        """Open a system at its last commit, or create it.

        Many may read a system; the first call that changes it makes this board its one writer, until the board is
        closed or its process is dead. A second writer gets a `ConflictError` that names the first.

        Parameters
        ----------
        name : str
            Unique in the store. A new system is written with its first commit.
        spec : mapping, optional
            JSON-able description of what the system is; kept with it. Where the system exists it must be equal.
        takeover : bool
            Become the writer at once, whoever else is: for a writer that died on another host, or does not answer. One
            that lives is refused at its next commit. Where the system moved on it is read again.

        Raises
        ------
        SpecError
            The system exists with another specification; the message says what differs.
        """
        self._open()
        return self._systems().system(name, spec, takeover=takeover)

    def _systems(self) -> OpenSystems:
        """The systems that are open; most boards have none, and need not know what they are."""
        from whiteboard.systems.opened import OpenSystems

        with self._lock:
            if self._opened is None:
                self._opened = OpenSystems(self._store, self._pipeline, self._claim, self._lock)
            return self._opened

    def _claim(self, name: str, *, takeover: bool = False) -> None:
        self._open()
        self._store.claim(name, takeover=takeover)

    def systems(self) -> list[str]:
        """Return the names of the systems in the store."""
        self._open()
        return list(self._store.versions.names())

    def each_name(self) -> Iterator[str]:
        """Yield the names of the systems in the store, which are read some at a time, as there may be very many."""
        self._open()
        return self._store.versions.names()

    def look(self, name: str) -> System:
        """Return an existing system as it stands, of which the board keeps nothing: for one look at each of many.

        Raises
        ------
        UnknownSystemError
        """
        self._open()
        return self._systems().look(name)

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline over this board's store, for bridges to systems that are not ours."""
        self._open()
        return self._pipeline

    def submit(self, job: Job, system: System | None = None, *, stale: Stale = "requeue") -> Future[OpResult]:
        """Queue a job; the future is done after the next `drain`.

        Parameters
        ----------
        system : System, optional
            May be left out where the board has opened exactly one.
        stale : {"requeue", "raise"}
            What happens where a source got a new version before the drain: ``requeue`` answers for the new version
            and marks the result `stale`; ``raise`` puts a `StaleImpulseError` into the future.
        """
        from whiteboard.systems.submission import Submission, check

        self._open()
        check(job, stale)
        return self._queue.submit(Submission.of(job, self._only(system, "submit"), stale))

    def _only(self, system: System | None, where: str) -> System:
        """Return the system that is meant: the given one, or the only one that is open."""
        if system is not None:
            return system
        return self._systems().only(where)

    def drain(self) -> int:
        """Run what is queued, in the order it came; return how many jobs were taken.

        A job that fails puts its error into its own future, not into the others'. What an interrupt left is run by the
        next drain, and no job sends its impulses twice.
        """
        self._open()
        return self._queue.drain(_answer)

    def flush(self) -> None:
        """Return when everything put so far is on disk."""
        self._open()
        self._store.packages.flush()

    def stats(self) -> dict[str, float]:
        """Return counters since opening and sizes now.

        hits_memory, hits_disk, misses (jobs answered so); puts, collisions, corrupt (since opening); packages, pages,
        bytes_memory, bytes_disk (now); seconds_saved (measured cost of the packages that hits spared);
        without_residual (jobs over nodes that sent no impulse); checked, wrong (hits of users' ops that were computed
        again, and those of them that were another).
        """
        self._open()
        counts = self._pipeline.counts
        return {
            **self._store.packages.stats(),
            "hits_memory": counts.hits_memory,
            "hits_disk": counts.hits_disk,
            "misses": counts.misses,
            "seconds_saved": counts.seconds_saved,
            "waited": counts.waited,
            "without_residual": counts.without_residual,
            "checked": self._pipeline.agreement.checked,
            "wrong": self._pipeline.agreement.wrong,
        }

    def info(self) -> dict[str, Any]:
        """Return what the store is: where it lies, its schema, sizes and settings."""
        self._open()
        return self._store.info()

    def gc(self, *, max_bytes: int | None = None, older_than: float | None = None, dry_run: bool = False) -> GcReport:
        """Evict the packages used longest ago and give the space back; node versions are never touched.

        Parameters
        ----------
        max_bytes : int, optional
            Evict until the file holds no more than this.
        older_than : float, optional
            Seconds: evict what was not used since; with `max_bytes`, evict only such.
        dry_run : bool
            Only count.

        Raises
        ------
        ReadOnlyError
        """
        self._open()
        self._written()
        return self._store.gc(max_bytes=max_bytes, older_than=older_than, dry_run=dry_run)

    def forget(
        self,
        op: str | None = None,
        *,
        version: int | None = None,
        older_than: float | None = None,
        key: bytes | str | None = None,
        dry_run: bool = False,
    ) -> Evicted:
        """Delete packages for which everything that is given holds; what asks for them again computes them.

        Other processes may still have them in memory.

        Parameters
        ----------
        op : str, optional
            Name of an op, which need not be registered any more.
        version : int, optional
            Of that op.
        older_than : float, optional
            Seconds: what was used since is kept.
        key : bytes or str, optional
            The key of one package, 16 bytes or 32 hexadecimal digits.
        dry_run : bool
            Only count.

        Returns
        -------
        Evicted
            Pages, packages and bytes that went.

        Raises
        ------
        ParamError
            Nothing is given, or something that cannot be.
        ReadOnlyError
        """
        self._open()
        self._written()
        done = self._store.forget(op=op, version=version, older_than=older_than, key=key, dry_run=dry_run)
        if not dry_run:
            self._store.packages.forget()
        return done

    def remove(self, name: str, *, dry_run: bool = False) -> Removed:
        """Delete a system with its commits; those that forks of it go on from stay under another name, until these go.

        Raises
        ------
        UnknownSystemError
        ConflictError
            Another process writes it.
        ReadOnlyError
        """
        self._open()
        if dry_run:
            return self._store.remove(name, dry_run=True)
        with self._store.claimed(name), self._lock:
            done = self._store.remove(name)
            if self._opened is not None:
                self._opened.let_go(name)
        return done

    def verify(self, *, sample: float = 1.0, repair: bool = False, seed: int = 0) -> VerifyReport:
        """Read every commit and a part of the pages on disk, and say what is damaged.

        Parameters
        ----------
        sample : float
            Part of the pages, 0 to 1.
        repair : bool
            Drop damaged packages, which will be computed again. Node versions are never changed.
        seed : int
            Of the sample.

        Raises
        ------
        ParamError, ReadOnlyError
        """
        self._open()
        return self._store.verify(sample=sample, repair=repair, seed=seed)

    def audit(self, *, sample: float = 1.0, seed: int = 0) -> AuditReport:
        """Compute a part of the packages on disk again, and compare.

        From the sources that their page keeps, or from the node versions that they came from; one page is in memory at
        a time, beside the values of nodes. What can be computed again from neither is counted by the reason.

        Parameters
        ----------
        sample : float
            Part of the packages, 0 to 1.
        seed : int
            Of the sample.

        Raises
        ------
        ParamError
        """
        return self._inspection().audit(sample, seed)

    def table(
        self,
        op: OpLike,
        *,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        grads: bool = False,
        limit: int | None = None,
    ) -> Table:
        """Return the packages of an op on disk as columns: ``pandas.DataFrame(board.table("drag"))``.

        Parameters
        ----------
        op : str or function
            Which need not be registered any more.
        where : str, optional
            A condition over columns: ``"mach > 0.7 and y[0] < 1"``. Comparisons, and, or, not, numbers, texts and
            parentheses; it is read, and never run as code.
        columns : sequence of str, optional
            Only these, in this order.
        grads : bool
            Also gradients, and the packages that hold the VJP of a cotangent.
        limit : int, optional
            At most so many rows, those that were stored first.

        Returns
        -------
        Table
            A dict, with a row a package, of every version of the op: each parameter; the sources ``x0``, … where they
            are kept (`keep_sources` of `wb.op`), None where they are not; ``y``; gradients ``g0``, … or Jacobians
            ``j0``, …, and ``cotangent``; ``cost_seconds``, which is the mean of its page; ``src_ids`` and ``versions``
            where sources were nodes; the op's ``version`` and ``fingerprint``, and the ``key``. A parameter that is
            called like one of these is ``params.NAME``. What is damaged, or is not what its key says, is left out: an
            `OmissionWarning` tells, and `omitted` says where.

        Raises
        ------
        UnknownOpError
            There is no such op, neither here nor in the store.
        ParamError
            A column that there is not, or what is no condition.
        """
        inspection = self._inspection()
        return inspection.table(inspection.reading(op, where, columns, grads=grads, limit=limit), op)

    def each_row(
        self,
        op: OpLike,
        *,
        where: str | None = None,
        columns: Sequence[str] | None = None,
        grads: bool = False,
        limit: int | None = None,
        omitted: list[Omission] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table, which may be larger than memory, as dicts of the columns that each of them has.

        Otherwise as `table`; `omitted` is filled on the way.
        """
        inspection = self._inspection()
        return inspection.each_row(
            inspection.reading(op, where, columns, grads=grads, limit=limit, omitted=omitted), op
        )

    @overload
    def explain(self, job: Job, system: System | None = None, /) -> Explanation: ...

    @overload
    def explain(self, job: Job, *, system: System | None = None) -> Explanation: ...

    @overload
    def explain(self, job: OpLike, *sources: ArrayLike, params: Params | None = None) -> Explanation: ...

    def explain(
        self, job: Job | OpLike, *sources: Any, system: System | None = None, params: Params | None = None
    ) -> Explanation:
        """Say why a job is a hit or a miss; nothing is computed.

        Parameters
        ----------
        job : Job, or str or function
            A job over a system's nodes; or an op, for a job of arrays.
        *sources : array_like, or System
            Of an op its sources, as `call` takes them; of a job the system.
        system : System, optional
            Of a job; may be left out where the board has opened exactly one.
        params : mapping, optional
            Of an op.

        Returns
        -------
        Explanation
            A miss names the nearest package of the op, the same nodes' before others', and what differs, the first
            thing first. Of the package that holds y and the gradients of ones; where that is a hit, and the job's
            residual or target needs the VJP of a cotangent, of the package that holds that.

        Raises
        ------
        UnknownOpError, UnknownNodeError, ShapeError, DtypeError, ParamError
        """
        from whiteboard.systems.jobs import Job
        from whiteboard.systems.system import System

        self._open()
        if isinstance(job, Job):
            systems = [each for each in (*sources, system) if each is not None]
            if len(systems) > 1 or not all(isinstance(each, System) for each in systems) or params is not None:
                msg = "explain: expected a job and its system, or an op, arrays and params: a Job has its own params"
                raise ParamError(msg)
            return self._inspection().explain_job(job, self._only(next(iter(systems), None), "explain"))
        name = ops.name_of(job)
        if system is not None or any(isinstance(each, System) for each in sources):
            msg = f"explain: op {name!r} is asked with arrays; a job over a system's nodes is a wb.Job"
            raise ParamError(msg)
        return self._inspection().explain_arrays(name, sources, params)

    def explain_key(self, key: bytes) -> Explanation:
        """Say which package a key names; `key` is 16 bytes."""
        return self._inspection().explain_key(key)

    def _written(self) -> None:
        """See to it that what was put can be read in the file."""
        if not self._store.options.readonly:
            self._store.packages.flush()

    def _inspection(self) -> Inspection:
        """What is asked about the file, once all that was put lies in it."""
        self._open()
        self._written()
        from whiteboard.inspection import asking  # most boards are asked nothing about it

        return asking.Inspection(self._store, self._pipeline)

    def close(self) -> None:
        """Cancel what is queued, flush, and release the store; called again, it goes on where an interrupt came.

        Where nothing can be written for now, as on a full disk, that is an error, and what waits is kept for another
        call.
        """
        self._closed = True
        self._queue.close()
        if self._workers is not None:
            self._workers.close()
        self._store.close()

    def __reduce__(self) -> NoReturn:
        msg = f"{self!r} cannot be pickled or copied: open the store in each process, by its path"
        raise ParamError(msg)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        if self._closed:
            msg = "the board is closed"
            raise ClosedError(msg)


def _answer(tickets: Sequence[Ticket[Submission, OpResult]]) -> None:
    from whiteboard.systems.submission import answer

    answer(tickets)


def open(
    url: str | os.PathLike[str],
    memory_bytes: int = 256 * 2**20,
    max_bytes: int | None = None,
    persist: Persist = "always",
    durability: Durability = "normal",
    readonly: bool = False,
    *,
    bin_bytes: int = bins.MAX_BYTES,
    bin_jobs: int = bins.MAX_JOBS,
    executor: int | Executor | None = None,
    bin_timeout: float | None = None,
) -> Board:
    """Open a store, or create it, and return its board.

    Parameters
    ----------
    url : str or path
        A path, ``":memory:"``, or an SQLAlchemy URL (``sqlite:///…``).
    memory_bytes : int
        Bound of the memory tier in bytes; 0 keeps nothing in memory but what waits to be written.
    max_bytes : int, optional
        Bound of the packages on disk in bytes.
    persist : {"always", "auto", "never"}
        Which packages go to disk; ``auto``: those that cost more to compute than to load, and what costs less than a
        key is computed without one. Commits always do.
    durability : {"normal", "full"}
        ``full``: a commit that returned survives power loss too, not only a killed process.
    readonly : bool
        Take no write lock and write nothing.
    bin_bytes, bin_jobs : int
        Bound of one session's bin. No result depends on them.
    executor : int or concurrent.futures.Executor, optional
        What computes beside this thread: an int makes so many processes, which end with the board; an executor of
        threads, processes, loky, dask or MPI is used, and left open. Bins go there that are worth it, by what their op
        has cost so far; those that would not have the same results there are computed here, which a warning says once.
    bin_timeout : float, optional
        Seconds that a bin may take at the executor; its jobs fail then with a `BinTimeoutError`.

    Raises
    ------
    StoreError, SchemaError
        The message names the path and what to do.
    """
    for name, value in (("bin_bytes", bin_bytes), ("bin_jobs", bin_jobs)):
        if type(value) is not int or value < 1:
            msg = f"{name} must be an int of at least 1, got {value!r}"
            raise ParamError(msg)
    workers = None
    if executor is not None or bin_timeout is not None:
        from whiteboard.workers.client import Workers  # most boards have none

        workers = Workers.of(executor, bin_timeout)
    store = open_store(
        url,
        memory_bytes=memory_bytes,
        max_bytes=max_bytes,
        persist=persist,
        durability=durability,
        readonly=readonly,
    )
    return Board(store, bin_bytes=bin_bytes, bin_jobs=bin_jobs, workers=workers)
