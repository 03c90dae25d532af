"""An archive before anything of it is written: whole, in order, and nothing in it that the store would not take."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from whiteboard.errors import ArchiveError, CorruptPackageError
from whiteboard.storage.commits.log import SEALED
from whiteboard.storage.commits.sealed import Sealed
from whiteboard.storage.page import page_checks, row_checks
from whiteboard.storage.transfer.archive import COMMIT, HEAD, NODES, PAGE, SYSTEM, Frame, Reader
from whiteboard.storage.transfer.contents import Incoming, identity


@dataclass(slots=True)
class Survey:
    """What an archive holds, and the digest of all but its last frame."""

    digest: str = ""
    pages: int = 0
    systems: list[Incoming] = field(default_factory=list)


def survey(path: Path, file: BinaryIO) -> Survey:
    """Read a whole archive and check all that is in it; what it declares to hold takes no memory.

    Raises
    ------
    ArchiveError
        With the frame at which it is no archive of anything that a store takes.
    """
    surveyor, reader = _Surveyor(), Reader(path, file)
    before = reader.digest.copy()
    for frame in reader.frames():
        try:
            surveyor.look_at(frame, before.hexdigest())
        except (ValueError, CorruptPackageError) as error:
            raise damaged(path, frame, f"{surveyor.where}{error}") from error
        before = reader.digest.copy()
    if not surveyor.found.digest:
        message = f"the archive {path} is truncated: it ends at byte {reader.size}, without its last frame"
        raise ArchiveError(message)
    return surveyor.found


def damaged(path: Path, frame: Frame, why: object) -> ArchiveError:
    """Say what is wrong with a frame, and where it is."""
    return ArchiveError(f"the archive {path} is damaged: the {frame.kind.decode()} frame at byte {frame.at}: {why}")


def commit_of(frame: Frame) -> tuple[dict[str, Any], bytes, int]:
    """The row of a commit, its seal, and how many node pages follow it.

    Raises
    ------
    ValueError
        It says something else.
    """
    fields = frame.fields()
    digits, parts = fields.get("seal"), fields.get("parts")
    if not isinstance(digits, str) or type(parts) is not int or parts < 0:
        _refuse("its seal, or how many node pages follow, is not said")
    return {name: fields.get(name) for name in SEALED}, bytes.fromhex(digits), parts


class _Surveyor:
    """Takes one frame after another: each has its place, and what it says is looked at there."""

    def __init__(self) -> None:
        self.found = Survey()
        self._histories: dict[str, dict[int, bytes]] = {}
        self._begun = False
        self._system: Incoming | None = None
        self._number = 0
        self._commit: Sealed | None = None
        self._parts = 0

    @property
    def where(self) -> str:
        """The system and commit that the last frame was of, to open a message with."""
        return "" if self._system is None else f"system {self._system.name!r}, commit {self._number}: "

    def look_at(self, frame: Frame, before: str) -> None:
        """Look at the next frame; `before` is the digest of all before it."""
        if self.found.digest:
            _refuse("something follows the last frame")
        if (frame.kind == HEAD) == self._begun:
            _refuse("there is a first frame before it" if self._begun else "no first frame is before it")
        if (frame.kind == NODES) != bool(self._parts):
            _refuse("node pages are missing before it" if self._parts else "it belongs to no commit")
        self._begun = True
        if frame.kind == PAGE:
            self._system = None
            page_checks.check_packages(frame)
            self.found.pages += 1
        elif frame.kind == SYSTEM:
            self._system = None
            self._take_system(frame.fields())
        elif frame.kind == COMMIT:
            self._take_commit(frame)
        elif frame.kind == NODES:
            self._take_nodes(frame)
        elif frame.kind != HEAD:
            if frame.fields().get("digest") != before:
                _refuse("the digest over all before it does not fit")
            self.found.digest = before

    def _take_system(self, fields: Mapping[str, Any]) -> None:
        name, uuid, spec = row_checks.system(*(fields.get(key) for key in ("name", "uuid", "spec")))
        if name in self._histories:
            _refuse(f"a system {name!r} is there twice")
        origin, base = fields.get("origin"), fields.get("base")
        known: dict[int, bytes] = {}
        if origin is not None:
            origin = _pair(origin, "origin")
        if base is not None:
            digits, number = _pair(base[::-1] if isinstance(base, list) else base, "base")
            known[number] = bytes.fromhex(digits)
        elif origin is not None:
            before = self._histories.get(origin[0], {})
            known |= {number: each for number, each in before.items() if number <= origin[1]}
            if origin[1] not in known:
                _refuse(f"commit {origin[1]} of {origin[0]!r}, from which it was forked, is not before it")
        self._system = Incoming(name, uuid, spec, origin, known)
        self._histories[name] = known
        self._number = max([-1 if origin is None else origin[1], *known]) + 1
        self.found.systems.append(self._system)

    def _take_commit(self, frame: Frame) -> None:
        if self._system is None:
            _refuse("it belongs to no system")
        values, sealed, self._parts = commit_of(frame)
        self._commit = Sealed(self._system.uuid, values, sealed)
        if values["number"] != self._number:
            _refuse(f"it is number {values['number']}")
        self._histories[self._system.name][self._number] = identity(values)
        self._end_commit()

    def _take_nodes(self, frame: Frame) -> None:
        assert self._commit is not None
        self._commit.add(frame)
        self._parts -= 1
        self._end_commit()

    def _end_commit(self) -> None:
        if not self._parts and self._commit is not None:
            self._commit.close()
            self._number += 1


def _pair(said: object, what: str) -> tuple[str, int]:
    """A name, or digits, and the number of a commit."""
    text, number = said if isinstance(said, list) and len(said) == 2 else (None, None)
    if not isinstance(text, str) or type(number) is not int or not 0 <= number < 2**63:
        _refuse(f"its {what} is {reprlib.repr(said)}")
    return text, number


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)
