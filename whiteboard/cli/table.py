"""``whiteboard table``: the packages of an op as rows, to look at, as a CSV file, or as JSON."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

import click

from whiteboard import board as boards
from whiteboard.cli.cells import Place, head, is_number, plain, shown, spread
from whiteboard.cli.options import MOST, echo, json_option, store_option
from whiteboard.cli.terminal import columns as width_of
from whiteboard.cli.terminal import json_text, padded, say, visible
from whiteboard.errors import ArchiveError, ParamError, SinkError
from whiteboard.inspection.table import ALWAYS, Omission, place, told
from whiteboard.storage.sqlite import part_files

_LINES: Final = 100
"""So many rows are shown where nobody says how many."""

Row = Mapping[str, Any]


@click.command(epilog="For example: whiteboard table drag --where 'mach > 0.7' --csv drag.csv")
@click.argument("op", metavar="OP")
@click.option("--where", metavar="CONDITION", help="Only rows of which it holds: 'mach > 0.7 and y < 1'.")
@click.option("--columns", metavar="A,B", help="Only these columns, in this order.")
@click.option("--grads", is_flag=True, help="Also gradients, and packages of the VJP of a cotangent.")
@click.option("--limit", type=click.IntRange(1, MOST), metavar="N", help="At most so many rows; 100 where it is shown.")
@click.option("--csv", "file", type=click.Path(path_type=Path), metavar="FILE", help="Write them into a new file.")
@store_option
@json_option
def table(
    op: str,
    where: str | None,
    columns: str | None,
    limit: int | None,
    file: Path | None,
    store: str,
    *,
    grads: bool,
    as_json: bool,
) -> int:
    """Show what the store has of OP: parameters, sources where they are kept, y, cost, version and key.

    Short arrays are shown, long ones by their shape. Status 1 where something is left out, as it is damaged or is not
    what its key says.
    """
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    omitted: list[Omission] = []
    look = limit if limit is not None or file is not None or as_json else _LINES + 1
    with boards.open(store, readonly=True) as board:
        try:
            rows = board.each_row(op, where=where, columns=names, grads=grads, limit=look, omitted=omitted)
        except ParamError as error:
            raise click.UsageError(str(error)) from error
        if file is not None:
            done = {"csv": str(file), "rows": _write(file, rows, names)}
            lacks = {"omitted": [asdict(each) for each in omitted]} if as_json else {}
            echo({"store": store, "op": op, **done, **lacks}, as_json=as_json)
        elif as_json:
            _print(rows, {"store": store, "op": op}, omitted)
        else:
            _show(list(rows), names, _LINES if limit is None else None)
    if omitted and not as_json:
        say(f"whiteboard: the table of {op!r} is not whole: {told(omitted)}", err=True)
    return int(bool(omitted))


def _show(rows: Sequence[Row], names: Sequence[str] | None, most: int | None) -> None:
    """Print rows under one another."""
    heads = names or sorted({*ALWAYS, *(name for row in rows for name in row)}, key=place)
    lines = rows[:most]
    cells = [[visible(shown(name, row.get(name))) for row in lines] for name in heads]
    right = [all(is_number(row.get(name)) for row in lines) for name in heads]
    widths = [max(map(width_of, (visible(name), *column))) for name, column in zip(heads, cells, strict=True)]
    for line in zip(*([visible(name), *column] for name, column in zip(heads, cells, strict=True)), strict=True):
        parts = zip(line, widths, right, strict=True)
        say("  ".join(_aligned(cell, width, to_right=number) for cell, width, number in parts).rstrip())
    if len(rows) > len(lines):
        say(f"the first {most} rows; --limit N, --csv FILE and --json show more")


def _aligned(cell: str, width: int, *, to_right: bool) -> str:
    return " " * (width - width_of(cell)) + cell if to_right else padded(cell, width)


def _print(rows: Iterable[Row], fields: Mapping[str, Any], omitted: Sequence[Omission]) -> None:
    """Print one JSON object, once all rows were read: none is in memory but the one that is printed."""
    with tempfile.TemporaryFile("w+", encoding="ascii") as spool:
        for row in rows:
            spool.write(json_text({name: plain(value) for name, value in row.items()}) + "\n")
        spool.seek(0)
        say(f'{json_text(fields)[:-1]}, "rows": [', end="")
        for number, line in enumerate(spool):
            say(", " * bool(number) + line.rstrip("\n"), end="")
    say(f'], "omitted": {json_text([asdict(each) for each in omitted])}}}')


def _write(path: Path, rows: Iterable[Row], names: Sequence[str] | None) -> int:
    """Write rows into a file that is there when it is whole; returns how many.

    Raises
    ------
    SinkError
    """
    try:
        if path.exists() or path.is_symlink():
            msg = f"cannot write the table {path}: it exists; remove it, or name another path"
            raise SinkError(msg)
        with tempfile.TemporaryFile("w+", encoding="ascii", dir=path.parent) as spool:
            met, count = _spool(rows, spool)
            spool.seek(0)
            part, file = part_files.open_part(path, "csv")
            try:
                with file:
                    _copy(map(json.loads, spool), file, met, names)
                part_files.name(part, path)
            except BaseException:
                with suppress(OSError):
                    part.unlink()
                raise
    except ArchiveError:
        msg = f"cannot write the table {path}: it exists by now"
        raise SinkError(msg) from None
    except OSError as error:
        if error.errno is None:
            raise
        msg = f"cannot write the table {path}: {error.strerror}"
        raise SinkError(msg) from error
    return count


def _spool(rows: Iterable[Row], spool: TextIO) -> tuple[list[Place], int]:
    """Write the cells of all rows, a line each, as their columns are met; returns these, and how many rows."""
    met: dict[Place, int] = {}
    count = 0
    for row in rows:
        cells = dict(spread(row))
        for column in cells:
            met.setdefault(column, len(met))
        spool.write(json.dumps([cells.get(column, "") for column in met]) + "\n")
        count += 1
    return list(met), count


def _copy(lines: Iterable[list[str]], file: BinaryIO, met: Sequence[Place], names: Sequence[str] | None) -> None:
    """Write the head and all rows, each with a cell a column, and see the file to its disk."""
    columns = met or [(name, ()) for name in names or ALWAYS]
    stands = place if names is None else names.index
    columns = sorted(columns, key=lambda column: (stands(column[0]), column[1]))
    number = {column: at for at, column in enumerate(met)}
    file.truncate(0)
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
    writer = csv.writer(text)
    writer.writerow(map(head, columns))
    for line in lines:
        writer.writerow([line[number[column]] if number[column] < len(line) else "" for column in columns])
    text.flush()
    os.fsync(file.fileno())
    text.detach()
