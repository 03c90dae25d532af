"""``whiteboard forget``: take out packages."""

from __future__ import annotations

from dataclasses import asdict

import click

from whiteboard.cli.options import (
    AGE,
    MOST,
    dry_run_option,
    echo,
    existing_store,
    json_option,
    store_option,
)


@click.command(epilog="For example: whiteboard forget --op drag --older-than 30d")
@click.option("--op", metavar="NAME", help="Packages of this op.")
@click.option("--version", type=click.IntRange(1, MOST), metavar="V", help="Of this version of it.")
@click.option("--older-than", type=AGE, metavar="D", help="That were not used for so long: 30d, 12h, 90m.")
@click.option("--key", metavar="K", help="The one package of this key, 32 hexadecimal digits.")
@dry_run_option
@store_option
@json_option
def forget(
    op: str | None,
    version: int | None,
    older_than: float | None,
    key: str | None,
    store: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete packages for which everything that is given holds; they are computed again when somebody asks."""
    if op is None and older_than is None and key is None:
        message = "say what: --op, --older-than or --key"
        raise click.UsageError(message)
    with existing_store(store, readonly=dry_run) as board:
        done = board.forget(op, version=version, older_than=older_than, key=key, dry_run=dry_run)
    fields = {**asdict(done), "dry_run": dry_run}
    echo({"store": store, **fields} if as_json else fields, as_json=as_json)
