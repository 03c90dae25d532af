"""Differentiable operations over versioned nodes, computed once, cached for good, and never lost.

``wb.open`` gives a `Board`; `Board.call` answers an op from the cache or by computing; `Board.system` opens a
named set of nodes that resumes at its last commit.
"""

from whiteboard import errors, ops
from whiteboard.board import Board, CallResult, ManyResult, open
from whiteboard.errors import (
    BinTimeoutError,
    ClosedError,
    ConflictError,
    CorruptPackageError,
    DtypeError,
    DuplicateNodeError,
    DuplicateOpError,
    ExecutorError,
    ExperimentError,
    JobsError,
    MissingExtraError,
    NonFiniteError,
    OmissionWarning,
    OpCheckError,
    ParamError,
    PlotError,
    ReadOnlyError,
    SchemaError,
    SecondBackwardError,
    ShapeError,
    SinkError,
    SpecError,
    StaleImpulseError,
    StoreError,
    UncachedWarning,
    UnknownCommitError,
    UnknownExperimentError,
    UnknownNodeError,
    UnknownOpError,
    UnknownSystemError,
    WhiteboardError,
    WhiteboardWarning,
    WorkerWarning,
    WrongHitWarning,
)
from whiteboard.evaluation.bound import Bound
from whiteboard.integration.calls import Ops
from whiteboard.ops import op
from whiteboard.systems import rules
from whiteboard.systems.history import Commit, Snapshot
from whiteboard.systems.jobs import BatchResult, InvLength, Job, JobBatch, OpResult
from whiteboard.systems.sinks import CallbackSink, JsonlSink, ListSink, NullSink
from whiteboard.systems.system import System
from whiteboard.types import ResultSink

__version__ = "0.1.0"

__all__ = [
    "BatchResult",
    "BinTimeoutError",
    "Board",
    "Bound",
    "CallResult",
    "CallbackSink",
    "ClosedError",
    "Commit",
    "ConflictError",
    "CorruptPackageError",
    "DtypeError",
    "DuplicateNodeError",
    "DuplicateOpError",
    "ExecutorError",
    "ExperimentError",
    "InvLength",
    "Job",
    "JobBatch",
    "JobsError",
    "JsonlSink",
    "ListSink",
    "ManyResult",
    "MissingExtraError",
    "NonFiniteError",
    "NullSink",
    "OmissionWarning",
    "OpCheckError",
    "OpResult",
    "Ops",
    "ParamError",
    "PlotError",
    "ReadOnlyError",
    "ResultSink",
    "SchemaError",
    "SecondBackwardError",
    "ShapeError",
    "SinkError",
    "Snapshot",
    "SpecError",
    "StaleImpulseError",
    "StoreError",
    "System",
    "UncachedWarning",
    "UnknownCommitError",
    "UnknownExperimentError",
    "UnknownNodeError",
    "UnknownOpError",
    "UnknownSystemError",
    "WhiteboardError",
    "WhiteboardWarning",
    "WorkerWarning",
    "WrongHitWarning",
    "errors",
    "op",
    "open",
    "ops",
    "rules",
]
