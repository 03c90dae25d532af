"""The archive: packages and systems as one flat file of frames, each behind its digest, and one digest over all.

::

    MAGIC, format (uint32)
    frame …     kind (4 bytes), number (uint64), length of header (uint32), of data (uint64), digest (16 bytes),
                header, data
    HEAD        first: what the archive holds, as JSON
    PAGE        number: the page's id in its store; header, data and digest are those of its row
    SYST        a system, as JSON; its commits follow
    COMT        number: the commit's; a row of the log, as JSON, with how many node pages follow
    NODE        number: the part; header, data and digest are those of its row
    DONE        last: counts, and the BLAKE3-256 digest of every byte before this frame

All numbers are little-endian. A frame's digest covers its header and its data, as that of a row does. Nothing in an
archive names a place in a file system, and no part of it is ever written under a name that it gives.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final

from blake3 import blake3

from whiteboard.errors import ArchiveError
from whiteboard.storage.page import row_checks
from whiteboard.storage.page.codec import MOST_BYTES, Data
from whiteboard.storage.page.digests import Laid, digest_of, is_intact, pieces
from whiteboard.storage.page.format import HEADER_BYTES, Blob

FORMAT: Final = 3
"""The newest format, which this version writes; it reads all up to it. The first had BLAKE2b for BLAKE3, the second no
pages whose rows lie beside one another."""

MAGIC: Final = b"WBARCHIVE\r\n\x1a"

HEAD, PAGE, SYSTEM, COMMIT, NODES, DONE = b"HEAD", b"PAGE", b"SYST", b"COMT", b"NODE", b"DONE"

_KINDS = frozenset((HEAD, PAGE, SYSTEM, COMMIT, NODES, DONE))
_START = struct.Struct("<12sI")
_FRAME = struct.Struct("<4sQIQ16s")
_READ_BYTES = 2**20
_SMALL_BYTES = 4 * 2**20


class Window:
    """Bytes of a file that are read when they are asked for.

    Raises
    ------
    ArchiveError
        The file has become shorter.
    """

    __slots__ = ("_at", "_fd", "_length", "_path")

    def __init__(self, path: Path, file: BinaryIO, at: int, length: int) -> None:
        self._path, self._fd, self._at, self._length = path, file.fileno(), at, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> bytes:
        start, end, _ = part.indices(self._length)
        read: list[bytes] = []
        while start < end:
            read.append(os.pread(self._fd, end - start, self._at + start))
            start += len(read[-1])
            if not read[-1]:
                message = f"the archive {self._path} was changed while it was read"
                raise ArchiveError(message)
        return read[0] if len(read) == 1 else b"".join(read)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `at` and `end` are where it begins and ends in the file. What is large stays there until asked for."""

    kind: bytes
    number: int
    header: bytes
    digest: bytes
    data: Data
    at: int
    end: int

    def fields(self) -> dict[str, Any]:
        """What a frame of JSON says.

        Raises
        ------
        ValueError
            It holds no object.
        """
        found = row_checks.read_json(self.header)
        if not isinstance(found, dict):
            message = "it holds no JSON object"
            raise ValueError(message)  # noqa: TRY004
        return found


class Writer:
    """Appends frames to a file that is open for writing, and knows the digest of all that is in it.

    Parameters
    ----------
    file : binary file
        At its end.
    digest : hash object
        Over what is in it already.
    """

    def __init__(self, file: BinaryIO, digest: Any) -> None:
        self._file, self._digest = file, digest
        self.nbytes = file.tell()

    def start(self) -> None:
        """Write the file's first bytes."""
        self._write(_START.pack(MAGIC, FORMAT))

    def blob(self, kind: bytes, number: int, blob: Laid) -> None:
        """Write one frame.

        Raises
        ------
        ArchiveError
            Its header is longer than a reader takes.
        """
        if len(blob.header) > HEADER_BYTES:
            message = (
                f"a {kind.decode()} frame would have a header of {len(blob.header)} bytes, more than {HEADER_BYTES}"
            )
            raise ArchiveError(message)
        self._write(_FRAME.pack(kind, number, len(blob.header), len(blob.data), blob.digest))
        self._write(blob.header)
        for part in pieces(blob.data):
            self._write(part)

    def fields(self, kind: bytes, number: int, fields: dict[str, Any]) -> None:
        """Write one frame of JSON."""
        header = json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()
        self.blob(kind, number, Blob(header, digest_of(header, b""), b""))

    def done(self, counts: dict[str, int]) -> None:
        """Write the last frame and see the file to its disk."""
        self.fields(DONE, 0, {**counts, "digest": self._digest.hexdigest()})
        self._file.flush()
        os.fsync(self._file.fileno())

    def _write(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._file.write(data)
        self.nbytes += len(data)


class Reader:
    """Reads the frames of an archive one after another; no more than one is in memory.

    Raises
    ------
    ArchiveError
        The file is no archive, or one of a newer format.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file
        self.size = os.fstat(file.fileno()).st_size
        start = file.read(_START.size)
        if len(start) < _START.size or not start.startswith(MAGIC):
            message = f"{path} is not a whiteboard archive"
            raise ArchiveError(message)
        _, self.format = _START.unpack(start)
        if not 1 <= self.format <= FORMAT:
            message = f"the archive {path} has format {self.format}, newer than {FORMAT}, the last known here: upgrade"
            raise ArchiveError(message)
        self.digest = whole_digest(self.format)
        self.digest.update(start)
        self.at = _START.size

    def frames(self) -> Iterator[Frame]:
        """Frames with the right digest, to the end of the file; `digest` is over all that were given.

        Raises
        ------
        ArchiveError
            A frame is cut short, is of no known kind, or has another digest than its bytes.
        """
        while self.at < self.size:
            yield self._frame()

    def _frame(self) -> Frame:
        prefix = self._read(_FRAME.size)
        kind, number, header_length, data_length, digest = _FRAME.unpack(prefix)
        if kind not in _KINDS or header_length > HEADER_BYTES or data_length > MOST_BYTES:
            message = f"the archive {self.path} is damaged: no frame begins at byte {self.at}"
            raise ArchiveError(message)
        begin = self.at + _FRAME.size + header_length
        if begin + data_length > self.size:
            message = f"the archive {self.path} is truncated: it ends at byte {self.size}, inside of a frame"
            raise ArchiveError(message)
        header = self._read(header_length)
        small = data_length <= _SMALL_BYTES
        data: Data = self._read(data_length) if small else Window(self.path, self._file, begin, data_length)
        frame = Frame(kind, number, header, digest, data, self.at, begin + data_length)
        if not is_intact(frame):
            message = f"the archive {self.path} is damaged: the digest of the frame at byte {self.at} does not fit it"
            raise ArchiveError(message)
        for part in chain((prefix, header), pieces(data)):
            self.digest.update(part)
        if not small:
            self._file.seek(frame.end)
        self.at = frame.end
        return frame

    def laid(self, frame: Frame) -> Frame:
        """The frame with its data in the file: what many frames hold need not be in memory at once."""
        at = frame.end - len(frame.data)
        return replace(frame, data=Window(self.path, self._file, at, len(frame.data)))

    def _read(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            message = f"the archive {self.path} is truncated: it ends at byte {self.size}, inside of a frame"
            raise ArchiveError(message)
        return data


def whole_digest(of: int = FORMAT) -> Any:
    """The hash of a whole archive of a format, with nothing in it yet."""
    return hashlib.blake2b(digest_size=32) if of == 1 else blake3()


def digest_up_to(file: BinaryIO, end: int) -> Any:
    """The hash over the first bytes of an archive, read in parts."""
    file.seek(0)
    digest = whole_digest(_START.unpack(file.read(_START.size))[1])
    file.seek(0)
    while (left := end - file.tell()) > 0:
        data = file.read(min(left, _READ_BYTES))
        if not data:
            break
        digest.update(data)
    return digest
