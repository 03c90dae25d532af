"""``whiteboard info``: what a store is and holds."""

from __future__ import annotations

import click

from whiteboard import board as boards
from whiteboard.cli.options import echo, json_option, store_option

_INFO = ("path", "schema", "sqlite", "postgresql", "systems", "packages", "pages", "bytes_disk", "ops", "evicted")


@click.command(epilog="For example: whiteboard info --json")
@store_option
@json_option
def info(store: str, *, as_json: bool) -> None:
    """Show what the store is and holds, by op, and what was evicted from it since it was made."""
    with boards.open(store, readonly=True) as board:
        said = board.info()
    # What a process counts, and how it opened the store, says nothing of a store that was opened to be looked at.
    shown = {name: said[name] for name in _INFO if name in said}
    if as_json:
        echo(shown, as_json=True)
        return
    by_name = {f"{kind} {name}": row for kind in ("ops", "evicted") for name, row in shown.pop(kind).items()}
    echo({**shown, **by_name}, as_json=False)
