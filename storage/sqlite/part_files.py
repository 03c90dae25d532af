"""Files that get their name when they are whole: until then each is one writer's own, under a name nobody can guess."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from whiteboard.errors import ArchiveError

_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)

_CANNOT = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF}
"""What a file system says that cannot sync a folder; anything else is one that could not."""


def open_part(path: Path, content: str) -> tuple[Path, BinaryIO]:
    """Open the file under which `path` is written, locked as long as it is open: one that was left, or a new one.

    Parameters
    ----------
    path : Path
        What it will be called.
    content : str
        Digits that tell what is written: a file that was left by a killed process is gone on with where they fit, if
        this user alone could write it and nobody has it open. Any other is let be.

    Raises
    ------
    OSError
    """
    for left in sorted(path.parent.glob(f"{_escaped(path.name)}.{content}-*.part")):
        if (file := _adopted(left)) is not None:
            return left, file
    new = path.with_name(f"{path.name}.{content}-{secrets.token_hex(8)}.part")
    file = os.fdopen(os.open(new, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600), "r+b")
    fcntl.flock(file, fcntl.LOCK_EX)
    return new, file


def name(part: Path, path: Path) -> None:
    """Give a file that is whole and synced its name, which is on the disk when this returns.

    Raises
    ------
    ArchiveError
        Somebody has taken the name meanwhile.
    OSError
        It could not be named so that the name lasts: it has not got it.
    """
    linked = True
    try:
        os.link(part, path)
    except FileExistsError:
        message = f"cannot write the archive {path}: it exists by now; what was written is {part}"
        raise ArchiveError(message) from None
    except OSError:
        part.rename(path)  # a file system without links
        linked = False
    try:
        sync_folder(path.parent)
    except OSError:
        if linked:
            path.unlink()
        else:
            path.rename(part)
        raise
    if linked:
        with suppress(OSError):  # a second name that cannot be removed takes nothing from the first
            part.unlink()


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on its disk.

    Raises
    ------
    OSError
        They may not be; a file system that syncs no folders is no error.
    """
    fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    finally:
        os.close(fd)


def _adopted(left: Path) -> BinaryIO | None:
    """Open a file that was left, if it is this user's alone and nobody writes it."""
    try:
        fd = os.open(left, _FLAGS | os.O_NONBLOCK)
    except OSError:
        return None
    found = os.fstat(fd)
    ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
    if ours and not found.st_mode & 0o077:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have given it its name a moment ago.
            now = left.lstat()
            if (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino):
                return os.fdopen(fd, "r+b")
    os.close(fd)
    return None


def _escaped(text: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)
