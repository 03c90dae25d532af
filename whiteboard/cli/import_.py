"""``whiteboard import``: an archive into a store."""

from __future__ import annotations

from pathlib import Path

import click

from whiteboard.cli.conflicts import echo_merged, merged_fields
from whiteboard.cli.options import echo, json_option
from whiteboard.cli.progress import bar
from whiteboard.storage.transfer.import_archive import import_archive


@click.command("import", epilog="For example: whiteboard import other.db europe.wb")
@click.argument("store", metavar="STORE")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def import_(store: str, file: Path, *, as_json: bool) -> int:
    """Bring the archive FILE into STORE, which is created where there is none.

    Nothing that is there is replaced. Killed, it goes on when it is called again.
    """
    with bar("import") as progress:
        done = import_archive(store, file, progress=progress)
    fields = merged_fields({"store": store, "pages": done.pages}, done.packages, done.systems)
    if as_json:
        echo(fields, as_json=True)
    else:
        echo_merged(fields, done.packages)
    return 0
