"""Values and gradients computed once, cached for good, and never lost; and systems of nodes that resume.

Whiteboard is for functions that take from milliseconds to hours and are needed again and again: in an optimizer that is
stopped, in a sweep, in next week's run. And for systems of many cheap ops over nodes. One SQLite file keeps both.

Your own function, as an optimizer calls it:

```python
import numpy as np
import whiteboard as wb

@wb.op(gradient="returned")
def drag(x, *, mach=0.8):
    return mach * float(x @ x), 2 * mach * x

with wb.open("cache.db") as board:
    f = board.bind(drag, mach=0.5)
    y, grad = f.value_and_grad(np.ones(3))  # computed once, and read from then on
    board.call_many(drag, np.ones((9, 3)))  # nine jobs
    board.table(drag)                       # what is kept, as columns
```

Nodes whose state moves by commits:

```python
with wb.open("cache.db") as board:
    system = board.system("pair")
    if system.head is None:
        system.add_nodes([0, 1], p=np.array([[0.0, 0.0], [3.0, 4.0]]))
        system.commit()
    system.process([wb.Job("distance", (0, 1), target=1.0, attr="p")])
    system.commit(wb.rules.StressDescent(0.5))
```

Start at `open`, `Board`, `op`, `Bound`; then `System`, `Job`, `JobBatch`, `rules`. ``wb.ops.names()`` lists the
built-in operations, `errors` the errors, and ``whiteboard --help`` the command line.
"""

import importlib
from typing import TYPE_CHECKING, Any

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
from whiteboard.ops import op
from whiteboard.types import ResultSink

if TYPE_CHECKING:
    from whiteboard.integration.calls import Ops
    from whiteboard.systems import rules
    from whiteboard.systems.history import Commit, Snapshot
    from whiteboard.systems.jobs import BatchResult, InvLength, Job, JobBatch, OpResult
    from whiteboard.systems.sinks import CallbackSink, JsonlSink, ListSink, NullSink
    from whiteboard.systems.system import System

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

_SYSTEMS = {
    "BatchResult": "whiteboard.systems.jobs",
    "CallbackSink": "whiteboard.systems.sinks",
    "Commit": "whiteboard.systems.history",
    "InvLength": "whiteboard.systems.jobs",
    "Job": "whiteboard.systems.jobs",
    "JobBatch": "whiteboard.systems.jobs",
    "JsonlSink": "whiteboard.systems.sinks",
    "ListSink": "whiteboard.systems.sinks",
    "NullSink": "whiteboard.systems.sinks",
    "OpResult": "whiteboard.systems.jobs",
    "Ops": "whiteboard.integration.calls",
    "Snapshot": "whiteboard.systems.history",
    "System": "whiteboard.systems.system",
    "rules": "whiteboard.systems.rules",
}
"""What systems need, by the module that it is in: imported where it is first asked for, as many processes have none."""


def __getattr__(name: str) -> Any:
    if name not in _SYSTEMS:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    module = importlib.import_module(_SYSTEMS[name])
    globals()[name] = found = module if name == "rules" else getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
