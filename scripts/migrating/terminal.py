"""What the programs here share: a bar on a terminal, and what they say at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Give a function ``progress(done, total)`` that draws on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task(what)
        yield lambda done, total: drawn.update(task, completed=done, total=total)


def say(fields: Mapping[str, Any], *, as_json: bool) -> None:
    """Print fields as one JSON object, or as aligned lines without those that are empty."""
    if as_json:
        print(json.dumps(fields))
        return
    shown = {name: value for name, value in fields.items() if value not in ("", [], {}, None)}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        print(f"{name:<{width}}  {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(each)}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
