"""``whiteboard export``: a store, or some of it, into an archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from whiteboard.cli.options import MOST, echo, json_option
from whiteboard.cli.progress import bar
from whiteboard.storage.transfer.export import export as export_store


@click.command(epilog="For example: whiteboard export whiteboard.db europe.wb --system europe")
@click.argument("store", metavar="STORE")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--system", "systems", multiple=True, metavar="NAME", help="This system and what it was forked from; '*'."
)
@click.option("--op", "ops", multiple=True, metavar="NAME", help="Packages of this op; '*' for all.")
@click.option(
    "--since", type=click.IntRange(0, MOST), metavar="COMMIT", help="Only the system's commits after this one."
)
@json_option
def export(
    store: str, file: Path, systems: Sequence[str], ops: Sequence[str], since: int | None, *, as_json: bool
) -> int:
    """Write STORE, or what --system and --op name of it, into the archive FILE.

    Naming neither exports everything; naming only one of them, nothing of the other. Killed, it goes on where it
    was when it is called again.
    """
    with bar("export") as progress:
        done = export_store(store, file, systems=systems, ops=ops, since=since, progress=progress)
    echo({**asdict(done), "path": str(done.path)}, as_json=as_json)
    return int(bool(done.damaged))
