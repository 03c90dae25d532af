"""``whiteboard diff``: two states beside each other."""

from __future__ import annotations

from typing import Any, Final

import click
import numpy as np

from whiteboard import board as boards
from whiteboard.board import Board
from whiteboard.cli.options import echo, existing, json_option, store_option
from whiteboard.systems.history import Snapshot

_DIGITS: Final = 4000  # more than Python reads are no number


@click.command(epilog="For example: whiteboard diff europe@10 europe")
@click.argument("a")
@click.argument("b")
@store_option
@json_option
def diff(a: str, b: str, store: str, *, as_json: bool) -> int:
    """Compare two states, each NAME or NAME@COMMIT: nodes, versions and values. Status 1 where they differ."""
    with boards.open(store, readonly=True) as board:
        fields = differences(_state(board, a, store), _state(board, b, store))
    echo({"a": a, "b": b, **fields}, as_json=as_json)
    return 0 if fields["same"] else 1


def differences(a: Snapshot, b: Snapshot) -> dict[str, Any]:
    """Return what two states differ in.

    Returns
    -------
    dict
        commits and digests of both; nodes only in one; nodes whose versions or values differ; for each attribute the
        largest absolute difference of values of equal shape.
    """
    ours, theirs = set(a.nodes), set(b.nodes)
    versions = values = 0
    largest: dict[str, float] = {}
    for node_id in sorted(ours & theirs):
        first, second = a.nodes[node_id], b.nodes[node_id]
        versions += first.version != second.version
        differs = False
        for attr in sorted(first.attrs.keys() | second.attrs.keys()):
            x, y = first.attrs.get(attr), second.attrs.get(attr)
            if x is None or y is None or x.shape != y.shape or x.dtype != y.dtype:
                differs |= x is not y
            elif x.tobytes() != y.tobytes():
                differs = True
                largest[attr] = max(largest.get(attr, 0.0), float(np.abs(x - y).max()))
        values += differs
    return {
        "same": a.digest() == b.digest(),
        "commits": [a.commit.id, b.commit.id],
        "digests": [a.digest(), b.digest()],
        "only_in_a": len(ours - theirs),
        "only_in_b": len(theirs - ours),
        "versions_differ": versions,
        "values_differ": values,
        "largest_difference": largest,
    }


def _state(board: Board, reference: str, store: str) -> Snapshot:
    name, at, number = reference.rpartition("@")
    if not at or not number.isdecimal() or len(number) > _DIGITS:
        name, number = reference, ""
    system = existing(board, name, store)
    if number:
        return system.at(int(number[:20]))  # more digits name no commit either
    return system.at(-1 if system.head is None else system.head.id)
