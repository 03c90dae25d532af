"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from whiteboard import board as boards
from whiteboard.board import Board
from whiteboard.cli.terminal import columns, json_text, padded, say, visible
from whiteboard.errors import UnknownSystemError, WhiteboardError
from whiteboard.ops.user_module import imported
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


def workers_option(command: Command) -> Command:
    """Add ``--workers``, which is given to `wb.open` as ``executor``."""
    return click.option("--workers", type=click.IntRange(1, 1024), help="Compute dear ops in so many processes.")(
        command
    )


def dask_option(command: Command) -> Command:
    """Add ``--dask``, for `computing`."""
    return click.option("--dask", metavar="ADDRESS", help="Compute dear ops on the cluster of this Dask scheduler.")(
        command
    )


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
        return ", ".join(map(_inner, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_inner(item)}" for name, item in value.items())
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _inner(value: Any) -> str:
    """Return a value within another: what has several parts in brackets of its own."""
    if isinstance(value, list | Mapping):
        return f"[{_text(value)}]" if isinstance(value, list) else f"{{{_text(value)}}}"
    return _text(value)


_BYTES: Final = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SECONDS: Final = {"": 86400.0, "S": 1.0, "M": 60.0, "H": 3600.0, "D": 86400.0, "W": 604800.0}


class _Amount(click.ParamType):  # type: ignore[type-arg]
    """A number with a unit."""

    def __init__(self, name: str, units: dict[str, Any], example: str) -> None:
        self.name, self.units, self.example = name, units, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Z]?)(?:IB)?", str(value).strip().upper())
        if match is None or match[2] not in self.units:
            self.fail(f"{value!r} is not a {self.name}: expected {self.example}", param, ctx)
        unit = self.units[match[2]]
        amount = float(match[1]) * unit
        if not amount < MOST:
            self.fail(f"{value!r} is too large", param, ctx)
        return type(unit)(amount)


SIZE = _Amount("size", _BYTES, "bytes, or a number with K, M, G or T, such as 500M")
AGE = _Amount("time", _SECONDS, "days, or a number with s, m, h, d or w, such as 12h")


sample_option = click.option(
    "--sample", type=click.FloatRange(0, 1), default=1.0, show_default=True, metavar="P", help="Look at this part only."
)

seed_option = click.option(
    "--seed", type=click.IntRange(-MOST, MOST), metavar="K", help="Of the sample; another one each time by default."
)

dry_run_option = click.option("--dry-run", is_flag=True, help="Delete nothing, and say what would go.")

module_option = click.option(
    "--module", multiple=True, metavar="MODULE", help="Import MODULE first, for the ops that it registers."
)
"""Adds ``--module``."""


def existing_store(store: str, *, readonly: bool) -> boards.Board:
    """Open a store that is there; looking after one is no way to make one."""
    if not readonly:
        boards.open(store, readonly=True).close()
    return boards.open(store, readonly=readonly)


def import_modules(modules: Sequence[str]) -> None:
    """Import what ``--module`` names, from the working folder too.

    Raises
    ------
    click.UsageError
    """
    for module in modules:
        try:
            imported(module)
        except ImportError as error:
            if isinstance(error.__cause__, WhiteboardError):
                raise error.__cause__ from None
            msg = f"--module {module}: {error}"
            raise click.UsageError(msg) from error
