"""``whiteboard show``, ``info`` and ``ls``: look at a store without writing to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from whiteboard import board as boards
from whiteboard.board import Board
from whiteboard.cli.options import echo, existing, json_option, store_option
from whiteboard.cli.terminal import json_text, say
from whiteboard.errors import CorruptPackageError, ParamError, UnknownSystemError
from whiteboard.experiments.definition import measured
from whiteboard.systems.system import System

_INFO = ("path", "schema", "sqlite", "systems", "packages", "pages", "bytes_disk", "ops", "evicted")


@click.command()
@click.argument("name")
@store_option
@json_option
def show(name: str, store: str, *, as_json: bool) -> None:
    """Show where the system NAME stands: commit, measure, nodes, digest."""
    with boards.open(store, readonly=True) as board:
        echo(_described(existing(board, name, store)), as_json=as_json)


def _described(system: System) -> dict[str, Any]:
    head = system.head
    fields: dict[str, Any] = {
        "name": system.name,
        "commit": None if head is None else head.id,
        "nodes": len(system.nodes),
        "digest": system.digest(),
    }
    if head is not None:
        named = measured(system.spec, head)
        fields |= dict([named]) if named else {"stress": head.stress, "residual_norm": head.residual_norm}
    return {**fields, "spec": system.spec}


@click.command()
@store_option
@json_option
def info(store: str, *, as_json: bool) -> None:
    """Show what the store is and holds, by op, and what was evicted from it since it was made."""
    with boards.open(store, readonly=True) as board:
        said = board.info()
    # What a process counts, and how it opened the store, says nothing of a store that was opened to be looked at.
    shown = {name: said[name] for name in _INFO}
    if as_json:
        echo(shown, as_json=True)
        return
    by_name = {f"{kind} {name}": row for kind in ("ops", "evicted") for name, row in shown.pop(kind).items()}
    echo({**shown, **by_name}, as_json=False)


@click.command()
@store_option
@json_option
def ls(store: str, *, as_json: bool) -> int:
    """List the systems in the store. Status 1 where one is damaged."""
    damaged = False
    with boards.open(store, readonly=True) as board:
        if as_json:
            say('{"systems": [', end="")
        for number, row in enumerate(_rows(board)):
            damaged |= "damaged" in row
            if as_json:
                say(", " * bool(number) + json_text(row), end="")
            elif "damaged" in row:
                say(f"{row['name']}  damaged: {row['damaged']}")
            else:
                say(f"{row['name']}  commit {row['commit']}  {row['nodes']} nodes  {row['digest']}")
        if as_json:
            say("]}")
    return int(damaged)


def _rows(board: Board) -> Iterator[dict[str, Any]]:
    for name in board.each_name():
        try:
            yield _described(board.look(name))
        except UnknownSystemError:
            pass  # removed since
        except (CorruptPackageError, ParamError) as error:
            yield {"name": name, "damaged": str(error)}
