"""``whiteboard show``, ``info`` and ``ls``: look at a store without writing to it."""

from __future__ import annotations

from typing import Any

import click

from whiteboard import board as boards
from whiteboard.cli.options import echo, existing, json_option, store_option
from whiteboard.cli.terminal import say
from whiteboard.experiments.definition import measured
from whiteboard.system import System

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
def ls(store: str, *, as_json: bool) -> None:
    """List the systems in the store."""
    with boards.open(store, readonly=True) as board:
        rows = [_described(board.system(name)) for name in board.systems()]
    if as_json:
        echo({"systems": rows}, as_json=True)
        return
    for row in rows:
        say(f"{row['name']}  commit {row['commit']}  {row['nodes']} nodes  {row['digest']}")
