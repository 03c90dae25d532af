"""``whiteboard log``: the commits of a system."""

from __future__ import annotations

from typing import Any

import click

from whiteboard import board as boards
from whiteboard.cli.options import MOST, echo, existing, json_option, store_option
from whiteboard.cli.terminal import say
from whiteboard.experiments.definition import measured
from whiteboard.experiments.minimize import standing


@click.command(epilog="For example: whiteboard log europe --last 5")
@click.argument("name")
@click.option("--last", type=click.IntRange(1, MOST), help="Only this many commits, the last ones.")
@store_option
@json_option
def log(name: str, last: int | None, store: str, *, as_json: bool) -> None:
    """Show the commits of the system NAME, the last one first."""
    with boards.open(store, readonly=True) as board:
        system = existing(board, name, store)
        rows: list[dict[str, Any]] = []
        for commit in reversed(system.history()[-(last or 0) :]):
            named = measured(system.spec, commit) or ("stress", commit.stress)
            if "minimize" in (system.spec or {}) and (stands := standing(system.at(commit.id))):
                named = ("f", stands["f"])
            row = {"commit": commit.id, "parent": commit.parent, "changed": commit.changed}
            rows.append({**row, named[0]: named[1], "digest": commit.digest})
    if as_json:
        echo({"name": name, "commits": rows}, as_json=True)
        return
    for row in rows:
        number, _, changed, value, digest = row.values()
        shown = "-" if value is None else f"{value:.10g}"
        say(f"{number:>8}  {digest}  {changed:>8,} nodes changed  {list(row)[3]} {shown}")
