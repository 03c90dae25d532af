"""``whiteboard show``: where a system stands."""

from __future__ import annotations

from typing import Any

import click

from whiteboard import board as boards
from whiteboard.cli.options import echo, existing, json_option, store_option
from whiteboard.experiments.definition import measured
from whiteboard.experiments.minimize import standing
from whiteboard.systems.system import System


@click.command(epilog="For example: whiteboard show europe")
@click.argument("name")
@store_option
@json_option
def show(name: str, store: str, *, as_json: bool) -> None:
    """Show where the system NAME stands: commit, measure, nodes, digest."""
    with boards.open(store, readonly=True) as board:
        echo(described(existing(board, name, store)), as_json=as_json)


def described(system: System) -> dict[str, Any]:
    """Where a system stands: name, commit, nodes, digest, measure and specification."""
    head = system.head
    fields: dict[str, Any] = {
        "name": system.name,
        "commit": None if head is None else head.id,
        "nodes": len(system.nodes),
        "digest": system.digest(),
    }
    if head is not None:
        named = measured(system.spec, head)
        if "minimize" in (system.spec or {}) and (stands := standing(system)):
            return {**fields, **stands, "spec": system.spec}
        fields |= dict([named]) if named else {"stress": head.stress, "residual_norm": head.residual_norm}
    return {**fields, "spec": system.spec}
