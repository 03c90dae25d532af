"""``whiteboard fork``: a system that goes on from another."""

from __future__ import annotations

import click

from whiteboard.cli.options import MOST, echo, existing, existing_store, json_option, store_option


@click.command(epilog="For example: whiteboard fork europe other --at 10")
@click.argument("name")
@click.argument("new")
@click.option("--at", type=click.IntRange(0, MOST), help="The commit to go on from; the last one where not given.")
@store_option
@json_option
def fork(name: str, new: str, at: int | None, store: str, *, as_json: bool) -> None:
    """Create the system NEW, which goes on from a commit of NAME and shares all before it."""
    with existing_store(store, readonly=False) as board:
        forked = existing(board, name, store).fork(new, at=at)
        head = forked.head
        echo(
            {"name": new, "origin": name, "commit": None if head is None else head.id, "digest": forked.digest()},
            as_json=as_json,
        )
