"""Rewrite the package pages of a store with another codec, level or page size.

The store may be in use. What it answers stays the same to the bit; pages that have the form already are left alone, so
a second call changes nothing, and one after a kill goes on. Pages of systems stay as they are: their commits' seals
cover every byte.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from scripts.migrating.terminal import say
from whiteboard.cli.progress import bar
from whiteboard.errors import ParamError, WhiteboardError
from whiteboard.storage.codec import Encoding
from whiteboard.storage.forms import Form
from whiteboard.storage.pages import PAGE_BYTES
from whiteboard.storage.recompress import forecast, recompress


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="recompress", description=__doc__)
    parser.add_argument("store", metavar="STORE")
    parser.add_argument("--codec", default="zstd", choices=("zstd", "lz4", "blosclz", "raw"), help="default: zstd")
    parser.add_argument("--level", type=int, metavar="N", help="1 (fast) to 9 (small); default: 1")
    parser.add_argument(
        "--page-bytes",
        type=int,
        default=PAGE_BYTES,
        metavar="N",
        help="join small pages, and cut large ones, to about N bytes of arrays (default: %(default)s)",
    )
    parser.add_argument(
        "--op", dest="ops", action="append", metavar="NAME", help="only packages of this op; repeatable"
    )
    parser.add_argument("--dry-run", action="store_true", help="write nothing; say how many rows and bytes it would be")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    level = options.level if options.level is not None else int(options.codec != "raw")
    try:
        form = Form(Encoding(options.codec, level), options.page_bytes)
    except ParamError as error:
        parser.error(str(error))
    try:
        if options.dry_run:
            done = forecast(options.store, form, ops=options.ops)
        else:
            with bar("recompress") as progress:
                done = recompress(options.store, form, ops=options.ops, progress=progress)
    except WhiteboardError as error:
        print(f"recompress: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    say({"store": options.store, "encoding": str(form.encoding), **asdict(done)}, as_json=options.json)
    return int(bool(done.damaged))


if __name__ == "__main__":
    sys.exit(main())
