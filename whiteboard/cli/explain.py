"""``whiteboard explain``: why a job is a hit or a miss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from whiteboard import board as boards
from whiteboard.cli.options import MOST, echo, existing, import_modules, json_option, module_option, store_option
from whiteboard.cli.terminal import say
from whiteboard.inspection.explain import Explanation
from whiteboard.systems.jobs import Job


@click.command(epilog="For example: whiteboard explain --system europe --job distance 0 1 --attr p")
@click.option("--system", "name", metavar="NAME", help="The system whose nodes SRC names.")
@click.option("--job", "op", metavar="OP", help="The op of the job; SRC… are its sources.")
@click.argument("sources", nargs=-1, type=click.IntRange(-MOST, MOST), metavar="[SRC]...")
@click.option("--attr", metavar="NAME", default="theta", show_default=True, help="The sources' attribute.")
@click.option("--param", "params", multiple=True, metavar="NAME=JSON", help="A parameter of the op, such as axis=0.")
@click.option("--key", metavar="HEX", help="Instead of a job: the package of this key.")
@module_option
@store_option
@json_option
def explain(
    name: str | None,
    op: str | None,
    sources: Sequence[int],
    attr: str,
    params: Sequence[str],
    key: str | None,
    module: Sequence[str],
    store: str,
    *,
    as_json: bool,
) -> None:
    """Say why a job over a system's nodes is a hit or a miss, or which package has a key.

    Of a miss: the nearest package of the same op and sources, and what differs, the first thing first.
    """
    if (key is None) == (op is None) or (op is not None and (name is None or not sources)):
        msg = "give --system NAME --job OP SRC..., or --key HEX"
        raise click.UsageError(msg)
    import_modules(module)
    with boards.open(store, readonly=True) as board:
        if key is not None:
            found = board.explain_key(_bytes(key))
        else:
            found = board.explain(
                Job(op or "", tuple(sources), attr=attr, params=_params(params)), existing(board, name or "", store)
            )
    _show(found, as_json=as_json)


def _params(texts: Sequence[str]) -> dict[str, Any]:
    params = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            params[name] = json.loads(value)
        except ValueError as error:
            msg = f"--param {text!r}: expected NAME=JSON, such as axis=0"
            raise click.UsageError(msg) from error
    return params


def _bytes(key: str) -> bytes:
    try:
        raw = bytes.fromhex(key)
    except ValueError:
        raw = b""
    if len(raw) != 16:
        msg = f"--key {key!r}: expected 32 hexadecimal digits"
        raise click.UsageError(msg)
    return raw


def _show(found: Explanation, *, as_json: bool) -> None:
    if as_json:
        echo(asdict(found), as_json=True)
        return
    say(found.reason)
    say(f"key  {found.key}")
    for difference in found.differences[1:]:
        say(f"also {difference.text}")
