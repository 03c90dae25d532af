"""``whiteboard gc``, ``verify`` and ``audit``: keep a store small, whole and right."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import click

from whiteboard import board as boards
from whiteboard.cli.ops import import_modules, module_option
from whiteboard.cli.options import MOST, echo, json_option, store_option
from whiteboard.cli.terminal import say
from whiteboard.inspection.audit import AuditReport
from whiteboard.records.reports import VerifyReport

_BYTES: Final = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SECONDS: Final = {"": 86400.0, "S": 1.0, "M": 60.0, "H": 3600.0, "D": 86400.0, "W": 604800.0}


class _Amount(click.ParamType):  # type: ignore[type-arg]
    """A number with a unit."""

    def __init__(self, name: str, units: dict[str, Any], example: str) -> None:
        self.name, self.units, self.example = name, units, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Z]?)(?:IB)?", str(value).strip().upper())
        if match is None or match[2] not in self.units:
            self.fail(f"{value!r} is not a {self.name}: expected {self.example}", param, ctx)
        unit = self.units[match[2]]
        amount = float(match[1]) * unit
        if not amount < MOST:
            self.fail(f"{value!r} is too large", param, ctx)
        return type(unit)(amount)


_SIZE = _Amount("size", _BYTES, "bytes, or a number with K, M, G or T, such as 500M")
AGE = _Amount("time", _SECONDS, "days, or a number with s, m, h, d or w, such as 12h")

_sample = click.option(
    "--sample", type=click.FloatRange(0, 1), default=1.0, show_default=True, metavar="P", help="Look at this part only."
)
_seed = click.option(
    "--seed", type=click.IntRange(-MOST, MOST), metavar="K", help="Of the sample; another one each time by default."
)


@click.command()
@click.option("--max-bytes", type=_SIZE, metavar="N", help="Evict until the file holds no more: 2000000, 500M, 2G.")
@click.option("--older-than", type=AGE, metavar="D", help="Evict only what was not used for so long: 30d, 12h, 90m.")
@click.option("--dry-run", is_flag=True, help="Evict nothing, and say what would go.")
@store_option
@json_option
def gc(max_bytes: int | None, older_than: float | None, store: str, *, dry_run: bool, as_json: bool) -> None:
    """Evict packages, those used longest ago first, and give their space back.

    Node versions are never evicted. Others may go on writing meanwhile.
    """
    with existing_store(store, readonly=dry_run) as board:
        report = board.gc(max_bytes=max_bytes, older_than=older_than, dry_run=dry_run)
    fields = asdict(report)
    evicted, unreferenced = fields.pop("evicted"), fields.pop("unreferenced")
    if as_json:
        echo({"store": store, "evicted": evicted, "unreferenced": unreferenced, **fields}, as_json=True)
        return
    would = "would go" if dry_run else "evicted"
    echo({would: evicted, f"{would}, as nothing led to them": unreferenced, **fields}, as_json=False)


@click.command()
@_sample
@_seed
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


@click.command()
@_sample
@_seed
@module_option
@store_option
@json_option
def audit(sample: float, seed: int | None, module: tuple[str, ...], store: str, *, as_json: bool) -> int:
    """Compute packages again from the node versions that they came from; status 1 where one differs.

    Distances are in units in the last place. Packages of exact ops must agree in every bit.
    """
    import_modules(module)
    seed = secrets.randbits(31) if seed is None else seed
    with existing_store(store, readonly=True) as board:
        report = board.audit(sample=sample, seed=seed)
    if as_json:
        fields = {
            "ok": report.ok,
            "sample": sample,
            "seed": seed,
            "checked": report.checked,
            "ops": {name: asdict(row) for name, row in sorted(report.ops.items())},
            "differences": [asdict(each) for each in report.differences],
            "unchecked": dict(report.unchecked),
        }
        echo({"store": store, **fields}, as_json=True)
    else:
        for line in _audited(report):
            say(line)
    return int(not report.ok)


def _audited(report: AuditReport) -> Iterator[str]:
    for name, row in sorted(report.ops.items()):
        far = f", the farthest by {row.max_ulp:,} ulp" if row.max_ulp else ""
        yield f"{name}: computed {row.checked:,} of {row.sampled:,} again, {row.differing:,} differ{far}"
    for each in report.differences:
        apart = ", ".join(f"{name} by {ulp:,} ulp" for name, ulp in each.ulp.items())
        nodes = ", ".join(f"{i} at version {v}" for i, v in zip(each.src_ids, each.versions, strict=True))
        yield f"op {each.op}, package {each.key} on page {each.page_id}, of nodes {nodes}: {apart}"
    for why, count in sorted(report.unchecked.items()):
        if count:
            yield f"not computed again: {count:,}: {why}"


def existing_store(store: str, *, readonly: bool) -> boards.Board:
    """Open a store that is there; looking after one is no way to make one."""
    if not readonly:
        boards.open(store, readonly=True).close()
    return boards.open(store, readonly=readonly)
