"""Where a store is, and whether what lies there may be opened: decided by reading, before anything is written.

No file of a store is ever opened here but through SQLite: on POSIX, closing any descriptor of a file drops all locks
that the process holds on it, those of SQLite's other connections too (https://sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import struct
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from whiteboard.errors import ReadOnlyError, SchemaError, StoreError
from whiteboard.storage.sql.tables import APPLICATION_ID
from whiteboard.storage.sqlite.file_identity import SECOND_NAME

_HEADER_BYTES = 100
# So often is looked at what may be damaged, as others may open and close it meanwhile.
_LOOKS = 3

# Magic, number of records and nonce, pages that the file had, and the rest of its first sector, without which it is
# none: https://sqlite.org/fileformat2.html#the_rollback_journal
_JOURNAL = struct.Struct(">8s8xI492x")
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def probe(path: Path, *, readonly: bool) -> bool:
    """Say whether a store has to be created at `path` (True) or is there (False), or refuse what is there.

    A foreign file keeps every byte, its journal mode and its journals.

    Raises
    ------
    StoreError
        No folder, not a regular file, not SQLite, truncated, unreadable, a second name of a file, or a symbolic link
        that leads nowhere.
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
    if info.st_nlink > 1:
        raise _refusal(path, SECOND_NAME)
    if not os.access(path, os.R_OK):
        raise _refusal(path, f"{os.strerror(errno.EACCES)}; ask its owner for access")
    if info.st_size:
        _check_header(path, info.st_size, readonly=readonly)
    elif readonly:
        raise _refusal(path, "it is empty, and to read makes no store of it")
    if not readonly:
        _check_writable(path)
    return not info.st_size


def can_write(path: Path) -> bool:
    """Whether this process may write the file and its folder, as a WAL needs."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def wal_bytes(path: Path) -> int:
    """Size of the write-ahead log beside `path`, 0 where there is none."""
    try:
        return Path(f"{path}-wal").stat().st_size
    except OSError:
        return 0


def file_bytes(path: Path) -> int:
    """Bytes of a store's file and its log."""
    with suppress(OSError):
        return path.stat().st_size + wal_bytes(path)
    return 0


def create_empty(path: Path) -> None:
    """Make the file with mode 0600 and follow no link; that another process was faster is no error."""
    try:
        _make(path)
    except FileExistsError:
        if path.is_symlink():
            raise _link_refusal(path) from None
    except OSError as error:
        raise _refusal(path, f"it cannot be created: {error.strerror}") from error


def _make(path: Path) -> None:
    # Where the system can make a file without opening it, no thread can have it open when it is closed again.
    with suppress(AttributeError, PermissionError, NotImplementedError):
        os.mknod(path, 0o600 | stat.S_IFREG)
        return
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    os.close(os.open(path, flags, 0o600))


def _may_create(path: Path, *, readonly: bool) -> bool:
    if path.is_symlink():
        raise _link_refusal(path)
    if readonly:
        raise _refusal(path, "it does not exist, and to read makes none")
    if not os.access(path.parent, os.W_OK):
        raise _refusal(path, f"the folder {path.parent} cannot be written; choose another or change its permissions")
    return True


def _check_header(path: Path, size: int, *, readonly: bool, looks: int = _LOOKS) -> None:
    """Look at the first page through SQLite, which as ``immutable`` takes no lock and reads and makes no journal."""
    half_made = _is_half_made(path)
    if half_made and readonly:
        raise _refusal(path, "its making was interrupted; open it once for writing, which finishes it")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?immutable=1", uri=True)) as connection:
            application_id, pages, page_size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "page_count", "page_size")
            )
        damaged = size < pages * page_size
    except sqlite3.Error as error:
        code = error.sqlite_errorcode & 0xFF
        if code == sqlite3.SQLITE_NOTADB and half_made:
            return
        if code == sqlite3.SQLITE_NOTADB:
            what = f", or one that was truncated to {size} bytes" if size < _HEADER_BYTES else ""
            raise _refusal(path, f"it is not a SQLite file{what}; name another path, or move the file away") from error
        if code != sqlite3.SQLITE_CORRUPT:
            raise _refusal(path, f"SQLite cannot read it ({error})") from error
        application_id, damaged = APPLICATION_ID, True
    except UnicodeDecodeError:  # of the message: it quotes a damaged schema
        application_id, damaged = APPLICATION_ID, True
    if application_id != APPLICATION_ID:
        message = f"cannot open the store {path}: it is a SQLite file of another application; name another path"
        raise SchemaError(message)
    # A checkpoint writes page 1 first; while there is a log the file may rightly be shorter than it says.
    if damaged and not wal_bytes(path) and not half_made:
        # Who closed it since its size was asked for has moved the log into it, and removed that: then it is whole now.
        if looks > 1 and (now := file_bytes(path)):
            _check_header(path, now, readonly=readonly, looks=looks - 1)
            return
        what = f"it was truncated to {size} bytes, or its first page is damaged, or its disk fails"
        raise _refusal(path, f"{what}; look at that, then restore it from a copy, or move it away")


def _is_half_made(path: Path) -> bool:
    """Whether a journal says that the file was empty: what a power cut left of its first page, SQLite takes back."""
    journal, head = Path(f"{path}-journal"), b""
    with suppress(OSError):
        if journal.is_file():
            with journal.open("rb") as file:  # on which SQLite has no locks to lose
                head = file.read(_JOURNAL.size)
    return len(head) == _JOURNAL.size and _JOURNAL.unpack(head) == (_JOURNAL_MAGIC, 0)


def _check_writable(path: Path) -> None:
    for what, name in ((path, "file"), (path.parent, "folder")):
        if not os.access(what, os.W_OK):
            message = f"cannot write the store {path}: the {name} is read-only; open it with readonly=True"
            raise ReadOnlyError(message)


def _refusal(path: Path, why: str) -> StoreError:
    return StoreError(f"cannot open the store {path}: {why}")


def _link_refusal(path: Path) -> StoreError:
    return _refusal(path, "it is a symbolic link that leads nowhere, and a store is not created through a link")
