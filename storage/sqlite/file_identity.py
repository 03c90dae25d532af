"""What the file of an open store is, whatever its name: noticed when it is moved, replaced, or named a second time."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeAlias

from whiteboard.errors import StoreError

Identity: TypeAlias = tuple[int, int, int]

SECOND_NAME: Final = "it has a second name (a hard link), under which it could be written with another log; remove one"
"""Why a file with two names is refused."""

SUFFIXES: Final = ("-wal", "-shm")
"""What SQLite keeps beside the file: its log, and the index of the log that all who have it open share."""


def identity(path: Path | str) -> Identity | None:
    """Return what a file is, whatever its name: device, inode and number of names; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_nlink


def same_file(a: Path | None, b: Path | None) -> bool:
    """Whether two names are of one file that exists."""
    if a is None or b is None:
        return False
    first, second = identity(a), identity(b)
    return first is not None and second is not None and first[:2] == second[:2]


class Place:
    """The file of one open store, and what SQLite keeps beside it.

    Parameters
    ----------
    path : Path
        Of the file, which exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = str(path)
        self._file = identity(path)
        self._beside: dict[str, Identity] = {}
        _OPEN.add(self)

    def reopened(self) -> None:
        """Hear that every connection was closed: the last close removes what is beside the file."""
        self._beside = {}

    def closed(self) -> None:
        """Hear that the store was closed for good."""
        _OPEN.discard(self)

    def check(self) -> None:
        """Raise where the file is not the one that was opened, or what is beside it: what is written has no name.

        Raises
        ------
        StoreError
        """
        self.check_file()
        for suffix in SUFFIXES:
            found, known = identity(f"{self.path}{suffix}"), self._beside.get(suffix)
            if known is None:
                if found is not None:
                    self._beside[suffix] = found
            elif found is None or found[:2] != known[:2]:
                what = "log" if suffix == "-wal" else "index of the log"
                message = (
                    f"the {what} of the store {self.path} ({self.path.name}{suffix}) was moved, removed or replaced "
                    "while it was open; open it again"
                )
                raise StoreError(message)

    def check_file(self) -> None:
        """As `check`, of the file alone."""
        found = identity(self._name)
        if self._file is None or found == self._file:
            return
        if found is None or found[:2] != self._file[:2]:
            message = f"the store {self.path} was moved, removed or replaced while it was open; open it again"
            raise StoreError(message)
        if found[2] > 1:
            message = f"the store {self.path}: {SECOND_NAME}"
            raise StoreError(message)

    def is_gone(self) -> bool:
        """Whether another file, or none, has the name of the one that was opened."""
        found = identity(self.path)
        return self._file is not None and (found is None or found[:2] != self._file[:2])


_OPEN: weakref.WeakSet[Place] = weakref.WeakSet()


def refuse(path: Path, stores: Iterable[Path | None] = ()) -> None:
    """Raise where `path` is a file of one of `stores`, or of a store that this process has open.

    Nothing but SQLite may open such a file, as it is to be closed again.

    Raises
    ------
    StoreError
    """
    absolute = path.parent.resolve() / path.name
    for store in (*stores, *(place.path for place in list(_OPEN))):
        for suffix in ("", *SUFFIXES, ".lock") if store is not None else ():
            if absolute == (name := Path(f"{store}{suffix}")) or same_file(path, name):
                message = f"{path} is a file of the store {store}: name another"
                raise StoreError(message)
