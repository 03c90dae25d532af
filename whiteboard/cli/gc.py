"""``whiteboard gc``: keep a store small."""

from __future__ import annotations

from dataclasses import asdict

import click

from whiteboard.cli.options import (
    AGE,
    SIZE,
    echo,
    existing_store,
    json_option,
    store_option,
)


@click.command(epilog="For example: whiteboard gc --max-bytes 2G")
@click.option("--max-bytes", type=SIZE, metavar="N", help="Evict until the file holds no more: 2000000, 500M, 2G.")
@click.option("--older-than", type=AGE, metavar="D", help="Evict only what was not used for so long: 30d, 12h, 90m.")
@click.option("--dry-run", is_flag=True, help="Evict nothing, and say what would go.")
@store_option
@json_option
def gc(max_bytes: int | None, older_than: float | None, store: str, *, dry_run: bool, as_json: bool) -> None:
    """Evict packages, those used longest ago first, and give their space back.

    Node versions are never evicted. Others may go on writing meanwhile.
    """
    with existing_store(store, readonly=dry_run) as board:
        report = board.gc(max_bytes=max_bytes, older_than=older_than, dry_run=dry_run)
    fields = asdict(report)
    evicted, unreferenced = fields.pop("evicted"), fields.pop("unreferenced")
    if as_json:
        echo({"store": store, "evicted": evicted, "unreferenced": unreferenced, **fields}, as_json=True)
        return
    would = "would go" if dry_run else "evicted"
    echo({would: evicted, f"{would}, as nothing led to them": unreferenced, **fields}, as_json=False)
