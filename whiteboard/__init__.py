"""Differentiable operations over versioned nodes, computed once, cached for good, and never lost.

``wb.open`` gives a `Board`; `Board.call` answers an op from the cache or by computing; `Board.system` opens a
named set of nodes that resumes at its last commit.
"""

from whiteboard import errors, ops, rules
from whiteboard.board import Board, CallResult, ManyResult, open
from whiteboard.errors import *  # noqa: F403 - the error tree is public
from whiteboard.history import Commit, Snapshot
from whiteboard.jobs import BatchResult, Job, JobBatch, OpResult
from whiteboard.pipeline import UncachedWarning
from whiteboard.sinks import CallbackSink, JsonlSink, ListSink, NullSink
from whiteboard.system import System
from whiteboard.types import ResultSink

__version__ = "0.1.0"

__all__ = [
    "BatchResult",
    "Board",
    "CallResult",
    "CallbackSink",
    "Commit",
    "Job",
    "JobBatch",
    "JsonlSink",
    "ListSink",
    "ManyResult",
    "NullSink",
    "OpResult",
    "ResultSink",
    "Snapshot",
    "System",
    "UncachedWarning",
    "errors",
    "open",
    "ops",
    "rules",
]
