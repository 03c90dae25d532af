"""What a disk holds after a power cut: files and names of which some changes, not synced yet, are missing or torn."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

_RECORD: Final = struct.Struct("=IIIIQQQ")

Image: TypeAlias = dict[str, bytes]
"""Bytes by name."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that changed something, or (kind ``A``) a line that was noted between them.

    `first` and `second` are names in the one folder. Kinds: ``W`` write, ``T`` truncate, ``S`` sync, ``C`` create,
    ``U`` unlink, ``R`` rename, ``L`` link.
    """

    kind: str
    inode: int
    first: str
    second: str
    offset: int
    data: bytes


def read_log(path: Path) -> list[Call]:
    """Read what `calls.Calls.record` has written."""
    data, at, calls = path.read_bytes(), 0, []
    while at < len(data):
        kind, first, second, _, inode, offset, size = _RECORD.unpack_from(data, at)
        names = at + _RECORD.size
        body = names + first + second
        at = body + (size if chr(kind) == "W" else 0)
        texts = [os.fsdecode(text) for text in (data[names : names + first], data[names + first : body])]
        if chr(kind) != "A":
            texts = [Path(text).name for text in texts]
        calls.append(Call(chr(kind), inode, texts[0], texts[1], offset, data[body:at]))
    return calls


def read_folder(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Inode and bytes of each file."""
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in folder.iterdir()}


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of a file's bytes that is not synced: `data` at `offset`, or (None) a new size."""

    number: int
    offset: int
    data: bytes | None

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.offset :]
            content.extend(bytes(self.offset - len(content)))
            return
        content.extend(bytes(max(0, self.offset - len(content))))
        content[self.offset : self.offset + len(self.data)] = self.data

    def parts(self, sector: int) -> Iterator[_Change]:
        """It cut at the edges of sectors."""
        if self.data is None:
            yield self
            return
        start = 0
        while start < len(self.data):
            end = min(len(self.data), start + sector - (self.offset + start) % sector)
            yield _Change(self.number, self.offset + start, self.data[start:end])
            start = end


@dataclass(eq=False, slots=True)
class _File:
    """What is surely on the disk, and what is not yet."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[_Change] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.pending:
            change.apply(self.durable)
        self.pending = []


_Naming: TypeAlias = tuple[str | None, str | None, "_File | None"]
"""A name that goes, one that comes, and whose it is."""


class Disk:
    """Files and names as calls change them.

    Parameters
    ----------
    before : dict
        What surely is on the disk, as `read_folder` gives it.
    journalled : bool
        Names reach the disk in their order, and the sync of any file takes them there, as on ext4, XFS and btrfs. Else
        each alone, and surely with the sync of the folder only, which is all that POSIX says.
    """

    def __init__(self, before: dict[str, tuple[int, bytes]], *, journalled: bool) -> None:
        self.journalled = journalled
        self._files: dict[int, _File] = {}
        self._names: dict[str, _File] = {}
        for name, (inode, content) in before.items():
            self._names[name] = self._files[inode] = _File(bytearray(content))
        self._durable = dict(self._names)
        self._namings: list[_Naming] = []
        self._number = 0

    def do(self, call: Call) -> None:
        """Make one call."""
        self._number += 1
        if call.kind == "S":
            self._sync(call.inode)
        elif call.kind in ("W", "T"):
            data = call.data if call.kind == "W" else None
            self._files[call.inode].pending.append(_Change(self._number, call.offset, data))
        elif call.kind == "C":
            self._files[call.inode] = _File()
            self._name(None, call.first, self._files[call.inode])
        elif call.kind == "L":
            self._name(None, call.second, self._names[call.first])
        elif call.kind == "R":
            self._name(call.first, call.second, self._names[call.first])
        elif call.kind == "U":
            self._name(call.first, None, None)

    def _name(self, *naming: *_Naming) -> None:
        _renamed(self._names, naming)
        self._namings.append(naming)

    def _sync(self, inode: int) -> None:
        file = self._files.get(inode)
        if file is not None:
            file.sync()
        if file is None or self.journalled:  # the one folder that there is
            self._durable, self._namings = dict(self._names), []

    def whole(self) -> Image:
        """What is there when nothing is lost."""
        return _image(self._names, lambda change: [change])

    def after_cut(self, chance: random.Random, fate: str) -> Image:
        """What may be there when the power is cut now.

        Parameters
        ----------
        chance : random.Random
        fate : str
            Of what is not synced, one of `FATES`.
        """
        share = {"lost": 0.0, "kept": 1.0}.get(fate, chance.random())
        if self.journalled:
            namings = self._namings[: round(share * len(self._namings))]
        else:
            namings = [naming for naming in self._namings if chance.random() < share]
        names = dict(self._durable)
        for naming in namings:
            _renamed(names, naming)
        pending = sorted(change.number for file in {*names.values()} for change in file.pending)
        last = pending[int(share * (len(pending) - 1))] if pending else 0
        sector = chance.choice([512, 4096])

        def left(change: _Change) -> list[_Change]:
            if fate == "order" and change.number != last:
                return [change] if change.number < last else []
            if fate in ("torn", "order"):
                return [part for part in change.parts(sector) if chance.random() < share]
            if chance.random() < share:
                return [change]
            if fate == "sized" and change.data is not None:
                return [_Change(change.number, change.offset + len(change.data), b"")]  # its size alone
            return []

        image = _image(names, left)
        for name in [name for name in image if name.endswith("-shm")]:
            # Never synced: whatever is there is from any moment, if it is there at all.
            if chance.random() < 0.5:
                del image[name]
            else:
                image[name] = chance.randbytes(len(image[name]))
        return image


FATES: Final = ("lost", "kept", "some", "torn", "order", "sized")
"""Of what is not synced: none, all, some writes, some sectors, the first writes, or sizes without what was written."""


def _renamed(names: dict[str, _File], naming: _Naming) -> None:
    goes, comes, file = naming
    if goes is not None:
        names.pop(goes, None)
    if comes is not None and file is not None:
        names[comes] = file


def _image(names: dict[str, _File], left: Callable[[_Change], list[_Change]]) -> Image:
    image: Image = {}
    contents: dict[_File, bytes] = {}
    for name, file in names.items():
        if file not in contents:
            content = bytearray(file.durable)
            for change in file.pending:
                for part in left(change):
                    part.apply(content)
            contents[file] = bytes(content)
        image[name] = contents[file]
    return image
