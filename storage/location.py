"""Where a store is, and whether what lies there may be opened: decided by reading, before anything is written."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from whiteboard.errors import ReadOnlyError, SchemaError, StoreError
from whiteboard.storage.tables import APPLICATION_ID

StoreUrl: TypeAlias = "str | os.PathLike[str]"
Identity: TypeAlias = tuple[int, int, int]

_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\x00"


@dataclass(frozen=True, slots=True)
class Location:
    """A store's backend and its file; `path` is absolute, its folder resolved, and None for ``:memory:``."""

    backend: str
    path: Path | None

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the store."""
        return f"{self.backend}://" if self.path is None else f"{self.backend}:///{self.path}"

    def __str__(self) -> str:
        return ":memory:" if self.path is None else str(self.path)


def identity(path: Path) -> Identity | None:
    """Return what a file is, whatever its name: device, inode and number of names; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_nlink


def locate(url: StoreUrl) -> Location:
    """Read a path, ``":memory:"`` or an SQLAlchemy URL; nothing on disk is touched.

    Raises
    ------
    StoreError
        The URL cannot be read, has query keys, or names no path.
    """
    text = os.fspath(url)
    if "://" not in text:
        return Location("sqlite", _absolute(text))
    try:
        parsed = make_url(text)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError) as error:
        message = f"cannot read the store URL {text!r}: expected sqlite:///PATH"
        raise StoreError(message) from error
    if parsed.query:
        message = (
            f"unknown query keys {sorted(parsed.query)} in the store URL {text!r}: options are arguments of open()"
        )
        raise StoreError(message)
    if backend != "sqlite":
        return Location(backend, None)
    if parsed.host or parsed.username or parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        message = (
            f"cannot read the store URL {text!r}: expected sqlite:///PATH, with three slashes and no driver or host"
        )
        raise StoreError(message)
    return Location(backend, _absolute(parsed.database or ":memory:"))


def locate_file(url: StoreUrl) -> Location:
    """Read the path or URL of a store that is a file of SQLite's.

    Raises
    ------
    StoreError
        It is ``":memory:"``, of another backend, or cannot be read.
    """
    location = locate(url)
    if location.backend != "sqlite" or location.path is None:
        message = f"{os.fspath(url)!r} is no file: name one by its path, or as sqlite:///PATH"
        raise StoreError(message)
    return location


def probe(path: Path, *, readonly: bool) -> bool:
    """Say whether a store has to be created at `path` (True) or is there (False), or refuse what is there.

    Only the first 100 bytes are read, so a foreign file keeps every byte, its journal mode and its journals.

    Raises
    ------
    StoreError
        No folder, not a regular file, not SQLite, truncated, unreadable, or a symbolic link that leads nowhere.
    SchemaError
        A SQLite file of another application.
    ReadOnlyError
        A file or a folder that cannot be written, and `readonly` is false.
    """
    if not path.parent.is_dir():
        message = f"cannot open the store {path}: the folder {path.parent} does not exist; make it first"
        raise StoreError(message)
    try:
        info = path.stat()
    except FileNotFoundError:
        return _may_create(path, readonly=readonly)
    except OSError as error:
        raise _refusal(path, f"{error.strerror}; look at the path's permissions and links") from error
    if stat.S_ISDIR(info.st_mode):
        raise _refusal(path, "it is a folder; name a file in it")
    if not stat.S_ISREG(info.st_mode):
        raise _refusal(path, "it is not a regular file; name another path")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as error:
        raise _refusal(path, f"{error.strerror}; ask its owner for access") from error
    _check_header(path, header, info.st_size, readonly=readonly)
    if not readonly:
        _check_writable(path)
    return not header


def can_write(path: Path) -> bool:
    """Whether this process may write the file and its folder, as a WAL needs."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def wal_bytes(path: Path) -> int:
    """Size of the write-ahead log beside `path`, 0 where there is none."""
    try:
        return Path(f"{path}-wal").stat().st_size
    except OSError:
        return 0


def create_empty(path: Path) -> None:
    """Make the file with mode 0600 and follow no link; that another process was faster is no error."""
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        os.close(os.open(path, flags, 0o600))
    except FileExistsError:
        if path.is_symlink():
            raise _link_refusal(path) from None
    except OSError as error:
        raise _refusal(path, f"it cannot be created: {error.strerror}") from error


def _absolute(text: str) -> Path | None:
    if text == ":memory:":
        return None
    if not text or "\x00" in text or text.endswith(os.sep):
        message = f"{text!r} does not name a store: expected the path of a file, or ':memory:'"
        raise StoreError(message)
    path = Path(text)
    # An existing link is followed once, here, so that two names of one file share its WAL and its lock file.
    return path.resolve() if path.is_file() else path.parent.resolve() / path.name


def _may_create(path: Path, *, readonly: bool) -> bool:
    if path.is_symlink():
        raise _link_refusal(path)
    if readonly:
        raise _refusal(path, "it does not exist, and readonly=True creates nothing")
    if not os.access(path.parent, os.W_OK):
        raise _refusal(path, f"the folder {path.parent} cannot be written; choose another or change its permissions")
    return True


def _check_header(path: Path, header: bytes, size: int, *, readonly: bool) -> None:
    if not header:
        if readonly:
            raise _refusal(path, "it is empty, and readonly=True creates nothing")
        return
    if not header.startswith(_MAGIC[: len(header)]):
        raise _refusal(path, "it is not a SQLite file; name another path, or move the file away")
    if len(header) < _HEADER_BYTES:
        raise _refusal(path, f"it is truncated to {size} bytes; restore it from a copy, or move it away")
    (application_id,) = struct.unpack_from(">i", header, 68)
    if application_id != APPLICATION_ID:
        message = f"cannot open the store {path}: it is a SQLite file of another application; name another path"
        raise SchemaError(message)
    (page_size,) = struct.unpack_from(">H", header, 16)
    change, pages = struct.unpack_from(">I", header, 24)[0], struct.unpack_from(">I", header, 28)[0]
    valid_for = struct.unpack_from(">I", header, 92)[0]
    expected = (65536 if page_size == 1 else page_size) * pages
    # A checkpoint writes page 1 first; while there is a log the file may rightly be shorter than it says.
    if change == valid_for and size < expected and not wal_bytes(path):
        raise _refusal(path, f"it is truncated to {size} of {expected} bytes; restore it from a copy, or move it away")


def _check_writable(path: Path) -> None:
    for what, name in ((path, "file"), (path.parent, "folder")):
        if not os.access(what, os.W_OK):
            message = f"cannot write the store {path}: the {name} is read-only; open it with readonly=True"
            raise ReadOnlyError(message)


def _refusal(path: Path, why: str) -> StoreError:
    return StoreError(f"cannot open the store {path}: {why}")


def _link_refusal(path: Path) -> StoreError:
    return _refusal(path, "it is a symbolic link that leads nowhere, and a store is not created through a link")
