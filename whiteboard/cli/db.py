"""``whiteboard db``: the store's schema."""

from __future__ import annotations

import click

from whiteboard.cli.options import echo, json_option, store_option
from whiteboard.storage import schema


@click.group()
def db() -> None:
    """Look at and change the store's schema."""


@db.command()
@store_option
@json_option
def current(store: str, *, as_json: bool) -> None:
    """Show the store's schema revision beside this version's."""
    echo({"store": store, "revision": schema.current(store), "head": schema.HEAD}, as_json=as_json)


@db.command()
@store_option
@json_option
def upgrade(store: str, *, as_json: bool) -> None:
    """Bring the store to this version's schema."""
    before = schema.current(store)
    schema.upgrade(store)
    echo({"store": store, "from": before, "to": schema.current(store)}, as_json=as_json)
