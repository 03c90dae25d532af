"""The one way by which text leaves for a terminal: nothing in it moves a cursor, hides, or turns round what follows."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import sys
import traceback
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, TextIO

import click

from whiteboard.errors import SinkError

# Printable, as Python has it, but without ink: Unicode's Default_Ignorable_Code_Point, and the blank of Braille.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    r"""Return a text of which every character can be seen; what cannot is written as in Python, ``\x1b`` or ``\u202e``.

    Controls, line breaks, bidirectional marks, what has no width, spaces but the plain one, and lone surrogates.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() and not _UNSEEN.match(char) else _escaped(char) for char in text)


def columns(text: str) -> int:
    """Return how many columns of a terminal a text of visible characters takes: two for a wide one, none for a mark."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def padded(text: str, width: int) -> str:
    """Return a text made visible, with the spaces that fill it to so many columns."""
    text = visible(text)
    return text + " " * (width - columns(text))


def say(text: str, *, err: bool = False, end: str = "\n") -> None:
    """Print one line, of characters that can be seen; or, with another `end`, a part of it.

    Raises
    ------
    SinkError
        Standard output is closed, or cannot be written: its disk is full. What standard error refuses is dropped.
    click.exceptions.Exit
        Who reads standard output has gone (``| head``): there is nobody to tell.
    """
    line = visible(text) + end
    if not err:
        with _Output() as stream:
            stream.write(_encodable(line, stream))
        return
    finish()  # so that the two stand in the order in which they were said
    if sys.stderr is not None:
        try:
            sys.stderr.write(_encodable(line, sys.stderr))
            sys.stderr.flush()
        except OSError:
            _drop(sys.stderr)


def finish() -> None:
    """Hand on what was said; raises like `say`."""
    if sys.stdout is not None:
        with _Output() as stream:
            stream.flush()


def json_text(value: Any, *, default: Callable[[Any], Any] | None = None) -> str:
    """Return JSON in ASCII without a control character: an infinity or NaN is null, and ``not_finite`` says where."""
    try:
        text = json.dumps(value, allow_nan=False, default=default)
    except ValueError:
        odd: dict[str, str] = {}
        value = _finite(value, "", odd)
        text = json.dumps({**value, "not_finite": odd}, allow_nan=False, default=default)
    return text.replace("\x7f", "\\u007f")


def keep_descriptors() -> None:
    """Let no file that is opened later be standard input, output or error, where one of these is closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free


def warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    """Print a warning; for `warnings.showwarning`."""
    say(f"{filename}:{lineno}: {category.__name__}: {message}", err=True)


class _Handler(logging.Handler):
    """Prints log records on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record), err=True)


def logged(*, detailed: bool) -> None:
    """Print from now on what the library logs, with the time of each line."""
    handler, log = _Handler(), logging.getLogger("whiteboard")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if detailed else logging.INFO)


def crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback; for `sys.excepthook`."""
    for line in "".join(traceback.format_exception(kind, error, trace)).rstrip("\n").split("\n"):
        say(line, err=True)


class _Output:
    """Standard output, whose failures are told in one line."""

    def __enter__(self) -> TextIO:
        if sys.stdout is None:
            raise _unwritten(OSError(errno.EBADF, os.strerror(errno.EBADF)))
        return sys.stdout

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            _drop(sys.stdout)
            if isinstance(error, BrokenPipeError):
                raise click.exceptions.Exit(1)
            raise _unwritten(error) from error


def _unwritten(error: OSError) -> SinkError:
    return SinkError(f"cannot write to standard output: {error.strerror}")


def _drop(stream: TextIO) -> None:
    """Lead a stream nowhere: what is in its buffer would be tried again when the interpreter ends, and fail again."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _encodable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    return text if text.isascii() else text.encode(encoding, "backslashreplace").decode(encoding)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _finite(value: Any, where: str, odd: dict[str, str]) -> Any:
    """Return a value with null for each number that JSON has not; `odd` gets its place and what it is."""
    if isinstance(value, float) and not math.isfinite(value):
        odd[where] = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"  # as in a log
        return None
    if isinstance(value, dict):
        return {key: _finite(item, f"{where}.{key}" if where else str(key), odd) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, f"{where}[{i}]", odd) for i, item in enumerate(value)]
    return value
