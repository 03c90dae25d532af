"""What a caller asks for (`Job`, `JobBatch`) and what comes back (`OpResult`, `BatchResult`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Final, Literal, SupportsFloat, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from whiteboard.errors import ParamError, ShapeError
from whiteboard.evaluation.columns import ids_column, real_column
from whiteboard.ops import name_of
from whiteboard.ops.fingerprint.encoding import encode_params, is_mapping
from whiteboard.records.packages import HIT_NAMES, Hit, results_told
from whiteboard.records.systems import is_attr
from whiteboard.types import Array, Ids, OpLike, Params, shown

ATTRS: Final = ("theta", "p")
"""The attributes that most nodes have."""


@dataclass(frozen=True, slots=True)
class InvLength:
    """The weight ``"inv_length"``, in which no length counts as less than `floor`: points may coincide.

    Raises
    ------
    ParamError
        `floor` is no finite number from 0.
    """

    floor: float = 0.0

    def __post_init__(self) -> None:
        floor: Any = self.floor
        if not isinstance(floor, int | float | np.floating) or not 0 <= floor < np.inf:
            msg = f"InvLength: floor: expected a finite number >= 0, got {self.floor!r}"
            raise ParamError(msg)


WeightName: TypeAlias = Literal["none", "inv_length"]
Weight: TypeAlias = WeightName | InvLength | Callable[[Any, Any], SupportsFloat]
"""What a job's impulses are weighted by beside its scale."""

WEIGHTS: Final = get_args(WeightName)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One application of an op to source nodes.

    Parameters
    ----------
    op : str or function
        Name of a registered op, or the function itself; then its name.
    src_ids : sequence of int
        Source nodes, one a slot.
    out_id : int, optional
        The node that the result belongs to.
    residual, target : array_like, optional
        At most one of them: a scalar, or of y's shape. ``residual = y − target``. With neither, no impulse.
    scale : float
        The impulse on source i is ``−scale · Jᵢᵀ · residual``.
    weight : {None, "none", "inv_length"}, InvLength or callable
        What the scale is multiplied with, slot by slot: None and ``none`` leave it, ``inv_length`` divides it by the
        distance between the positions `p` of the source and of the out node, and ``weight(source, out) → float`` gets
        both nodes, `out` None where there is none.
    params : mapping, optional
        Parameters of the op.
    attr : str or sequence of str
        The attribute of the sources that the op reads and that the impulses move; a sequence names one a slot.
    stack : bool
        The op takes one source, and it is the stack of all k, (k, …): a sum or a norm over nodes.
    job_id : object, optional
        Given back in the result and named in errors; the position in the list where it is None.
    """

    op: OpLike
    src_ids: Sequence[int]
    out_id: int | None = None
    _: KW_ONLY
    residual: ArrayLike | None = None
    target: ArrayLike | None = None
    scale: float = 1.0
    weight: Weight | None = None
    params: Params | None = None
    attr: str | Sequence[str] = "theta"
    stack: bool = False
    job_id: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "op", name_of(self.op))


@dataclass(frozen=True, slots=True, eq=False)
class JobBatch:
    """n jobs of one op as columns.

    Parameters
    ----------
    op : str or function
        Name of a registered op, or the function itself; then its name.
    src_ids : array_like of int, shape (n, k)
        Source nodes, a row a job, a column a slot.
    out_ids : array_like of int, shape (n,), optional
        The nodes that the results belong to.
    residual, target : array_like, shape (), (n,) or (n, *y_shape), optional
        At most one of them. Shape (n,) is one constant a job.
    scale : float or array_like of shape (n,)
    weight, params, attr, stack
        As in `Job`, the same for all n.
    job_ids : sequence of n objects, optional
        Named in errors and results; the row numbers where it is None.

    Raises
    ------
    ShapeError, DtypeError, ParamError
        For columns of wrong shape or dtype, at once.
    """

    op: OpLike
    src_ids: ArrayLike
    out_ids: ArrayLike | None = None
    _: KW_ONLY
    residual: ArrayLike | None = None
    target: ArrayLike | None = None
    scale: ArrayLike = 1.0
    weight: Weight | None = None
    params: Params | None = None
    attr: str | Sequence[str] = "theta"
    stack: bool = False
    job_ids: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "op", name_of(self.op))
        where = f"op {self.op!r}"
        src = ids_column(self.src_ids, f"{where}: src_ids")
        if src.ndim != 2:
            msg = f"{where}: src_ids: expected shape (n, k), got {src.shape}"
            raise ShapeError(msg)
        n = len(src)
        fields: dict[str, Any] = {"src_ids": src}
        if self.out_ids is not None:
            fields["out_ids"] = ids_column(self.out_ids, f"{where}: out_ids")
            _expect(fields["out_ids"].shape == (n,), f"{where}: out_ids", f"({n},)", fields["out_ids"].shape)
        if self.residual is not None and self.target is not None:
            msg = f"{where}: give residual or target, not both"
            raise ParamError(msg)
        for name in ("residual", "target"):
            if (value := getattr(self, name)) is not None:
                column = fields[name] = real_column(value, f"{where}: {name}")
                _expect(column.ndim == 0 or len(column) == n, f"{where}: {name}", f"() or ({n}, …)", column.shape)
        scale = real_column(self.scale, f"{where}: scale")
        _expect(scale.shape in ((), (n,)), f"{where}: scale", f"() or ({n},)", scale.shape)
        fields["scale"] = np.broadcast_to(scale.astype(np.float64), (n,))
        if not (self.weight is None or isinstance(self.weight, InvLength) or callable(self.weight)):
            _expect_word(self.weight, where)
        fields["attr"] = _attrs(self.attr, src.shape[1], where)
        if self.job_ids is not None:
            _expect(len(self.job_ids) == n, f"{where}: job_ids", f"({n},)", (len(self.job_ids),))
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(np.asarray(self.src_ids))

    @property
    def attrs(self) -> tuple[str, ...]:
        """The attribute that each slot reads, k names."""
        return (self.attr,) * np.asarray(self.src_ids).shape[1] if isinstance(self.attr, str) else tuple(self.attr)

    def take(self, rows: Ids) -> JobBatch:
        """Return the batch of some of the rows, in the order of `rows`."""

        def pick(column: Any) -> Any:
            return column if column is None or np.ndim(column) == 0 else column[rows]

        return replace(
            self,
            src_ids=pick(self.src_ids),
            out_ids=pick(self.out_ids),
            residual=pick(self.residual),
            target=pick(self.target),
            scale=pick(self.scale),
            job_ids=rows.tolist() if self.job_ids is None else [self.job_ids[row] for row in rows.tolist()],
        )

    def name(self, row: int) -> str:
        """Return how errors name a row: the op and the job's id."""
        return f"op {self.op!r}, {self.job(row)}"

    def job(self, row: int) -> str:
        """Return how errors name a row where the op is named already."""
        return f"job {shown(row if self.job_ids is None else self.job_ids[row])!r}"


@dataclass(slots=True, eq=False)  # frozen, it would take 1 of the 25 µs of a hit through the bridge
class OpResult:
    """The result of one job.

    Attributes
    ----------
    job_id : object
    out_id : int or None
    y : ndarray
    grads : tuple of ndarray
        ∂(Σy)/∂xᵢ, one a source, in its shape and dtype.
    hit : {"miss", "memory", "disk"}
    src_ids, versions : tuple of int
        The sources and their versions that it belongs to; empty where the sources were no versioned nodes.
    stale : bool
        The job was submitted against older versions, and answered again for these.
    error : Exception or None
        What the job raised, where errors are collected: then y and the gradients are NaN, and it sent no impulse.
    """

    job_id: Any
    out_id: int | None
    y: Array
    grads: tuple[Array, ...]
    hit: Hit
    src_ids: tuple[int, ...] = ()
    versions: tuple[int, ...] = ()
    stale: bool = False
    error: Exception | None = None

    @property
    def finite(self) -> bool:
        """Whether y and all gradients are finite."""
        return all(bool(np.isfinite(array).all()) for array in (self.y, *self.grads))


@dataclass(frozen=True, slots=True, eq=False)
class BatchResult:
    """The results of n jobs as columns.

    Attributes
    ----------
    job_ids : sequence of n objects
    out_ids : ndarray of int64, shape (n,), or None
    y : ndarray, shape (n, …)
    grads : tuple of ndarray, each (n, …)
    hit : ndarray of uint8, shape (n,)
        0 miss, 1 memory, 2 disk.
    src_ids, versions : ndarray of int64, shape (n, k)
        The sources and their versions; k is 0 where they were no versioned nodes.
    errors : mapping of int to Exception
        What jobs raised, by row, where errors are collected: y and the gradients of these are NaN, and they sent no
        impulse.
    """

    job_ids: Sequence[Any]
    out_ids: Ids | None
    y: Array
    grads: tuple[Array, ...]
    hit: NDArray[np.uint8]
    src_ids: Ids
    versions: Ids
    errors: Mapping[int, Exception] = field(default_factory=dict)

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Whether y and all gradients of each job are finite, (n,)."""
        fine = [np.isfinite(array).all(axis=tuple(range(1, array.ndim))) for array in (self.y, *self.grads)]
        return np.asarray(np.logical_and.reduce(fine))

    def __repr__(self) -> str:
        return f"<{results_told(self.hit, self.y, len(self.errors))}, of nodes>"

    def __len__(self) -> int:
        return len(self.hit)

    def __iter__(self) -> Iterator[OpResult]:
        src_ids, versions = self.src_ids.tolist(), self.versions.tolist()
        for i, code in enumerate(self.hit.tolist()):
            yield OpResult(
                self.job_ids[i],
                None if self.out_ids is None else int(self.out_ids[i]),
                self.y[i, ...],
                tuple(grad[i, ...] for grad in self.grads),
                HIT_NAMES[code],
                tuple(src_ids[i]),
                tuple(versions[i]),
                error=self.errors.get(i),
            )


def batches(jobs: Sequence[Job]) -> list[tuple[Ids, JobBatch]]:
    """Group jobs into batches of equal op, fan-in, parameters and kinds of columns; with the positions of each.

    Order within a group is the order given. What the nodes' shapes divide further is the binning's matter.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for position, job in enumerate(jobs):
        groups.setdefault(_group(position, job), []).append(position)
    return [(np.array(at, np.int64), _batch([jobs[i] for i in at], at)) for at in groups.values()]


def _group(position: int, job: Any) -> tuple[Any, ...]:
    if not isinstance(job, Job):
        msg = f"job {position}: expected a Job, got {type(job).__name__}"
        raise ParamError(msg)
    if job.residual is not None and job.target is not None:
        msg = f"op {job.op!r}, job {_name(position, job)!r}: give residual or target, not both"
        raise ParamError(msg)
    if not _is_sequence(job.src_ids):
        msg = f"op {job.op!r}, job {_name(position, job)!r}: src_ids: expected a sequence of ids, got {job.src_ids!r}"
        raise ParamError(msg)
    params: bytes | int = b""
    if job.params:
        if not is_mapping(job.params):
            msg = (
                f"op {job.op!r}, job {_name(position, job)!r}: params: expected a mapping of names, got {job.params!r}"
            )
            raise ParamError(msg)
        try:
            params = encode_params(job.params)
        except ParamError:
            params = id(job)  # no canonical bytes: a batch of its own, computed and not cached
    columns = [None if c is None else np.shape(c) for c in (job.residual, job.target)]
    attr = _attrs(job.attr, len(job.src_ids), f"op {job.op!r}, job {_name(position, job)!r}")
    weight = id(job.weight) if callable(job.weight) else repr(job.weight)
    return (job.op, len(job.src_ids), job.out_id is None, *columns, weight, params, attr, bool(job.stack))


def _attrs(given: Any, slots: int, where: str) -> str | tuple[str, ...]:
    """Return the attribute that all slots read, or one a slot where they differ."""
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Sequence) else ()
    if not names or not all(map(is_attr, names)):
        msg = f"{where}: attr: expected an attribute's name, or one a slot, got {given!r}"
        raise ParamError(msg)
    if len(names) not in ({1} if isinstance(given, str) else {slots}):
        msg = f"{where}: attr: expected {slots} names, one a slot, got {given!r}"
        raise ShapeError(msg)
    return str(names[0]) if len(set(names)) == 1 else names


def _is_sequence(value: object) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _name(position: int, job: Job) -> Any:
    return position if job.job_id is None else shown(job.job_id)


def _batch(jobs: list[Job], positions: list[int]) -> JobBatch:
    first = jobs[0]

    def column(name: str) -> Any:
        if getattr(first, name) is None:
            return None
        return np.stack(
            [
                real_column(getattr(job, name), f"op {job.op!r}, job {_name(i, job)!r}: {name}")
                for i, job in zip(positions, jobs, strict=True)
            ]
        )

    return JobBatch(
        first.op,
        [tuple(job.src_ids) for job in jobs],
        [job.out_id for job in jobs if job.out_id is not None] or None,
        residual=column("residual"),
        target=column("target"),
        scale=column("scale"),
        weight=first.weight,
        params=first.params,
        attr=first.attr,
        stack=first.stack,
        job_ids=[i if job.job_id is None else job.job_id for i, job in zip(positions, jobs, strict=True)],
    )


def _expect_word(weight: object, where: str) -> None:
    if weight not in WEIGHTS:
        words = ", ".join(map(repr, WEIGHTS))
        msg = f"{where}: weight: expected one of None, {words}, InvLength, or a function of two nodes, got {weight!r}"
        raise ParamError(msg)


def _expect(holds: bool, where: str, expected: str, got: object) -> None:
    if not holds:
        msg = f"{where}: expected shape {expected}, got {got}"
        raise ShapeError(msg)
