"""``whiteboard recompress``: package pages in another form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from whiteboard.cli.options import MOST, echo, filled, json_option
from whiteboard.cli.progress import bar
from whiteboard.errors import ParamError
from whiteboard.storage.page.codec import Encoding
from whiteboard.storage.upkeep.recompress import forecast
from whiteboard.storage.upkeep.recompress import recompress as rewrite
from whiteboard.storage.upkeep.recompress_plan import Form


@click.command(epilog="For example: whiteboard recompress whiteboard.db --level 9 --dry-run")
@click.argument("store", metavar="STORE")
@click.option("--codec", type=click.Choice(["zstd", "lz4", "blosclz", "raw"]), default="zstd", show_default=True)
@click.option("--level", type=int, metavar="N", help="1 (fast) to 9 (small); 1 where it is not given.")
@click.option(
    "--page-bytes",
    type=click.IntRange(1, MOST),
    metavar="N",
    help="Join small pages, and cut large ones, to about N bytes of arrays; as the store writes them, if not given.",
)
@click.option("--op", "ops", multiple=True, metavar="NAME", help="Only packages of this op; repeatable.")
@click.option("--dry-run", is_flag=True, help="Write nothing; say how many rows and bytes it would be.")
@json_option
def recompress(
    store: str,
    codec: str,
    level: int | None,
    page_bytes: int | None,
    ops: Sequence[str],
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Rewrite the package pages of STORE with another codec, level or page size. Status 1 where pages are damaged.

    The store may be in use. What it answers stays the same to the bit; pages that have the form already are left
    alone, so a second call changes nothing, and one after a kill goes on. Pages of systems stay as they are: their
    commits' seals cover every byte.
    """
    try:
        form = Form(Encoding(codec, int(codec != "raw") if level is None else level), page_bytes)
    except ParamError as error:
        raise click.UsageError(str(error)) from error
    if dry_run:
        done = forecast(store, form, ops=ops or None)
    else:
        with bar("recompress") as progress:
            done = rewrite(store, form, ops=ops or None, progress=progress)
    fields = {"store": store, "encoding": str(form.encoding), **asdict(done)}
    echo(fields if as_json else filled(fields), as_json=as_json)
    return int(bool(done.damaged))
