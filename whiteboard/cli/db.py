"""``whiteboard db``: the store's schema."""

from __future__ import annotations

import click

from whiteboard.cli.options import echo, json_option, store_option
from whiteboard.storage import opening
from whiteboard.storage.sql.location import locate
from whiteboard.storage.sqlite import schema


@click.group()
def db() -> None:
    """Look at and change the store's schema."""


@db.command(epilog="For example: whiteboard db current")
@store_option
@json_option
def current(store: str, *, as_json: bool) -> None:
    """Show the store's schema revision beside this version's."""
    echo(
        {
            "store": _shown(store),
            "revision": opening.revision(store),
            "head": schema.HEAD,
        },
        as_json=as_json,
    )


@db.command(epilog="For example: whiteboard db upgrade --store old.db")
@store_option
@json_option
def upgrade(store: str, *, as_json: bool) -> None:
    """Bring the store to this version's schema; its file is copied beside itself first."""
    _say(store, opening.upgrade(store), as_json=as_json)


@db.command(epilog="For example: whiteboard db downgrade 0003")
@click.argument("revision")
@store_option
@json_option
def downgrade(revision: str, store: str, *, as_json: bool) -> None:
    """Bring the store to an older REVISION, for an older version; refused where something would be lost."""
    opening.check_file(locate(store), "db downgrade")
    _say(store, schema.downgrade(store, revision), as_json=as_json)


@db.command(epilog="For example: whiteboard db check")
@store_option
@json_option
def check(store: str, *, as_json: bool) -> int:
    """Compare the store's tables with those that its revision has. Status 1 where they differ."""
    opening.check_file(locate(store), "db check")
    found = schema.differences(store)
    echo({"store": store, "revision": schema.HEAD, "differences": found, "same": not found}, as_json=as_json)
    return int(bool(found))


def _say(store: str, changed: schema.Changed, *, as_json: bool) -> None:
    copy = None if changed.copy is None else str(changed.copy)
    echo({"store": _shown(store), "from": changed.before, "to": changed.after, "copy": copy}, as_json=as_json)


def _shown(store: str) -> str:
    """The store as it was named, without a password."""
    return str(locate(store)) if "://" in store else store
