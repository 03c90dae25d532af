"""Bring what an older cache holds into a store.

npz: a folder of checkpoints, epoch_000123.npz, becomes the system --name, whose commits are the epochs in order. Each
array of a file is one attribute of one node, named 7.theta, 7/theta, theta.7 or node_7_theta (and p likewise).

diskcache, joblib: the results (y, grads) in a folder of diskcache.Cache or FanoutCache, or of one function of
joblib.Memory, become packages of the op --op, and a later call with the same sources finds them. --sources names a
function that is given what an entry was asked with, diskcache's key or joblib's {argument: its repr}, and returns the
list of sources, or (sources, params), or None to leave it out; grads[i] is the gradient of sum(y) by source i. Of an
array of more than 1,000 elements joblib's repr keeps only the ends: what was asked with such a one cannot be told from
it. What the store has is never replaced.

These two are pickles, and reading a pickle runs whatever its writer put into it: --trust-pickle says that you, or
somebody you trust, wrote the folder. They are read in a process of their own, which can die of an entry without harm to
the store, and from which nothing comes but raw arrays.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.migrating.legacy import epochs
from scripts.migrating.legacy.entries import Reader
from scripts.migrating.legacy.folders import KINDS, entries, kind_of
from scripts.migrating.legacy.function import load
from scripts.migrating.legacy.results import Check, take
from scripts.migrating.terminal import say
from whiteboard.cli.progress import bar
from whiteboard.errors import ParamError, WhiteboardError

_NEEDED = {"npz": ("name",), "diskcache": ("op", "sources"), "joblib": ("op", "sources")}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="import_legacy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # nobody says --trust by accident
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--store", required=True)
    parser.add_argument("--from", dest="kind", choices=KINDS, help="default: by what lies in the folder")
    parser.add_argument("--name", help="npz: the system's name")
    parser.add_argument("--op", metavar="NAME", help="the results' op; --sources' module may register it")
    parser.add_argument("--sources", metavar="MODULE:FUNCTION", help="from what an entry was asked with to its sources")
    parser.add_argument("--trust-pickle", action="store_true", help="read pickles, which may run anything: see above")
    parser.add_argument(
        "--verify",
        choices=("sample", "all", "none"),
        default="sample",
        help="compute some results again first, and import nothing unless they are what the op computes (sample, the "
        "default); compute each again, and leave out those that are not (all); believe them (none)",
    )
    parser.add_argument("--sample", type=float, default=0.01, metavar="PART", help="of 1; at least 10 (default: 0.01)")
    parser.add_argument(
        "--rtol",
        type=float,
        help="also take what differs by so much of an array's largest element; default: nothing for an exact op, so "
        "that a hit gives the bits that a miss would, and half of the digits for one that is not exact",
    )
    parser.add_argument("--patience", type=float, default=60.0, metavar="SECONDS", help="for one entry (default: 60)")
    parser.add_argument("--dry-run", action="store_true", help="write nothing; say how many rows and bytes it would be")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _bring(parser: argparse.ArgumentParser, options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Import; return what was done, and whether all of it."""
    kind = options.kind or kind_of(options.folder)
    if missing := [f"--{name}" for name in _NEEDED[kind] if getattr(options, name) is None]:
        parser.error(f"{options.folder} is a folder of {kind}, which needs {' and '.join(missing)}")
    if kind == "npz":
        paths = epochs.epochs(options.folder)
        said = epochs.forecast(paths) if options.dry_run else epochs.bring(paths, options.store, options.name)
        return said, True
    if not options.trust_pickle:
        parser.error(
            f"{options.folder} is a folder of {kind}, so of pickles, which run code: see --help, --trust-pickle"
        )
    found = entries(options.folder, kind)
    try:
        load(options.sources)  # it may register the op
    except ImportError as error:
        raise ParamError(str(error)) from error
    reader = Reader(options.folder, kind, options.sources, options.patience)
    check = Check(options.verify, options.sample, options.rtol)
    with bar("import") as progress:
        taken = take(reader, found, options.store, options.op, check, dry_run=options.dry_run, progress=progress)
    return {"from": kind, "op": options.op, **asdict(taken)}, not (taken.failed or taken.different)


def main() -> int:
    """Run from the command line."""
    parser = _parser()
    options = parser.parse_args()
    if not 0 <= options.sample <= 1:
        parser.error(f"--sample: expected a part from 0 to 1, got {options.sample}")
    if options.patience <= 0:
        parser.error(f"--patience: expected a positive number, got {options.patience}")
    try:
        said, whole = _bring(parser, options)
    except WhiteboardError as error:
        print(f"import_legacy: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    examples = [] if options.json else said.pop("examples", [])
    say(said, as_json=options.json)
    for example in examples:
        print(f"not taken: {example}")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
