"""``whiteboard show``, ``info`` and ``ls``: look at a store without writing to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from whiteboard import board as boards
from whiteboard.cli.options import echo, existing, json_option, store_option
from whiteboard.cli.terminal import listed
from whiteboard.errors import CorruptPackageError, UnknownSystemError
from whiteboard.experiments.definition import measured
from whiteboard.history import Commit
from whiteboard.storage import open_store
from whiteboard.storage.base import VersionStore
from whiteboard.system import System

_INFO = ("path", "schema", "sqlite", "systems", "packages", "pages", "bytes_disk", "ops", "evicted")


@click.command()
@click.argument("name")
@store_option
@json_option
def show(name: str, store: str, *, as_json: bool) -> None:
    """Show where the system NAME stands: commit, measure, nodes, digest."""
    with boards.open(store, readonly=True) as board:
        echo(_described(existing(board, name, store)), as_json=as_json)


def _described(system: System) -> dict[str, Any]:
    fields = {"name": system.name, "commit": None, "nodes": len(system.nodes), "digest": system.digest()}
    if (head := system.head) is not None:
        fields |= {"commit": head.id, **_measured(system.spec, head)}
    return {**fields, "spec": system.spec}


def _measured(spec: Mapping[str, Any] | None, head: Commit) -> dict[str, Any]:
    named = measured(spec, head)
    return dict([named]) if named else {"stress": head.stress, "residual_norm": head.residual_norm}


@click.command()
@store_option
@json_option
def info(store: str, *, as_json: bool) -> None:
    """Show what the store is and holds, by op, and what was evicted from it since it was made."""
    with boards.open(store, readonly=True) as board:
        said = board.info()
    # What a process counts, and how it opened the store, says nothing of a store that was opened to be looked at.
    shown = {name: said[name] for name in _INFO}
    if as_json:
        echo(shown, as_json=True)
        return
    by_name = {f"{kind} {name}": row for kind in ("ops", "evicted") for name, row in shown.pop(kind).items()}
    echo({**shown, **by_name}, as_json=False)


@click.command()
@store_option
@json_option
def ls(store: str, *, as_json: bool) -> int:
    """List the systems in the store, each as soon as it is read. Status 1 where one is damaged."""
    damaged = False
    with open_store(store, readonly=True) as stores:
        rows = (_row(stores.versions, name) for name in _names(stores.versions))
        with listed("systems", as_json=as_json) as show:
            for row in rows:
                damaged |= "damaged" in row
                show(row, _line(row))
    return int(damaged)


def _names(versions: VersionStore) -> Iterator[str]:
    """Yield the names in order, some at a time, so that nothing is kept from writing meanwhile."""
    names = versions.names()
    while names:
        yield from names
        names = versions.names(names[-1])


def _row(versions: VersionStore, name: str) -> dict[str, Any]:
    try:
        record = versions.system(name)
        kept = versions.state(name)
    except UnknownSystemError:  # removed meanwhile
        return {"name": name, "damaged": "it is gone"}
    except CorruptPackageError as error:
        return {"name": name, "damaged": str(error)}
    head = Commit.of(kept.commit)
    nodes = len(set().union(*(part.ids.tolist() for part in kept.columns)))
    spec = None if record is None else record.spec
    return {
        "name": name,
        "commit": head.id,
        "nodes": nodes,
        "digest": head.digest,
        **_measured(spec, head),
        "spec": spec,
    }


def _line(row: Mapping[str, Any]) -> str:
    if "damaged" in row:
        return f"{row['name']}  damaged: {row['damaged']}"
    return f"{row['name']}  commit {row['commit']}  {row['nodes']} nodes  {row['digest']}"
