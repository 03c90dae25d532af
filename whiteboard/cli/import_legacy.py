"""``whiteboard import-legacy``: what an older cache holds, brought into a store."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from whiteboard import board as boards
from whiteboard.cli.options import echo, filled, json_option
from whiteboard.cli.progress import bar
from whiteboard.cli.terminal import say
from whiteboard.errors import ParamError
from whiteboard.integration.legacy import epochs
from whiteboard.integration.legacy.entries import Reader
from whiteboard.integration.legacy.old_caches import KINDS, entries, kind_of
from whiteboard.integration.legacy.results import Check, import_results
from whiteboard.ops.user_module import referenced
from whiteboard.storage.sql.location import locate


@click.command(
    "import-legacy", epilog="For example: whiteboard import-legacy epochs --from npz --name old --store whiteboard.db"
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--store", required=True, metavar="PATH|URL", help="Created where there is none.")
@click.option("--from", "kind", type=click.Choice(KINDS), help="Where it is not given: by what lies in the folder.")
@click.option("--name", help="npz: the system's name.")
@click.option("--op", metavar="NAME", help="The results' op; --sources' module may register it.")
@click.option("--sources", metavar="MODULE:FUNCTION", help="From what an entry was asked with to its sources.")
@click.option("--trust-pickle", is_flag=True, help="Read pickles, which may run anything: see above.")
@click.option(
    "--verify",
    type=click.Choice(["sample", "all", "none"]),
    default="sample",
    show_default=True,
    help="Compute some results again first, and import nothing unless they are what the op computes (sample); compute "
    "each again, and leave out those that are not (all); believe them (none).",
)
@click.option(
    "--sample", type=click.FloatRange(0, 1), default=0.01, show_default=True, metavar="PART", help="Of 1; at least 10."
)
@click.option(
    "--rtol",
    type=float,
    help="Also take what differs by so much of an array's largest element. Where it is not given: nothing for an exact "
    "op, so that a hit gives the bits that a miss would, and half of the digits for one that is not exact.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="For one entry.",
)
@click.option("--dry-run", is_flag=True, help="Write nothing; say how many rows and bytes it would be.")
@json_option
def import_legacy(folder: Path, kind: str | None, *, as_json: bool, **options: Any) -> int:
    """Bring what an older cache holds in FOLDER into a store. Status 1 where entries were left behind.

    npz: a folder of checkpoints, epoch_000123.npz, becomes the system --name, whose commits are the epochs in order.
    Each array of a file is one attribute of one node, named 7.theta, 7/theta, theta.7 or
    node_7_theta, p and others likewise.

    diskcache, joblib: the results (y, grads) in a folder of diskcache.Cache or FanoutCache, or of one function of
    joblib.Memory, become packages of the op --op, and a later call with the same sources finds them. --sources names a
    function that is given what an entry was asked with, diskcache's key or joblib's {argument: its repr}, and returns
    the list of sources, or (sources, params), or None to leave it out; grads[i] is the gradient of sum(y) by source i.
    Of an array of more than 1,000 elements joblib's repr keeps only the ends: what was asked with such a one cannot be
    told from it. What the store has is never replaced.

    These two are pickles, and reading a pickle runs whatever its writer put into it: --trust-pickle says that you, or
    somebody you trust, wrote the folder. They are read in a process of their own, which can die of an entry without
    harm to the store, and from which nothing comes but raw arrays.
    """
    kind = kind or kind_of(folder)
    needed = ("name",) if kind == "npz" else ("op", "sources")
    if missing := [f"--{name}" for name in needed if options[name] is None]:
        message = f"{folder} is a folder of {kind}, which needs {' and '.join(missing)}"
        raise click.UsageError(message)
    said, whole = (_epochs if kind == "npz" else _results)(folder, kind, options)
    if as_json:
        echo(said, as_json=True)
        return int(not whole)
    examples = said.pop("examples", [])
    echo(filled(said), as_json=False)
    for example in examples:
        say(f"not taken: {example}")
    return int(not whole)


def _epochs(folder: Path, _kind: str, options: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Import checkpoints; return what was done, and that it was all."""
    paths = epochs.epochs(folder)
    if options["dry_run"]:
        return epochs.forecast(paths), True
    with bar("import") as progress:
        return epochs.bring(paths, options["store"], options["name"], progress), True


def _results(folder: Path, kind: str, options: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Import results; return what was done, and whether it was all."""
    if not options["trust_pickle"]:
        message = f"{folder} is a folder of {kind}, so of pickles, which run code: see --help, --trust-pickle"
        raise click.UsageError(message)
    found = entries(folder, kind)
    try:
        referenced(options["sources"])  # it may register the op
    except ImportError as error:
        message = f"--sources {options['sources']}: {error}"
        raise ParamError(message) from error
    reader = Reader(folder, kind, options["sources"], options["patience"])
    check = Check(options["verify"], options["sample"], options["rtol"])
    opened = partial(_opened, options["store"], dry_run=options["dry_run"])
    with bar("import") as progress:
        taken = import_results(reader, found, opened, options["op"], check, progress=progress)
    return {"from": kind, "op": options["op"], **asdict(taken)}, not (taken.failed or taken.different)


def _opened(store: str, *, dry_run: bool) -> boards.Board:
    if not dry_run:
        return boards.open(store, memory_bytes=0)
    # Nothing goes beyond the memory tier of a store that is opened for reading, or is none yet.
    path = locate(store).path
    if path is not None and path.exists():
        return boards.open(store, readonly=True)
    return boards.open(":memory:", persist="never")
