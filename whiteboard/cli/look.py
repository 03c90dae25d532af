"""``whiteboard show``, ``info`` and ``ls``: look at a store without writing to it."""

from __future__ import annotations

from typing import Any

import click

from whiteboard import board as boards
from whiteboard.cli.options import echo, existing, json_option, store_option
from whiteboard.experiments.definition import measured
from whiteboard.system import System


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
    """Show what the store is and holds."""
    with boards.open(store, readonly=True) as board:
        stats = board.stats()
        sizes = {name: stats[name] for name in ("packages", "pages", "bytes_disk")}
        echo({**board.info(), **sizes, "systems": len(board.systems())}, as_json=as_json)


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
        click.echo(f"{row['name']}  commit {row['commit']}  {row['nodes']} nodes  {row['digest']}")
