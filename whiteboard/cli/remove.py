"""``whiteboard rm`` and ``forget``: take out a system, or packages."""

from __future__ import annotations

from dataclasses import asdict

import click

from whiteboard.cli.maintain import AGE, existing_store
from whiteboard.cli.options import MOST, echo, json_option, store_option

_dry_run = click.option("--dry-run", is_flag=True, help="Delete nothing, and say what would go.")


@click.command()
@click.argument("name")
@_dry_run
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


@click.command()
@click.option("--op", metavar="NAME", help="Packages of this op.")
@click.option("--version", type=click.IntRange(1, MOST), metavar="V", help="Of this version of it.")
@click.option("--older-than", type=AGE, metavar="D", help="That were not used for so long: 30d, 12h, 90m.")
@click.option("--key", metavar="K", help="The one package of this key, 32 hexadecimal digits.")
@_dry_run
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
