"""What leaves for a terminal or a pipe, all of it: nothing that a store, a file or an argument holds can steer one."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click


def say(line: str = "", *, err: bool = False) -> None:
    """Write one line to stdout, or to stderr."""
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    click.echo(escaped(line).encode(encoding, "backslashreplace").decode(encoding), err=err)


def say_json(fields: Mapping[str, Any]) -> None:
    """Write one object of strict JSON: a number that is not finite is null, and `not_finite` says what it was."""
    click.echo(_json(fields))


@contextmanager
def listed(name: str, *, as_json: bool) -> Iterator[Callable[[Mapping[str, Any], str], None]]:
    """Write rows one by one, by a function of a row's fields and its line: as lines, or as one object with a list."""
    between = ""

    def show(fields: Mapping[str, Any], line: str) -> None:
        nonlocal between
        if as_json:
            click.echo(between + _json(fields), nl=False)
            between = ",\n"
        else:
            say(line)

    if as_json:
        click.echo(f'{{"{name}": [', nl=False)
    yield show
    if as_json:
        click.echo("]}")


def _json(fields: Mapping[str, Any]) -> str:
    said = dict(fields)
    if odd := dict(_not_finite(said, "")):
        said = {**_finite(said), "not_finite": odd}
    # JSON in ASCII escapes all that a terminal hears but this one.
    return json.dumps(said, allow_nan=False).replace("\x7f", "\\u007f")


def escaped(text: str) -> str:
    """Return text in which everything that is not printed is written as an escape, such as \\x1b or \\u202e.

    Control characters, marks that turn the direction, what has no width, separators of lines, and halves of characters
    are none of a name that anybody wants to see.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def hush() -> None:
    """Let what is unwritten go nowhere, once stdout or stderr takes no more: the interpreter flushes as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            if stream is not None and not stream.closed:
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _not_finite(value: Any, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield at, "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _not_finite(each, f"{at}.{name}" if at else str(name))
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _not_finite(each, f"{at}[{number}]")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
