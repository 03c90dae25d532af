"""``whiteboard copy``: a store under another URL."""

from __future__ import annotations

from typing import Any

import click

from whiteboard.cli.options import echo, filled, json_option
from whiteboard.cli.progress import bar
from whiteboard.storage.transfer.contents import forecast
from whiteboard.storage.transfer.merge import merge


@click.command(epilog="For example: whiteboard copy whiteboard.db backup.db")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--dry-run", is_flag=True, help="Write nothing; say how many rows and bytes it would be.")
@json_option
def copy(source: str, target: str, *, dry_run: bool, as_json: bool) -> int:
    """Copy a store from one path or URL to another: packages, systems, histories, through the gate.

    The source may be in use. A target that exists is gone on with: what it has is compared and stays as it is. Status
    1 where TO is then no copy of FROM.
    """
    said = forecast(source) if dry_run else copied(source, target)
    echo(said if as_json else filled(said), as_json=as_json)
    return int(any(said.get(name) for name in ("conflicts", "renamed", "damaged_pages", "damaged_commits")))


def copied(source: str, target: str) -> dict[str, Any]:
    """Copy, with a bar on a terminal; return what was done."""
    with bar("copy") as progress:
        (done,) = merge(target, [source], progress=progress)
    return {
        "packages_added": done.packages.added,
        "packages_present": done.packages.present,
        "conflicts": done.packages.conflicts,
        "commits_added": done.systems.commits,
        "renamed": done.systems.renamed,
        "damaged_pages": done.damaged,
        "damaged_commits": [f"{name}@{number}: {why}" for name, number, why in done.systems.damaged],
    }
