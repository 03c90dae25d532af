"""``whiteboard export``, ``import`` and ``merge``: packages and systems from store to store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from whiteboard.cli.options import MOST, echo, json_option
from whiteboard.cli.progress import bar
from whiteboard.cli.terminal import say
from whiteboard.storage.transfer.compare import Conflict
from whiteboard.storage.transfer.export import export as export_store
from whiteboard.storage.transfer.import_archive import import_archive
from whiteboard.storage.transfer.merge import merge as merge_stores
from whiteboard.storage.transfer.merge_packages import Packages
from whiteboard.storage.transfer.merge_systems import Systems

_SHOWN_CONFLICTS = 10


@click.command()
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


@click.command("import")
@click.argument("store", metavar="STORE")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def import_(store: str, file: Path, *, as_json: bool) -> int:
    """Bring the archive FILE into STORE, which is created where there is none.

    Nothing that is there is replaced. Killed, it goes on when it is called again.
    """
    with bar("import") as progress:
        done = import_archive(store, file, progress=progress)
    _report({"store": store, "pages": done.pages}, done.packages, done.systems, as_json=as_json)
    return 0


@click.command()
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
        _fields({"from": one.source, "pages": one.pages, "damaged_pages": one.damaged}, one.packages, one.systems)
        for one in merged
    ]
    if as_json:
        echo({"into": into, "merged": rows}, as_json=True)
    else:
        for one, row in zip(merged, rows, strict=True):
            _print(row, one.packages)
    return int(any(one.damaged or one.systems.damaged for one in merged))


def _report(fields: dict[str, Any], packages: Packages, systems: Systems, *, as_json: bool) -> None:
    full = _fields(fields, packages, systems)
    if as_json:
        echo(full, as_json=True)
    else:
        _print(full, packages)


def _fields(fields: dict[str, Any], packages: Packages, systems: Systems) -> dict[str, Any]:
    return {
        **fields,
        "added": packages.added,
        "present": packages.present,
        "conflicts": packages.conflicts,
        "collisions": packages.collisions,
        "systems_created": systems.created,
        "systems_extended": systems.extended,
        "systems_unchanged": systems.unchanged,
        "renamed": systems.renamed,
        "commits": systems.commits,
        "damaged_commits": [f"{name}@{number}: {why}" for name, number, why in systems.damaged],
        "described": [asdict(conflict) for conflict in packages.described],
    }


def _print(fields: dict[str, Any], packages: Packages) -> None:
    shown = {key: value for key, value in fields.items() if key != "described" and value not in ([], {})}
    echo(shown, as_json=False)
    for conflict in packages.described[:_SHOWN_CONFLICTS]:
        say(f"conflict: {described(conflict)}; INTO's stays")
    if (more := packages.conflicts - _SHOWN_CONFLICTS) > 0:
        say(f"and {more:,} conflicts more; --json describes up to 1,000")


def described(conflict: Conflict) -> str:
    """One line about a key with different bytes."""
    sources = "arrays" if conflict.sources is None else f"nodes {list(conflict.sources)}"
    versions = "" if conflict.versions is None else f" at versions {list(conflict.versions)}"
    apart = "not comparable" if conflict.ulps is None else f"{conflict.ulps:,} ulps apart"
    return f"op {conflict.op!r} of {sources}{versions}, {conflict.array} {apart} (key {conflict.key})"
