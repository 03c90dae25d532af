"""What lies in a folder of an older cache, listed without reading a pickle."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

from whiteboard.errors import ParamError
from whiteboard.integration.legacy.database import connect

Entry: TypeAlias = tuple[str, int]
"""A file below the folder, and the row in it (0 where the file is the entry)."""

KINDS = ("npz", "diskcache", "joblib")


def kind_of(folder: Path) -> str:
    """Return which of `KINDS` a folder is, by what lies in it.

    Raises
    ------
    ParamError
        It is none of them, or several.
    """
    if not folder.is_dir():
        msg = f"{folder} is no folder"
        raise ParamError(msg)
    found = [
        kind
        for kind, there in (
            ("npz", any(folder.glob("epoch_*.npz"))),
            ("diskcache", bool(_databases(folder))),
            ("joblib", next(folder.rglob("output.pkl"), None) is not None),
        )
        if there
    ]
    if len(found) != 1:
        what = (
            f"looks like {' and '.join(found)}: say which with --from" if found else "holds no epoch_<number>.npz, no "
        )
        msg = f"{folder} {what}" + ("" if found else "cache.db of diskcache and no output.pkl of joblib")
        raise ParamError(msg)
    return found[0]


def entries(folder: Path, kind: str) -> list[Entry]:
    """Return the entries of a diskcache or joblib folder, in an order that is the same at each call.

    Raises
    ------
    ParamError
        There is none, one cannot be listed, or they are results of several functions.
    """
    found = _rows(folder) if kind == "diskcache" else _results(folder)
    if not found:
        msg = f"{folder} holds no results of {kind}"
        raise ParamError(msg)
    return found


def _databases(folder: Path) -> list[Path]:
    """The database of a Cache, or those of a FanoutCache's shards."""
    whole = folder / "cache.db"
    return [whole] if whole.is_file() else sorted(folder.glob("[0-9][0-9][0-9]/cache.db"))


def _rows(folder: Path) -> list[Entry]:
    rows: list[Entry] = []
    for path in _databases(folder):
        try:
            with closing(connect(path)) as connection:
                numbers = connection.execute("SELECT rowid FROM Cache ORDER BY rowid").fetchall()
        except sqlite3.Error as error:
            msg = f"{path} cannot be read as a cache of diskcache: {error}"
            raise ParamError(msg) from error
        rows += [(str(path.relative_to(folder)), number) for (number,) in numbers]
    return rows


def _results(folder: Path) -> list[Entry]:
    paths = sorted(folder.rglob("output.pkl"))
    functions = sorted({path.parent.parent for path in paths})
    if len(functions) > 1:
        msg = f"{folder} holds results of several functions, name the folder of one: {_listed(functions)}"
        raise ParamError(msg)
    return [(str(path.relative_to(folder)), 0) for path in paths]


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:5])) + (", …" if len(paths) > 5 else "")
