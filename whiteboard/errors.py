"""The one error tree: every error of Whiteboard is a `WhiteboardError` and the fitting builtin.

The builtin stands in parentheses; those below another are of its kind too:

    WhiteboardError
    ├── UnknownOpError(KeyError)            no op of that name is registered
    ├── UnknownNodeError(KeyError)          a job, impulse or lookup names a node that is not there
    ├── UnknownSystemError(KeyError)        the store holds no system of that name
    ├── UnknownCommitError(KeyError)        the system has no commit of that number
    ├── UnknownExperimentError(KeyError)    no built-in, file or function of that name
    ├── ExperimentError(ValueError)         an experiment's file or function is not what it should be
    ├── DuplicateNodeError(ValueError)      a node id is given twice, or exists already
    ├── DuplicateOpError(ValueError)        an op of that name and version is registered already
    ├── ShapeError(ValueError)              arity or shape is not what the op or node takes
    ├── DtypeError(TypeError)               a dtype that is refused (object, string, complex, integer …)
    ├── ParamError(TypeError)               a parameter the op does not take, or a value it cannot use
    ├── NonFiniteError(ArithmeticError)     NaN or infinity in an impulse or in a rule's result
    ├── StaleImpulseError(RuntimeError)     an impulse made against an older node version
    ├── SecondBackwardError(RuntimeError)   a session was asked for more than one forward or backward
    ├── OpCheckError(AssertionError)        `ops.check` found a wrong VJP, batch rule or shape rule
    ├── JobsError(ExceptionGroup)           some jobs of several failed; what the others gave is kept
    ├── SpecError(ValueError)               a system or experiment exists with another specification
    ├── ConflictError(RuntimeError)         another writer has the system, or moved it on since it was read
    ├── ClosedError(RuntimeError)           a board, store or session is used after its end
    ├── ExecutorError(RuntimeError)         an executor, or a worker of it, is broken
    │   └── BinTimeoutError(TimeoutError)   a bin took longer than `bin_timeout`
    ├── SinkError(OSError)                  a sink's file cannot be written
    ├── PlotError(OSError)                  a drawing cannot be written
    ├── MissingExtraError(ImportError)      an optional dependency is needed and not installed
    └── StoreError(OSError)                 the store cannot be opened, read or written
        ├── SchemaError                     it is of an older, newer or foreign schema
        ├── ReadOnlyError                   a write to a store that was opened for reading
        ├── UnansweredError                 a server was told to commit, and its answer was lost: it has to be read
        ├── ArchiveError                    an archive is truncated, altered, of a newer format, or cannot be written
        └── CorruptPackageError             a page failed the decode gate
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self

_log = logging.getLogger("whiteboard")
_log.addHandler(logging.NullHandler())

_TOLD: Final = 5
"""So many jobs' errors stand in a message."""


class WhiteboardError(Exception):
    """Base of every error that Whiteboard raises on purpose.

    Attributes
    ----------
    row : int or None
        Which job of a batch it is of, where one is called at a time.
    """

    row: int | None = None

    def __str__(self) -> str:
        # KeyError prints the repr of its argument; a sentence reads better without quotes.
        return " ".join(str(arg) for arg in self.args)


class UnknownOpError(WhiteboardError, KeyError):
    """No op of that name is registered."""


class UnknownNodeError(WhiteboardError, KeyError):
    """A job, an impulse or a lookup names a node that the system does not have."""


class UnknownSystemError(WhiteboardError, KeyError):
    """The store holds no system of that name."""


class UnknownCommitError(WhiteboardError, KeyError):
    """The system has no commit of that number."""


class UnknownExperimentError(WhiteboardError, KeyError):
    """No built-in experiment, file or function of that name."""


class ExperimentError(WhiteboardError, ValueError):
    """An experiment's file or function is not what it should be."""


class DuplicateNodeError(WhiteboardError, ValueError):
    """A node id is given twice, or exists already."""


class DuplicateOpError(WhiteboardError, ValueError):
    """An op of that name and version is registered already."""


class ShapeError(WhiteboardError, ValueError):
    """Arity or shape is not what the op or the node takes."""


class DtypeError(WhiteboardError, TypeError):
    """A dtype that is refused: object, string, structured, complex or integer."""


class ParamError(WhiteboardError, TypeError):
    """A parameter that the op does not take, or a value that it cannot use."""


class NonFiniteError(WhiteboardError, ArithmeticError):
    """NaN or infinity where only finite numbers may stand."""


class StaleImpulseError(WhiteboardError, RuntimeError):
    """An impulse was made against an older version of its node."""


class SecondBackwardError(WhiteboardError, RuntimeError):
    """A whiteboard session was asked for more than one forward or one backward."""


class OpCheckError(WhiteboardError, AssertionError):
    """`ops.check` found a wrong VJP, batch rule or shape rule."""


class JobsError(WhiteboardError, ExceptionGroup[Exception]):
    """Some jobs of several failed, each by itself: what the others gave is kept, and is a hit from then on.

    Attributes
    ----------
    errors : dict of int to Exception
        What each of them raised, by its row.
    what, n : str, int
        What was asked, and of how many jobs.
    """

    errors: dict[int, Exception]
    what: str
    n: int

    @classmethod
    def of(cls, what: str, n: int, errors: Mapping[int, Exception], names: Callable[[int], str] | None = None) -> Self:
        """Return the error of some of n jobs.

        Parameters
        ----------
        what : str
            Opens the message: the op, or the system.
        names : callable, optional
            How a row is called; "job 3" without it.
        """
        names = names or "job {}".format
        errors = {row: errors[row] for row in sorted(errors)}
        told = [f"{names(row)}: {type(error).__name__}: {error}" for row, error in errors.items()]
        more = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
        message = f"{what}: {len(told)} of {n} jobs failed: {'; '.join(told[:_TOLD])}{more}"
        made = cls(message, list(errors.values()))
        made.errors, made.what, made.n = errors, what, n
        return made

    def __str__(self) -> str:
        return self.message

    def derive(self, excs: Sequence[Exception]) -> JobsError:  # type: ignore[override]
        """Return the error of some of these jobs, as ``except*`` asks for it."""
        held = {id(error) for error in excs}
        made = JobsError(self.message, list(excs))
        made.what, made.n = self.what, self.n
        made.errors = {row: error for row, error in self.errors.items() if id(error) in held}
        return made


class SpecError(WhiteboardError, ValueError):
    """A system or an experiment exists with another specification."""


class ConflictError(WhiteboardError, RuntimeError):
    """Another writer has the system, or moved it on since this one read it."""


class WhiteboardWarning(UserWarning):
    """Root of the warnings."""


class UncachedWarning(WhiteboardWarning):
    """An op or its parameters cannot be fingerprinted: its jobs are computed and not cached."""


class WrongHitWarning(WhiteboardWarning):
    """A hit was computed again and is another: something has changed that the op's fingerprint does not see."""


class WorkerWarning(WhiteboardWarning):
    """An op cannot be computed by a board's workers with the same results: its jobs are computed here."""


class OmissionWarning(WhiteboardWarning):
    """A table lacks packages that the store holds, or their sources, as these are damaged or not to be believed."""


def warn(message: str, category: type[WhiteboardWarning]) -> None:
    """Warn, with the line of the user's that led here as the place."""
    _log.warning("%s", message)
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "whiteboard":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


class ClosedError(WhiteboardError, RuntimeError):
    """A board, a store or a session is used after its end."""


class ExecutorError(WhiteboardError, RuntimeError):
    """An executor, or a worker of it, is broken: what was done before is kept."""


class BinTimeoutError(ExecutorError, TimeoutError):
    """A bin took longer than the board's `bin_timeout`."""


class SinkError(WhiteboardError, OSError):
    """A sink's file cannot be written."""


class PlotError(WhiteboardError, OSError):
    """A drawing cannot be written."""


class MissingExtraError(WhiteboardError, ImportError):
    """An optional dependency is needed and not installed."""


class StoreError(WhiteboardError, OSError):
    """The store cannot be opened, read or written.

    Attributes
    ----------
    passing : bool
        Whether what is in the way may go, as a full disk does: what waits to be written is kept meanwhile.
    """

    passing = False


class SchemaError(StoreError):
    """The store is of an older, a newer or a foreign schema."""


class ReadOnlyError(StoreError):
    """A write was asked of a store that was opened for reading."""


class UnansweredError(StoreError):
    """A server was told to commit and its answer was lost, and it cannot be asked: what was written may be there."""


class ArchiveError(StoreError):
    """An archive is truncated, altered, of a newer format, none at all, or cannot be read or written."""


class CorruptPackageError(StoreError):
    """A page failed the decode gate."""
