"""How an op goes to a worker: a built-in one by name, a user's as the function and what `op` was told of it.

A function of an imported module goes as the module's name and its own, as pickle has it; one of ``__main__``, a
notebook's or one that was made in a function goes by value, with cloudpickle. The worker makes an op of it anew, which
has the fingerprint of what arrived there.
"""

from __future__ import annotations

import io
import linecache
import marshal
import pickle
import sys
from collections import ChainMap, OrderedDict
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any, Final

from whiteboard.concurrency import locks
from whiteboard.ops import registry
from whiteboard.ops.catalogue import FAMILY
from whiteboard.ops.spec import OpSpec
from whiteboard.ops.user import entry_of

_MOST: Final = 64
"""So many ops that arrived are kept ready."""


@dataclass(frozen=True, slots=True)
class Passed:
    """An op on its way: itself within a process; what is pickled of it are `name` and `pickled`.

    Parameters
    ----------
    name : str
        Of a built-in op.
    pickled : bytes, optional
        Of a user's op.
    here : OpSpec, optional
        The op, for workers of this process.
    """

    name: str
    pickled: bytes | None = None
    here: OpSpec | None = field(default=None, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Passed, (self.name, self.pickled)

    def opened(self) -> OpSpec:
        """Return the op, with the fingerprint that it has here.

        Raises
        ------
        Exception
            Whatever importing it raises.
        """
        if self.here is not None:
            return self.here
        if self.pickled is None:
            return registry.get(self.name)
        with _lock:
            if (entry := _arrived.get(self.pickled)) is None:
                entry = _arrived[self.pickled] = _made(self.pickled)
                if len(_arrived) > _MOST:
                    _arrived.popitem(last=False)
            return entry.current()


_arrived: OrderedDict[bytes, registry.Entry] = OrderedDict()
_lock = locks.rlock()


def passed(spec: OpSpec) -> Passed:
    """Return an op for workers that are other processes.

    Raises
    ------
    Exception
        Whatever pickling its function raises.
    """
    if not spec.user and spec.name in FAMILY:
        return Passed(spec.name)
    assert spec.made is not None  # what is not built in was made by `op`
    body = _by_value(spec.made)
    return Passed(spec.name, pickle.dumps((body, _texts() if b"__main__" in body else {}), protocol=5))


def _by_value(value: object) -> bytes:
    """Pickle as cloudpickle does, but that code keeps the name of its file: without it it would have no source."""
    import cloudpickle  # few boards have workers

    code = {CodeType: lambda code: (marshal.loads, (marshal.dumps(code),))}
    table = ChainMap(code, cloudpickle.Pickler.dispatch_table)
    buffer = io.BytesIO()
    # The table is read when a pickler is made, from its class.
    pickler = type("Pickler", (cloudpickle.Pickler,), {"dispatch_table": table})
    pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def _made(pickled: bytes) -> registry.Entry:
    body, texts = pickle.loads(pickled)
    for file, lines in texts.items():
        linecache.cache[file] = (sum(map(len, lines)), None, lines, file)  # without a time it is not looked for on disk
    function, told = pickle.loads(body)
    return entry_of(function, **told)


def _texts() -> dict[str, list[str]]:
    """Return the sources of ``__main__`` by file: a notebook's cells are files that its own process alone knows."""
    files = {function.__code__.co_filename for each in vars(sys.modules["__main__"]).values() for function in _in(each)}
    return {file: lines for file in sorted(files) if (lines := linecache.getlines(file))}


def _in(value: object) -> list[FunctionType]:
    """Return a function of ``__main__``, or those of a class of it."""
    if getattr(value, "__module__", None) != "__main__":
        return []
    found = vars(value).values() if isinstance(value, type) else (value,)
    return [each for each in found if isinstance(each, FunctionType)]
