"""The function that a worker runs: one bin, computed if its results are those of the process that asks."""

from __future__ import annotations

import os
import pickle
import platform
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from whiteboard.errors import WhiteboardError
from whiteboard.evaluation.buffers import BufferPool, Lender
from whiteboard.evaluation.execution import InThread, Outcome, Task
from whiteboard.evaluation.promises import Promises
from whiteboard.identity import arithmetic, keys
from whiteboard.ops.spec import OpSpec
from whiteboard.ops.user_module import told
from whiteboard.types import Array, Ids, Shape
from whiteboard.workers.messages import BinDone, BinJob, Refused

_FIRST: Final = os.urandom(16)
_inside: Final = InThread(BufferPool(), Promises())


def home() -> object:
    """Return what tells this process from all others."""
    return _FIRST, os.getpid()


def compute(job: BinJob) -> BinDone | Refused:
    """Compute a bin; an error of the op is in what is returned."""
    try:
        spec = job.op.opened()
    except Exception as error:
        return Refused("import", f"it cannot be imported there: {type(error).__name__}: {told(error)}")
    task = Task(spec, job.params, job.shape, Sent(job.n, job.arrays), job.cotangent)
    try:
        spec = spec.at(task.sources.shapes, task.sources.dtype, job.params)
        refused = _differs(job, spec)
        if refused is not None:
            return refused
        done = tuple(_inside.outcomes(replace(task, spec=spec), iter([np.arange(job.n, dtype=np.int64)])))
    except Exception as error:
        return BinDone((), _home(error, job))
    return BinDone(tuple(_portable(outcome, job) for outcome in done))


def _differs(job: BinJob, spec: OpSpec) -> Refused | None:
    """Say what is other here than where the job comes from, if anything is that results depend on."""
    if spec.code != (job.name, job.version, job.fingerprint):
        here = spec.fingerprint.hex() if spec.fingerprint else spec.opaque
        expected = job.fingerprint.hex() if job.fingerprint else "none"
        why = f"version {spec.version}, fingerprint {here}; expected version {job.version}, fingerprint {expected}"
        return Refused("code", f"it is other code there: {why}")
    if job.own and job.blas not in (None, arithmetic.blas_settings(spec.blas)):
        arithmetic.set_blas_threads(job.blas)
    if keys.Identity.of(spec, {}).arithmetic == job.arithmetic:
        return None
    blas = arithmetic.blas_settings(spec.blas)
    if job.blas is None or {each[:2] for each in blas} != {each[:2] for each in job.blas}:
        return Refused("arithmetic", f"numbers are rounded otherwise there: BLAS {blas}; expected {job.blas or 'any'}")
    threads, wanted = (sorted({each[2] for each in some}) for some in (blas, job.blas))
    how = "set OMP_NUM_THREADS to one number on both sides, before anything is imported"
    return Refused("threads", f"BLAS has another number of threads there: {threads}; expected {wanted}: {how}")


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """The sources of a bin that was sent, as they come out of `BinJob.arrays`."""

    n: int
    arrays: tuple[Array, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(array.shape[1:] for array in self.arrays)

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return self.arrays[0].dtype

    def gather(self, rows: Ids, lend: Lender, *, share: bool = False) -> list[Array]:  # noqa: ARG002 - the Protocol's
        """Return some rows that lie one after another."""
        some = slice(int(rows[0]), int(rows[-1]) + 1)
        whole = [
            array if len(array) == self.n else np.broadcast_to(array, (self.n, *array.shape[1:]))
            for array in self.arrays
        ]
        return [array[some] for array in whole]

    def tokens(self) -> NDArray[np.uint8]:
        return np.stack([keys.tokens(array) for array in self.gather(np.arange(self.n), Lender(BufferPool()))], axis=1)

    def take(self, jobs: Ids) -> Sent:
        xs = self.gather(np.arange(self.n), Lender(BufferPool()))
        return Sent(len(jobs), tuple(x[jobs] for x in xs))

    def provenance(self, rows: Ids) -> None:  # noqa: ARG002 - the Protocol's
        return None


def _portable(outcome: Outcome, job: BinJob) -> Outcome:
    failed: Mapping[int, Exception] = outcome.failed
    return replace(outcome, failed={row: _home(error, job) for row, error in failed.items()})


def _home(error: Exception, job: BinJob) -> Exception:
    """Return an error as it is, or, for another process, with the place where it was raised in a note."""
    return error if job.home == home() else portable(error)


def portable(error: Any) -> Any:
    """Return an error for another process: itself, where it can be pickled, else a `WhiteboardError` with its text.

    Where it was raised is in a note.
    """
    note = f"in process {os.getpid()} on {platform.node()}:\n{''.join(traceback.format_exception(error)).rstrip()}"
    try:
        again = pickle.loads(pickle.dumps(error, protocol=5))
    except Exception:
        again = None
    if type(again) is not type(error) or str(again) != str(error):
        error = WhiteboardError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error
