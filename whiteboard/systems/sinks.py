"""Sinks: where results go. Nothing is ever printed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from io import FileIO
from types import TracebackType
from typing import Any, Self

import numpy as np

from whiteboard.errors import ParamError, SinkError
from whiteboard.systems.jobs import BatchResult


def check_sink(sink: Any, where: str) -> None:
    """Raise `ParamError`, opened by `where`, for what is no sink: before anything is computed for it."""
    if sink is not None and not callable(getattr(sink, "publish", None)):
        msg = f"{where}: sink: expected an object with a method publish(result), or None, got {sink!r}"
        raise ParamError(msg)


class NullSink:
    """Takes results and keeps none."""

    def publish(self, result: Any) -> None:
        """Drop `result`."""


class ListSink:
    """Keeps results in the list `results`, in submission order; reads like that list."""

    def __init__(self) -> None:
        self.results: list[Any] = []

    def publish(self, result: Any) -> None:
        """Append `result`."""
        self.results.append(result)

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, position: int) -> Any:
        return self.results[position]


class CallbackSink:
    """Calls a function with each result."""

    def __init__(self, callback: Callable[[Any], object]) -> None:
        self._callback = callback

    def publish(self, result: Any) -> None:
        """Call the callback with `result`."""
        self._callback(result)


class JsonlSink:
    """Appends each result to a file as one line of JSON; a `BatchResult` is one line a job.

    Keys: job_id, out_id, hit, y, grads for a result; the fields of any other dataclass, such as a `Commit`.
    NaN and infinities are written as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, so that every
    line is strict JSON, in ASCII. Each `publish` reaches the operating system before it returns, or leaves the file as
    it was: a full disk keeps no half of a line.

    Raises
    ------
    SinkError
        The file cannot be opened or written, or is a pipe that nobody reads.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given: Any = path
        if not isinstance(given, str | os.PathLike):
            msg = f"JsonlSink: path: expected the path of a file, got {path!r}"
            raise ParamError(msg)
        self._path = os.fspath(path)
        with self._named():
            # A pipe would be waited for until somebody reads it.
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
            os.set_blocking(file, True)
            self._file = FileIO(file, "a")

    def publish(self, result: Any) -> None:
        """Write `result`."""
        rows: Iterable[Any] = result if isinstance(result, BatchResult) else (result,)
        text = "".join(_line(row) for row in rows).encode()
        written = 0
        with self._named():
            try:
                while written < len(text):
                    written += self._file.write(text[written:])
            except OSError:
                self._cut_back(written)
                raise

    def _cut_back(self, written: int) -> None:
        """Cut off what was written of a line, where it is still the end of a file."""
        with suppress(OSError):
            end = self._file.tell()
            if written and end == os.fstat(self._file.fileno()).st_size:
                self._file.truncate(end - written)

    def close(self) -> None:
        """Close the file."""
        with self._named():
            self._file.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"cannot write results to {self._path}: {error.strerror}"
            raise SinkError(msg) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _line(row: Any) -> str:
    named = {field.name: getattr(row, field.name) for field in fields(row)}
    if named.get("error", ...) is None:  # it is there in the lines of jobs that failed
        del named["error"]
    return (
        json.dumps({name: _plain(value) for name, value in named.items()}, allow_nan=False).replace("\x7f", "\\u007f")
        + "\n"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return value if isinstance(value, int | float | str | None) else str(value)
