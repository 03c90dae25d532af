"""``whiteboard rm``: take out a system."""

from __future__ import annotations

from dataclasses import asdict

import click

from whiteboard.cli.options import (
    dry_run_option,
    echo,
    existing_store,
    json_option,
    store_option,
)


@click.command(epilog="For example: whiteboard rm europe --dry-run")
@click.argument("name")
@dry_run_option
@store_option
@json_option
def rm(name: str, store: str, *, dry_run: bool, as_json: bool) -> None:
    """Delete the system NAME with all its commits.

    Commits that forks of it go on from stay, under another name, until the last of these forks is deleted.
    """
    with existing_store(store, readonly=dry_run) as board:
        done = board.remove(name, dry_run=dry_run)
    fields = asdict(done)
    if as_json:
        echo({"store": store, **fields}, as_json=True)
        return
    echo({key: value for key, value in fields.items() if value not in (None, ())}, as_json=False)
