"""Who has a store open: the processes that hold SQLite's shared lock on its file, as the kernel lists them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# Where SQLite locks a byte range of the file for whoever reads it; in WAL mode from the first read to the close.
_SHARED_FIRST, _SHARED_LAST = 0x40000002, 0x40000002 + 509


def holders(path: Path | None) -> str:
    """Say in which processes a store is open, for behind "is open"."""
    pids = [] if path is None else sorted(_pids(path))
    host = os.uname().nodename
    if not pids:
        return f"in a process that {host} cannot see"
    if os.getpid() in pids:
        return "in this process"
    return f"in process {', '.join(map(str, pids))} on {host}"


def _pids(path: Path) -> set[int]:
    """The processes; none where the system does not list them, or where they are on another machine."""
    found = set()
    with suppress(OSError):
        inode = path.stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            # 7: POSIX  ADVISORY  READ 4242 08:02:1234 1073741826 1073742335
            fields = line.split()
            if len(fields) != 8 or not fields[4].isdigit() or not fields[5].endswith(f":{inode}"):
                continue
            if fields[1] == "POSIX" and int(fields[6]) >= _SHARED_FIRST and fields[7] == str(_SHARED_LAST):
                found.add(int(fields[4]))
    return found
