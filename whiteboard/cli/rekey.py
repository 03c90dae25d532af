"""``whiteboard rekey``: packages under the keys of an op's new code, or of the present key scheme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from whiteboard import ops
from whiteboard.cli.conflicts import described
from whiteboard.cli.options import MOST, echo, json_option, store_option
from whiteboard.cli.progress import bar
from whiteboard.cli.terminal import say
from whiteboard.errors import UnknownOpError
from whiteboard.inspection import rekey as rekeying
from whiteboard.storage.upkeep.rename_keys import Report, headers, rename

_SHOWN_CONFLICTS = 10


class _Fingerprint(click.ParamType):  # type: ignore[type-arg]
    """32 hexadecimal digits."""

    name = "fingerprint"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """Read the digits."""
        if isinstance(value, bytes):
            return value
        try:
            digest = bytes.fromhex(value)
        except ValueError:
            digest = b""
        if len(digest) != 16:
            self.fail(f"expected a fingerprint of 32 hex digits, got {value!r}", param, ctx)
        return digest


_FINGERPRINT = _Fingerprint()


@click.command(epilog="For example: whiteboard rekey --op drag --list")
@click.option("--op", metavar="NAME", help="The op whose code has changed.")
@click.option("--from", "old", type=_FINGERPRINT, metavar="FINGERPRINT", help="Of the code that computed.")
@click.option("--to", "new", type=_FINGERPRINT, metavar="FINGERPRINT", help="`whiteboard ops NAME` says it.")
@click.option(
    "--from-version", type=click.IntRange(1, MOST), metavar="N", help="Where packages of several have --from."
)
@click.option("--to-version", type=click.IntRange(1, MOST), metavar="N", help="The new version, where it is another.")
@click.option("--list", "only_list", is_flag=True, help="List the fingerprints that the store has of the op.")
@click.option("--scheme", is_flag=True, help="Bring keys of an older scheme to the present one.")
@click.option("--dry-run", is_flag=True, help="Write nothing; say how many rows and bytes it would be.")
@store_option
@json_option
def rekey(
    op: str | None,
    old: bytes | None,
    new: bytes | None,
    from_version: int | None,
    to_version: int | None,
    store: str,
    *,
    only_list: bool,
    scheme: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Give packages the keys of an op's new code, where you declare the edit harmless, or of the present key scheme.

    Only a package whose present key comes out of what its page says gets another; the others keep theirs and are
    counted. Status 1 where something stays behind. Killed, the same call goes on.
    """
    _checked(op, (old, new, from_version, to_version), only_list=only_list, scheme=scheme)
    change = rekeying.Change()
    if op is not None:
        op = _name_of(op)
        found = rekeying.held(headers(store, op))
        if only_list:
            _list(op, found, as_json=as_json)
            return 0
        assert old is not None
        assert new is not None
        change = rekeying.change(op, found, old, new, from_version, to_version)
    with bar("rekey") as progress:
        report = rename(store, change.concerns, change.rename, dry_run=dry_run, progress=progress)
    _report(store, report, dry_run=dry_run, as_json=as_json)
    counts = {"conflicts": report.conflicts, "collisions": report.collisions, "damaged pages": report.damaged_pages}
    if any(counts.values()):
        why = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        say(f"whiteboard: not everything has its new key: {why}", err=True)
        return 1
    return 0


def _checked(op: str | None, code: Sequence[object], *, only_list: bool, scheme: bool) -> None:
    given = any(each is not None for each in code)
    wrong = ""
    if scheme:
        if op is not None or only_list or given:
            wrong = "--scheme takes no op, fingerprint or version"
    elif op is None:
        wrong = "say --op NAME with --from and --to, or with --list; or --scheme"
    elif only_list:
        if given:
            wrong = "--list takes no fingerprint or version"
    elif None in code[:2]:
        wrong = "--op needs --from and --to, or --list"
    if wrong:
        raise click.UsageError(wrong)


def _name_of(op: str) -> str:
    """The name that an op has in a store, by any of its names; one that is not known here may be there."""
    try:
        return ops.get(op).name
    except UnknownOpError:
        return op


def _list(op: str, found: Sequence[rekeying.Held], *, as_json: bool) -> None:
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
    say(f"{'version':>7}  {'fingerprint':32}  {'packages':>12}  {'pages':>9}")
    for row in rows:
        version, digest = row["version"] or "-", row["fingerprint"] or "-"
        say(f"{version!s:>7}  {digest!s:32}  {row['packages']:>12,}  {row['pages']:>9,}")


def _report(store: str, report: Report, *, dry_run: bool, as_json: bool) -> None:
    fields: dict[str, Any] = {
        "store": store,
        "dry_run": dry_run,
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
    if as_json:
        echo({**fields, "described": [asdict(each) for each in report.described]}, as_json=True)
        return
    echo({name: value for name, value in fields.items() if value != {}}, as_json=False)
    for each in report.described[:_SHOWN_CONFLICTS]:
        say(f"conflict: {described(each)}; both stay where they are")
