"""What came into a store, as ``whiteboard import`` and ``merge`` say it, and keys with other bytes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from whiteboard.cli.options import echo
from whiteboard.cli.terminal import say
from whiteboard.storage.transfer.compare import Conflict
from whiteboard.storage.transfer.merge_packages import Packages
from whiteboard.storage.transfer.merge_systems import Systems

_SHOWN_CONFLICTS = 10


def merged_fields(fields: dict[str, Any], packages: Packages, systems: Systems) -> dict[str, Any]:
    """`fields`, and what was added, found and refused."""
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


def echo_merged(fields: dict[str, Any], packages: Packages) -> None:
    """Print `merged_fields` as lines, with the first conflicts."""
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
