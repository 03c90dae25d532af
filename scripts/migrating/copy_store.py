"""Copy a store from one SQLAlchemy URL, or path, to another: packages, systems, histories, through the gate.

The source may be in use. A target that exists is gone on with: what it has is compared and stays as it is.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from scripts.migrating.terminal import say
from whiteboard.cli.progress import bar
from whiteboard.errors import WhiteboardError
from whiteboard.storage.holdings import forecast
from whiteboard.storage.merge import merge


def copy(source: str, target: str) -> dict[str, Any]:
    """Copy, with a bar on a terminal; return what was done."""
    with bar("copy") as progress:
        (done,) = merge(target, [source], progress=progress)
    return {
        "packages_added": done.packages.added,
        "packages_present": done.packages.present,
        "conflicts": done.packages.conflicts,
        "commits_added": done.systems.commits,
        "renamed": done.systems.renamed,
        "damaged_pages": done.damaged,
        "damaged_commits": [f"{name}@{number}: {why}" for name, number, why in done.systems.damaged],
    }


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="copy_store", description=__doc__)
    parser.add_argument("source", metavar="FROM")
    parser.add_argument("target", metavar="TO")
    parser.add_argument("--dry-run", action="store_true", help="write nothing; say how many rows and bytes it would be")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    try:
        said = forecast(options.source) if options.dry_run else copy(options.source, options.target)
    except WhiteboardError as error:
        print(f"copy_store: {error}", file=sys.stderr)
        return 1
    say(said, as_json=options.json)
    whole = not any(said.get(name) for name in ("conflicts", "renamed", "damaged_pages", "damaged_commits"))
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
