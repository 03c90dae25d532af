"""``whiteboard merge``: stores into a store."""

from __future__ import annotations

from collections.abc import Sequence

import click

from whiteboard.cli.conflicts import echo_merged, merged_fields
from whiteboard.cli.options import echo, json_option
from whiteboard.cli.progress import bar
from whiteboard.storage.transfer.merge import merge as merge_stores


@click.command(epilog="For example: whiteboard merge all.db first.db second.db")
@click.argument("into", metavar="INTO")
@click.argument("sources", nargs=-1, required=True, metavar="FROM...")
@json_option
def merge(into: str, sources: Sequence[str], *, as_json: bool) -> int:
    """Bring packages and systems of the stores FROM into INTO. Status 1 where something of them is damaged.

    Where a key has other bytes in FROM, the package in INTO stays and the conflict is reported. A system whose name
    INTO has with another history is kept under a suffix. Merging twice changes nothing.
    """
    with bar("merge") as progress:
        merged = merge_stores(into, sources, progress=progress)
    rows = [
        merged_fields({"from": one.source, "pages": one.pages, "damaged_pages": one.damaged}, one.packages, one.systems)
        for one in merged
    ]
    if as_json:
        echo({"into": into, "merged": rows}, as_json=True)
    else:
        for one, row in zip(merged, rows, strict=True):
            echo_merged(row, one.packages)
    return int(any(one.damaged or one.systems.damaged for one in merged))
