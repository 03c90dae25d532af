"""``whiteboard verify``: whether a store is whole."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import asdict

import click

from whiteboard.cli.options import (
    echo,
    existing_store,
    json_option,
    sample_option,
    seed_option,
    store_option,
)
from whiteboard.cli.terminal import say
from whiteboard.records.reports import VerifyReport


@click.command(epilog="For example: whiteboard verify --sample 0.1")
@sample_option
@seed_option
@click.option(
    "--repair",
    is_flag=True,
    help="Drop damaged packages, which will be computed again, and rows that nobody can read; no commits.",
)
@store_option
@json_option
def verify(sample: float, seed: int | None, store: str, *, repair: bool, as_json: bool) -> int:
    """Read every page and every commit, and say what is damaged; status 1 where anything is.

    Node versions are never changed: of a damaged system the last commit that is whole is named. A repair names a system
    whose name is none, so that `rm` can remove it.
    """
    seed = secrets.randbits(31) if seed is None else seed
    with existing_store(store, readonly=not repair) as board:
        report = board.verify(sample=sample, repair=repair, seed=seed)
    if as_json:
        fields = asdict(report)
        fields["systems"] = [
            {**row, "damaged": [{"commit": number, "why": why} for number, why in row["damaged"]]}
            for row in fields["systems"]
        ]
        echo({"store": store, "ok": report.ok, "sample": sample, "seed": seed, **fields}, as_json=True)
    else:
        for line in _verified(report):
            say(line)
    return int(not report.ok)


def _verified(report: VerifyReport) -> Iterator[str]:
    noun = "system" if len(report.systems) == 1 else "systems"
    yield f"read {report.pages:,} pages of {report.packages:,} packages, and {len(report.systems):,} {noun}"
    for page in report.damaged:
        yield f"page {page.page_id}, op {page.op}: {page.packages:,} packages are lost: {page.why}"
    if report.dangling:
        yield f"index: {report.dangling:,} rows of pages that are not there"
    if report.misplaced:
        yield f"index: {report.misplaced:,} rows that lead to other packages"
    for system in report.systems:
        for number, why in system.damaged:
            yield f"system {system.name}, commit {number}: {why}"
        if system.damaged:
            whole = "no commit is" if system.last_whole is None else f"commit {system.last_whole} is the last that is"
            yield f"system {system.name}: {whole} whole"
    yield from report.unreadable
    for line in report.structure:
        yield f"SQLite: {line}"
    if report.ok:
        yield "nothing is damaged"
    elif report.repaired:
        yield "what was damaged of the packages is dropped, and will be computed again; what nobody can read is gone"
