"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from whiteboard.board import Board
from whiteboard.cli.terminal import columns, json_text, padded, say, visible
from whiteboard.errors import UnknownSystemError
from whiteboard.systems.system import System

_NAMED: Final = 10

Command = TypeVar("Command", bound=Callable[..., Any])

MOST = 2**63 - 1
"""The largest whole number that an option takes: a store holds no larger one."""


def store_option(command: Command) -> Command:
    """Add ``--store``, which falls back to ``$WHITEBOARD_STORE``, then ``./whiteboard.db``."""
    return click.option(
        "--store",
        envvar="WHITEBOARD_STORE",
        default="whiteboard.db",
        show_default=True,
        metavar="PATH|URL",
        help="The store; $WHITEBOARD_STORE where it is not given.",
    )(command)


def json_option(command: Command) -> Command:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def existing(board: Board, name: str, store: str) -> System:
    """Return a system that the store has.

    Raises
    ------
    UnknownSystemError
    """
    if name not in (names := board.systems()):
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        msg = f"{store} has no system {name!r}; it has {', '.join(names[:_NAMED]) or 'none'}{more}"
        raise UnknownSystemError(msg)
    return board.system(name)


def echo(fields: Mapping[str, Any], *, as_json: bool) -> None:
    """Print fields as one JSON object, or as aligned lines."""
    if as_json:
        say(json_text(fields))
        return
    width = max((columns(visible(name)) for name in fields), default=0)
    for name, value in fields.items():
        say(f"{padded(name, width)}  {_text(value)}")


def filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields without those that are empty."""
    return {name: value for name, value in fields.items() if value not in ("", [], {}, None)}


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(item)}" for name, item in value.items())
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
