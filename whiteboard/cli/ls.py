"""``whiteboard ls``: the systems in a store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from whiteboard import board as boards
from whiteboard.board import Board
from whiteboard.cli.options import json_option, store_option
from whiteboard.cli.show import described
from whiteboard.cli.terminal import json_text, say
from whiteboard.errors import CorruptPackageError, ParamError, UnknownSystemError


@click.command(epilog="For example: whiteboard ls --store runs.db")
@store_option
@json_option
def ls(store: str, *, as_json: bool) -> int:
    """List the systems in the store. Status 1 where one is damaged."""
    damaged = False
    with boards.open(store, readonly=True) as board:
        if as_json:
            say('{"systems": [', end="")
        for number, row in enumerate(_rows(board)):
            damaged |= "damaged" in row
            if as_json:
                say(", " * bool(number) + json_text(row), end="")
            elif "damaged" in row:
                say(f"{row['name']}  damaged: {row['damaged']}")
            else:
                say(f"{row['name']}  commit {row['commit']}  {row['nodes']} nodes  {row['digest']}")
        if as_json:
            say("]}")
    return int(damaged)


def _rows(board: Board) -> Iterator[dict[str, Any]]:
    for name in board.each_name():
        try:
            yield described(board.look(name))
        except UnknownSystemError:
            pass  # removed since
        except (CorruptPackageError, ParamError) as error:
            yield {"name": name, "damaged": str(error)}
