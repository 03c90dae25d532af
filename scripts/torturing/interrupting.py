"""A trace that raises an error at the n-th line that a signal can reach."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import whiteboard as wb
from whiteboard import storage

CHECKED: Final = frozenset({"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"})
"""The instructions after which the interpreter looks whether a signal has come."""

TRACED: Final = (str(Path(wb.__file__).parent), "/sqlalchemy/", "contextlib.py", str(Path(storage.__file__).parent))


@cache
def _reach(code: CodeType) -> tuple[frozenset[int], dict[int, int]]:
    """Return the offsets after which a signal is looked for, and for each offset the handler an exception finds."""
    instructions = list(dis.get_instructions(code))
    entries = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    handler = {
        each.offset: next((entry.target for entry in entries if entry.start <= each.offset < entry.end), -1)
        for each in instructions
    }
    return frozenset(each.offset for each in instructions if each.opname in CHECKED), handler


class Interrupting:
    """A trace that raises an error at the n-th line that a signal can reach; n = 0 only counts them.

    Lines are those of `only`, or else of all of whiteboard and of what it works with. From Python 3.12 on not all of a
    function are told in its first run.
    """

    def __init__(self, at: int, error: type[BaseException], only: CodeType | None = None) -> None:
        self.at, self.error, self.only, self.count, self.where = at, error, only, 0, ""
        self._last: dict[FrameType, tuple[int, int]] = {}

    def __call__(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        if frame.f_back in self._last:
            self._last[frame.f_back] = (-1, -1)  # no signal is looked for where a call of a Python function returns
        code = frame.f_code
        if self.only is not code if self.only else not any(part in code.co_filename for part in TRACED):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._local

    def _local(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "return":
            self._last.pop(frame, None)
        elif event == "opcode":
            looks, handler = _reach(frame.f_code)
            before, line = self._last.get(frame, (-1, -1))
            now = frame.f_lasti
            reached = before in looks and handler.get(before) == handler.get(now) and line != frame.f_lineno
            self._last[frame] = (now, frame.f_lineno if reached else line)
            if reached:
                self.count += 1
                if self.count == self.at:
                    self._last.clear()
                    sys.settrace(None)
                    self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
                    raise self.error
        return self._local

    def run(self, work: Callable[[], object]) -> BaseException | None:
        """Run `work` under the trace; return what was raised."""
        sys.settrace(self)
        try:
            work()
        except self.error as error:
            return error
        finally:
            sys.settrace(None)
            self._last.clear()
        return None
