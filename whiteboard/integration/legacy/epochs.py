"""Bring a folder of checkpoints, epoch_000123.npz, into a system whose commits are the epochs in order.

Each array of a file is one attribute of one node, named 7.theta, 7/theta, theta.7 or node_7_theta, p and others
likewise; float32 or float64. A node's version goes up where its bytes have changed. A node that a file leaves out stays
as it was. No pickle is read: files with objects in them are refused.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whiteboard import board as boards
from whiteboard.errors import ParamError, SpecError, WhiteboardError
from whiteboard.records.reports import Progress
from whiteboard.records.systems import is_attr
from whiteboard.systems.system import System

_FILE = re.compile(r"epoch_(\d+)\.npz")
_ARRAY = re.compile(
    r"(?:node_?)?(?P<id>\d+)[._/](?P<attr>[A-Za-z]\w*)|(?P<attr2>[A-Za-z]\w*)[._/](?P<id2>\d+)", re.ASCII
)
SPEC = {"imported": "npz epochs"}

Epoch = Mapping[int, Mapping[str, NDArray[Any]]]


def epochs(folder: Path) -> list[Path]:
    """The checkpoints of a folder, by their number."""
    try:
        found = {int(match[1]): path for path in folder.iterdir() if (match := _FILE.fullmatch(path.name))}
    except OSError as error:
        msg = f"{folder}: {error.strerror}"
        raise ParamError(msg) from error
    if not found:
        msg = f"{folder} holds no epoch_<number>.npz"
        raise ParamError(msg)
    return [found[number] for number in sorted(found)]


def load(path: Path) -> Epoch:
    """The attributes of each node in one checkpoint."""
    nodes: dict[int, dict[str, NDArray[Any]]] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                match = _ARRAY.fullmatch(name)
                if match is None or not is_attr(match["attr"] or match["attr2"]):
                    msg = f"{path}: array {name!r} is named after no node and attribute, such as 7.theta"
                    raise ParamError(msg)
                node, attr = int(match["id"] or match["id2"]), match["attr"] or match["attr2"]
                nodes.setdefault(node, {})[attr] = arrays[name]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        msg = f"{path} cannot be read: {error}"
        raise ParamError(msg) from error
    return nodes


def apply(system: System, epoch: Epoch) -> None:
    """Stage what one checkpoint changes."""
    for node, attrs in sorted(epoch.items()):
        if node not in system.nodes:
            system.add_nodes([node], attrs={attr: value[None] for attr, value in attrs.items()})
        elif changed := {attr: value for attr, value in attrs.items() if not same(system, node, attr, value)}:
            system.write(node, **changed)


def same(system: System, node: int, attr: str, value: NDArray[Any]) -> bool:
    """Whether a node has these bytes; a value that does not fit its attribute is refused by the write."""
    now = getattr(system.nodes[node], attr, None)
    return now is not None and (now.dtype, now.shape) == (value.dtype, value.shape) and now.tobytes() == value.tobytes()


def bring(paths: Sequence[Path], store: str, name: str, progress: Progress | None = None) -> dict[str, Any]:
    """Import what is not there yet; return what was done."""
    with boards.open(store) as board:
        system = board.system(name, SPEC)
        done = 0 if system.head is None else system.head.id + 1
        if done > len(paths):
            msg = f"system {name!r} has {done} commits, and there are {len(paths)} epochs"
            raise SpecError(msg)
        if done:
            last = load(paths[done - 1])
            if not all(same(system, node, attr, v) for node, attrs in last.items() for attr, v in attrs.items()):
                msg = f"system {name!r} stands at another state than {paths[done - 1].name}: give another --name"
                raise SpecError(msg)
        rest = paths[done:]
        for number, path in enumerate(rest, 1):
            try:
                apply(system, load(path))
                system.commit()
            except WhiteboardError as error:
                msg = f"{path.name}: {error}"
                raise ParamError(msg) from error
            if progress:
                progress(number, len(rest))
        return {
            "name": name,
            "epochs": len(paths),
            "commits_added": len(rest),
            "commit": len(paths) - 1,
            "nodes": len(system.nodes),
            "digest": system.digest(),
        }


def forecast(paths: Sequence[Path]) -> dict[str, Any]:
    """How many commits, node rows and bytes the epochs make."""
    kept: dict[tuple[int, str], bytes] = {}
    rows = nbytes = 0
    for path in paths:
        for node, attrs in load(path).items():
            for attr, value in attrs.items():
                data = value.tobytes()
                if kept.get((node, attr)) != data:
                    kept[node, attr] = data
                    rows, nbytes = rows + 1, nbytes + len(data)
    nodes = len({node for node, _ in kept})
    return {"epochs": len(paths), "commits": len(paths), "nodes": nodes, "rows": rows, "bytes": nbytes}
