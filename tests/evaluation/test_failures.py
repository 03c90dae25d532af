"""Failures stay alone: a job that fails costs no other job its result, in calls, systems and queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import whiteboard as wb
from whiteboard.errors import DtypeError, JobsError, NonFiniteError, ParamError, ShapeError

pytestmark = pytest.mark.usefixtures("builtin_ops_only")

X = np.arange(10.0)[:, None] * np.ones(3)
BAD = [2, 7]
GOOD = [row for row in range(10) if row not in BAD]
RULE = wb.rules.Relax(eta=0.1, rtol=1e-3, atol=1e-3)


def is_bad(x: Any) -> bool:
    """Whether a job is one that fails."""
    return float(np.ravel(x)[0]) in BAD


def raises(x: Any) -> Any:
    """Raise for some."""
    if is_bad(x):
        raise ZeroDivisionError("no such point")
    return np.square(x).sum()


def raises_in_bins(x: Any) -> Any:
    """Raise for a bin that some are in."""
    if np.isin(x[:, 0], BAD).any():
        raise ZeroDivisionError("no such point")
    return np.square(x).sum(1)


def is_another_shape(x: Any) -> Any:
    """Return another shape for some."""
    return np.square(x) if is_bad(x) else np.square(x).sum()


def is_another_dtype(x: Any) -> Any:
    """Return another dtype for some."""
    return np.square(x).sum().astype(np.float32 if is_bad(x) else np.float64)


def fine(x: Any) -> Any:
    """Return the same for all."""
    return np.square(x).sum()


def vjp(cotangent: Any, y: Any, x: Any) -> Any:
    """Return the gradient of them all."""
    return 2 * x * np.reshape(cotangent, (-1, 1) if x.ndim == 2 else ())


def vjp_raises(cotangent: Any, y: Any, x: Any) -> Any:
    """Raise where it is pulled back."""
    if is_bad(x):
        raise ZeroDivisionError("no such point")
    return vjp(cotangent, y, x)


WAYS: dict[str, tuple[Callable[..., Any], Callable[..., Any], str, type[Exception]]] = {
    "raises": (raises, vjp, "loop", ZeroDivisionError),
    "raises in bins": (raises_in_bins, vjp, "lead_axis", ZeroDivisionError),
    "shape": (is_another_shape, vjp, "loop", ShapeError),
    "dtype": (is_another_dtype, vjp, "loop", DtypeError),
    "VJP": (fine, vjp_raises, "loop", ZeroDivisionError),
}


def register(way: str) -> type[Exception]:
    """Register the op "fails"; return what its bad jobs raise."""
    function, pull, batch, error = WAYS[way]
    ops: Any = wb.op  # its words are told apart by type
    ops("fails", vjp=pull, batch=batch, kind="scalar", identity=f"fails: {way}")(function)
    return error


@pytest.fixture
def board(tmp_path: Path) -> Iterator[wb.Board]:
    """Return a board on disk."""
    with wb.open(tmp_path / "a.db") as opened:
        yield opened


@pytest.mark.parametrize("way", WAYS)
def test_the_others_are_kept(board: wb.Board, tmp_path: Path, way: str) -> None:
    """One error names each job that failed; all others are hits from then on, in another process too."""
    error = register(way)
    with pytest.raises(JobsError) as raised:
        board.call_many("fails", X)
    assert list(raised.value.errors) == BAD
    assert all(isinstance(each, error) for each in raised.value.exceptions)
    assert "op 'fails': 2 of 10 jobs failed: job 2: " in str(raised.value)
    assert f"; job 7: {error.__name__}: " in str(raised.value)
    assert board.call_many("fails", X[GOOD]).hit.tolist() == [1] * 8
    board.close()
    with wb.open(tmp_path / "a.db") as again:
        result = again.call_many("fails", X, errors="collect")
    assert result.hit.tolist() == [0 if row in BAD else 2 for row in range(10)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("repeats", [1, 3])
def test_they_are_collected(board: wb.Board, way: str, repeats: int) -> None:
    """Errors by row, twins too; results of the others in their places, NaN in those of the failed."""
    error = register(way)
    x = np.tile(X, (repeats, 1))
    bad = np.isin(np.arange(len(x)) % 10, BAD)
    result = board.call_many("fails", x, errors="collect")
    assert list(result.errors) == np.flatnonzero(bad).tolist()
    assert all(isinstance(each, error) for each in result.errors.values())
    assert result.failed.tolist() == bad.tolist()
    assert result.y[~bad].tobytes() == np.square(x[~bad]).sum(1).tobytes()
    assert result.grads[0][~bad].tobytes() == (2 * x[~bad]).tobytes()
    assert np.isnan(result.y[bad]).all()
    assert np.isnan(result.grads[0][bad]).all()
    assert board.stats()["misses"] == 8 + 2 * repeats
    assert f"8 miss, {8 * (repeats - 1)} memory, {2 * repeats} failed" in repr(result) or repeats == 1


@pytest.mark.parametrize("way", WAYS)
def test_all_fail(board: wb.Board, way: str) -> None:
    """Nothing is left, and nothing hangs, where every job fails; one job alone raises what it raised."""
    error = register(way)
    if way in ("shape", "dtype"):  # the first job says what is right
        pytest.skip("no job is odd where all are")
    result = board.call_many("fails", X[BAD], errors="collect")
    assert list(result.errors) == [0, 1]
    assert (result.y.shape, result.grads[0].shape) == ((2,), (2, 3))
    for one in (lambda: board.call("fails", X[2]), lambda: board.call_many("fails", X[2:3])):
        with pytest.raises(error):
            one()


def test_a_word_that_is_none(board: wb.Board) -> None:
    """`errors` is one of two words."""
    with pytest.raises(ParamError, match="call_many: errors: expected 'raise' or 'collect', got 'ignore'"):
        board.call_many("tanh", X, errors="ignore")  # type: ignore[arg-type]
    with pytest.raises(ParamError, match="process: errors: expected"):
        board.system("s").process([], errors="ignore")  # type: ignore[call-overload]


def of(board: wb.Board, name: str) -> wb.System:
    """Return a system of ten nodes."""
    system = board.system(name)
    system.add_nodes(range(10), theta=X)
    system.commit()
    return system


def as_list(rows: Sequence[int]) -> list[wb.Job]:
    """Return one job a node."""
    return [wb.Job("fails", (row,), residual=1.0, job_id=f"#{row}") for row in rows]


def as_batch(rows: Sequence[int]) -> wb.JobBatch:
    """Return the same jobs as columns."""
    ids = [f"#{row}" for row in rows]
    return wb.JobBatch("fails", np.array(rows)[:, None], residual=1.0, job_ids=ids)


@pytest.mark.parametrize("jobs", [as_list, as_batch])
def test_systems(board: wb.Board, jobs: Callable[[Sequence[int]], Any]) -> None:
    """No impulse where the error is raised; collected, those of the others move the system as if they were alone."""
    register("raises")
    system, other = of(board, "a"), of(board, "b")
    with pytest.raises(JobsError, match=r"2 of 10 jobs failed: .*job '#2': ZeroDivisionError.*'#7'"):
        system.process(jobs(range(10)))
    assert system.waiting == 0
    results = system.process(jobs(range(10)), errors="collect")
    assert [result.job_id for result in results if result.error is not None] == ["#2", "#7"]
    assert all(isinstance(result.error, ZeroDivisionError) == (row in BAD) for row, result in enumerate(results))
    other.process(jobs(GOOD))
    assert system.waiting == other.waiting == 8
    one, two = system.commit(RULE), other.commit(RULE)
    assert (one.residual_norm, system.digest()) == (two.residual_norm, other.digest())


def test_impulses_that_are_not_finite(board: wb.Board) -> None:
    """As jobs that fail: the error names the first and how many more, and collected they send nothing."""
    system, other = of(board, "a"), of(board, "b")
    x = np.where(np.isin(np.arange(10), BAD), np.inf, 1.0)
    jobs = [wb.Job("square", (row,), residual=float(x[row])) for row in range(10)]
    with pytest.raises(NonFiniteError, match=r"op 'square', job 2, slot 0: .* not finite; and 1 more jobs"):
        system.process(jobs)
    assert system.waiting == 0
    results = system.process(jobs, errors="collect")
    assert [row for row, result in enumerate(results) if isinstance(result.error, NonFiniteError)] == BAD
    assert np.isfinite(results[2].y).all()
    other.process([jobs[row] for row in GOOD])
    system.commit(RULE)
    other.commit(RULE)
    assert system.digest() == other.digest()


def test_residuals_that_are_vectors(board: wb.Board) -> None:
    """What a failed job's residual is plays no part, and a VJP that fails for a residual alone is the job's too."""

    def vector(x: Any) -> Any:
        if is_bad(x):
            raise ZeroDivisionError
        return np.square(x)

    def pull(cotangent: Any, y: Any, x: Any) -> Any:
        if x[0] == 5.0 and not (cotangent == 1).all():
            raise ArithmeticError
        return 2 * x * cotangent

    wb.op("vector", vjp=pull, identity="vector")(vector)
    system = of(board, "a")
    residual = np.random.default_rng(0).normal(size=(10, 3))
    batch = wb.JobBatch("vector", np.arange(10)[:, None], residual=residual)
    result = system.process(batch, errors="collect")
    assert {row: type(error) for row, error in result.errors.items()} == {
        2: ZeroDivisionError,
        5: ArithmeticError,
        7: ZeroDivisionError,
    }
    assert system.waiting == 7


def test_a_queue_computes_each_once(board: wb.Board) -> None:
    """A job's error is in its own future, and no job is computed again for it."""
    calls: list[float] = []

    def counted(x: Any) -> Any:
        calls.append(float(x[0]))
        return raises(x)

    wb.op("fails", vjp=vjp, kind="scalar", identity="counted")(counted)
    system = of(board, "a")
    futures = [board.submit(job, system) for job in as_list(range(10))]
    board.drain()
    assert [row for row, future in enumerate(futures) if future.exception()] == BAD
    assert sorted(calls) == list(range(10))
    assert system.waiting == 8


def test_tracebacks_do_not_keep_a_sweep_in_memory(board: wb.Board) -> None:
    """The first errors have theirs; of many others only what was raised is kept."""

    def never(x: Any) -> Any:
        raise ZeroDivisionError

    wb.op("never", gradient="none", identity="never")(never)
    errors = board.call_many("never", np.arange(1000.0)[:, None], errors="collect").errors
    assert len(errors) == 1000
    kept = [row for row, error in errors.items() if error.__traceback__ is not None]
    assert 1 <= len(kept) <= 100


def test_jobs_error_is_a_group(board: wb.Board) -> None:
    """``except*`` takes the kinds apart, and rows stay with their errors."""
    error = JobsError.of("op 'f'", 9, {4: ValueError("a"), 1: KeyError("b"), 7: ValueError("c")})
    mine, rest = error.split(ValueError)
    assert isinstance(mine, JobsError)
    assert isinstance(rest, JobsError)
    assert (list(mine.errors), list(rest.errors)) == ([4, 7], [1])
    assert isinstance(error, wb.WhiteboardError)
