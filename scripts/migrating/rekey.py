"""Give cached packages the keys of an op's new code, where that is declared harmless, or of the present key scheme.

Only a package whose present key comes out of what its page says gets another; the others keep theirs and are counted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from whiteboard import ops, rekey
from whiteboard.cli.move import described
from whiteboard.cli.options import echo
from whiteboard.cli.progress import bar
from whiteboard.errors import UnknownOpError, WhiteboardError
from whiteboard.storage.renaming import Report, headers, rename

_SHOWN_CONFLICTS = 10


def fingerprint(text: str) -> bytes:
    """Read 32 hex digits."""
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 16:
        msg = f"expected a fingerprint of 32 hex digits, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return digest


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="rekey", description=__doc__)
    store = os.environ.get("WHITEBOARD_STORE", "whiteboard.db")
    parser.add_argument("--store", default=store, metavar="PATH|URL", help="$WHITEBOARD_STORE where it is not given")
    parser.add_argument("--op", metavar="NAME", help="the op whose code has changed")
    parser.add_argument("--from", dest="old", type=fingerprint, metavar="FINGERPRINT", help="of the code that computed")
    parser.add_argument(
        "--to", dest="new", type=fingerprint, metavar="FINGERPRINT", help="`whiteboard ops NAME` says it"
    )
    parser.add_argument("--from-version", type=int, metavar="N", help="where packages of several have --from")
    parser.add_argument("--to-version", type=int, metavar="N", help="the op's new version, where it is another")
    parser.add_argument("--list", action="store_true", help="list the fingerprints that the store has of the op")
    parser.add_argument("--scheme", action="store_true", help="bring keys of an older scheme to the present one")
    parser.add_argument("--dry-run", action="store_true", help="write nothing; say how many rows and bytes it would be")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    code = (options.old, options.new, options.from_version, options.to_version)
    if options.scheme:
        given = options.op is not None or options.list or any(each is not None for each in code)
        wrong = "--scheme takes no op, fingerprint or version" if given else ""
    elif options.op is None:
        wrong = "say --op NAME with --from and --to, or with --list; or --scheme"
    elif options.list:
        wrong = "--list takes no fingerprint or version" if any(each is not None for each in code) else ""
    else:
        wrong = "--op needs --from and --to, or --list" if None in (options.old, options.new) else ""
    if wrong:
        parser.error(wrong)
    return options


def name_of(op: str) -> str:
    """The name that an op has in a store, by any of its names; one that is not known here may be there."""
    try:
        return ops.get(op).name
    except UnknownOpError:
        return op


def listed(op: str, found: Sequence[rekey.Held], *, as_json: bool) -> None:
    """Print what the store has of an op."""
    rows = [
        {
            "version": None if row.code is None else row.code.version,
            "fingerprint": None if row.code is None else row.code.fingerprint.hex(),
            "packages": row.packages,
            "pages": row.pages,
            "was": sorted(row.was),
        }
        for row in found
    ]
    if as_json:
        echo({"op": op, "held": rows}, as_json=True)
        return
    print(f"{'version':>7}  {'fingerprint':32}  {'packages':>12}  {'pages':>9}")
    for row in rows:
        version, digest = row["version"] or "-", row["fingerprint"] or "-"
        print(f"{version!s:>7}  {digest!s:32}  {row['packages']:>12,}  {row['pages']:>9,}")


def reported(report: Report, options: argparse.Namespace) -> None:
    """Print what was done, or would be."""
    fields: dict[str, Any] = {
        "store": options.store,
        "dry_run": options.dry_run,
        "pages": report.pages,
        "packages": report.packages,
        "rekeyed": report.renamed,
        "present": report.present,
        "conflicts": report.conflicts,
        "collisions": report.collisions,
        "kept": dict(report.kept),
        "damaged_pages": report.damaged_pages,
        "rows": report.rows,
        "bytes": report.nbytes,
    }
    if options.json:
        echo({**fields, "described": [asdict(each) for each in report.described]}, as_json=True)
        return
    echo({name: value for name, value in fields.items() if value != {}}, as_json=False)
    for each in report.described[:_SHOWN_CONFLICTS]:
        print(f"conflict: {described(each)}; both stay where they are")


def main() -> int:
    """Run from the command line."""
    options = arguments()
    try:
        change = rekey.Change()
        if options.op is not None:
            op = name_of(options.op)
            found = rekey.held(headers(options.store, op))
            if options.list:
                listed(op, found, as_json=options.json)
                return 0
            versions = options.from_version, options.to_version
            change = rekey.change(op, found, options.old, options.new, *versions)
        with bar("rekey") as progress:
            report = rename(options.store, change.concerns, change.rename, dry_run=options.dry_run, progress=progress)
    except WhiteboardError as error:
        print(f"rekey: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    reported(report, options)
    counts = {"conflicts": report.conflicts, "collisions": report.collisions, "damaged pages": report.damaged_pages}
    if any(counts.values()):
        why = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        print(f"rekey: not everything has its new key: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
