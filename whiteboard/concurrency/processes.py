"""Which process one is, in words that others know it by, and whether it lives, or is stopped."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

_ENDED: Final = frozenset("ZX")
_STOPPED: Final = frozenset("Tt")


def boot() -> str:
    """Return the id of the boot and, behind a slash, of the namespace in which pids count; empty what is not told."""
    return _boot(os.getpid())


@lru_cache(1)
def _boot(_pid: int) -> str:
    name = space = ""
    with suppress(OSError):
        name = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        space = f"/{Path('/proc/self/ns/pid').stat().st_ino}"
    return name + space


def started(pid: int) -> int:
    """Return when a process started, in ticks since the boot; 0 where the system does not tell, -1 where it has ended.

    One that has ended keeps its pid until its parent asks for it, which may be never: a launcher, a container's init.
    """
    try:
        state, *fields = _stat(pid)
        if state in _ENDED and len(list(Path(f"/proc/{pid}/task").iterdir())) < 2:  # else threads of it go on
            return -1
        return int(fields[18])
    except OSError:
        return 0


def is_stopped(booted: str, pid: int, since: int) -> bool | None:
    """Whether a process is stopped, by SIGSTOP or a debugger; None where it cannot be looked at, or has ended.

    Parameters
    ----------
    booted : str
        Its `boot`.
    pid : int
    since : int
        When it `started`.
    """
    if not is_here(booted):
        return None
    try:
        state, *fields = _stat(pid)
    except OSError:
        return None
    return state in _STOPPED if int(fields[18]) == since else None


def has_ended(booted: str, pid: int, since: int) -> bool:
    """Whether a process that can be looked at is there no more."""
    if not is_here(booted):
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # it lives, as another user
    return started(pid) not in (since, 0)


def is_here(booted: str) -> bool:
    """Whether a process can be looked at from here: it is of this boot, in this namespace of pids."""
    return booted == boot() and all(booted.partition("/"))


def _stat(pid: int) -> list[str]:
    # The command, second field, may hold spaces and brackets: count from behind the last bracket.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
