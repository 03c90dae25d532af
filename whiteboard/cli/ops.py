"""``whiteboard ops``: which operations there are, what each promises, and whether it keeps its word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from whiteboard import ops as registry
from whiteboard.cli.options import echo, import_modules, json_option, module_option
from whiteboard.cli.terminal import columns, json_text, padded, say, visible
from whiteboard.errors import UnknownOpError, WhiteboardError

_COLUMNS = ("name", "arity", "kind", "exactness", "subgradients")


@click.command(epilog="For example: whiteboard ops mul --check")
@click.argument("name", required=False)
@click.option("--check", is_flag=True, help="Try its VJP, batching, shapes and dtypes; status 1 where one fails.")
@module_option
@json_option
def ops(name: str | None, module: Sequence[str], *, check: bool, as_json: bool) -> int:
    """List all operations, or show the one NAME."""
    import_modules(module)
    rows = registry.describe()
    if name is not None:
        try:
            real = registry.get(name).name
        except UnknownOpError as error:
            raise click.UsageError(str(error)) from error
        rows = [row for row in rows if row["name"] == real]
    if check:
        rows = [{**row, "check": _checked(row["name"])} for row in rows]
    _show(rows, one=name is not None, as_json=as_json)
    return int(any(row.get("check", "passed") != "passed" for row in rows))


def _checked(name: str) -> str:
    """Return "passed", or what is wrong."""
    try:
        registry.check(name)
    except WhiteboardError as error:
        return str(error)
    return "passed"


def _show(rows: Sequence[Mapping[str, Any]], *, one: bool, as_json: bool) -> None:
    shown = [{key: _readable(value) for key, value in row.items()} for row in rows]
    if as_json:
        say(json_text(shown[0] if one else {"ops": shown}, default=repr))
    elif one:
        echo({**shown[0], "arity": "any number"} if shown[0]["arity"] is None else shown[0], as_json=False)
    else:
        _table([[_cell(row, column) for column in _COLUMNS] for row in shown], [row.get("check") for row in shown])


def _readable(value: Any) -> Any:
    """Return parameters with "required" where one has no default."""
    if isinstance(value, Mapping):
        return {key: "required" if item is registry.REQUIRED else item for key, item in value.items()}
    return value


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    return "any" if value is None else visible(str(value))


def _table(rows: Sequence[Sequence[str]], checks: Sequence[str | None]) -> None:
    widths = [max(columns(row[i]) for row in (_COLUMNS, *rows)) for i in range(len(_COLUMNS))]
    say("  ".join(map(padded, _COLUMNS, widths)).rstrip())
    for row, check in zip(rows, checks, strict=True):
        say("  ".join(map(padded, row, widths)).rstrip())
        if check not in (None, "passed"):
            say(f"  failed: {check}")
    failed = sum(check not in (None, "passed") for check in checks)
    if any(checks):
        say(f"{len(rows) - failed} of {len(rows)} passed")
