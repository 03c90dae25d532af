"""``whiteboard audit``: whether what is kept is right."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import asdict

import click

from whiteboard.cli.options import (
    echo,
    existing_store,
    import_modules,
    json_option,
    module_option,
    sample_option,
    seed_option,
    store_option,
)
from whiteboard.cli.terminal import say
from whiteboard.inspection.audit import AuditReport


@click.command(epilog="For example: whiteboard audit --sample 0.01 --module mymodule")
@sample_option
@seed_option
@module_option
@store_option
@json_option
def audit(sample: float, seed: int | None, module: tuple[str, ...], store: str, *, as_json: bool) -> int:
    """Compute packages again from the sources in their page, or the nodes they came from; status 1 where one differs.

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
        kept = f", {row.kept:,} from sources in their page" if row.kept else ""
        yield f"{name}: computed {row.checked:,} of {row.sampled:,} again{kept}, {row.differing:,} differ{far}"
    for each in report.differences:
        apart = ", ".join(f"{name} by {ulp:,} ulp" for name, ulp in each.ulp.items())
        nodes = ", ".join(f"{i} at version {v}" for i, v in zip(each.src_ids, each.versions, strict=True))
        of = f", of nodes {nodes}" if nodes else ""
        yield f"op {each.op}, package {each.key} on page {each.page_id}{of}: {apart}"
    for why, count in sorted(report.unchecked.items()):
        if count:
            yield f"not computed again: {count:,}: {why}"
