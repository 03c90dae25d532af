"""The calls that change files, recorded or made to fail: a library of C that is built here and preloaded."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_suffix(".c")
_PRELOADED: Final = "WHITEBOARD_TORTURE_CALLS"


class Calls:
    """The preloaded library, in this process and in those that are forked from it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.calls_counted.restype = self._library.calls_fired.restype = ctypes.c_long

    def record(self, folder: Path, log: Path) -> None:
        """Write down from now on what changes the files of a folder."""
        if self._library.calls_record(os.fsencode(log)) < 0:
            message = f"{log} cannot be made"
            raise OSError(message)
        self._library.calls_under(os.fsencode(folder))

    def note(self, text: str) -> None:
        """Write a line of one's own into the record."""
        self._library.calls_note(text.encode())

    def fail(self, folder: Path, kinds: str, first: int, last: int, error: int, *, half: bool = False) -> None:
        """Fail the calls `first` to `last` of some kinds on a folder's files; `half` of the first write is written."""
        self._library.calls_under(os.fsencode(folder))
        places = ctypes.c_long(first), ctypes.c_long(last)
        self._library.calls_fail(f"{kinds},".encode(), *places, error, int(half))

    def lift(self) -> None:
        """Let all calls succeed again."""
        self._library.calls_lift()

    @property
    def counted(self) -> int:
        """Calls of the kinds that `fail` named, since then."""
        return int(self._library.calls_counted())

    @property
    def fired(self) -> int:
        """Those of them that failed."""
        return int(self._library.calls_fired())


def preloaded(kind: str) -> Calls:
    """Return the library in a process that has it: where this one has not, the script is run again in one that does.

    Where there can be none it says why, and ends with status 0.
    """
    if os.environ.get(_PRELOADED) == str(os.getppid()):
        return Calls()
    compiler = _compiler()
    if isinstance(compiler, str):
        print(json.dumps({"torture": kind, "skipped": compiler, "wrong": 0}), flush=True)
        sys.exit(0)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "calls.so"
        subprocess.run([*compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
        also = os.environ.get("LD_PRELOAD", "")
        preload = {"LD_PRELOAD": f"{library} {also}".strip(), _PRELOADED: str(os.getpid())}
        done = subprocess.run([sys.executable, *sys.argv], env={**os.environ, **preload}, check=False)
    sys.exit(done.returncode)


def _compiler() -> list[str] | str:
    """The command of a C compiler that builds for this system, or why there is none."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return "it preloads a library, as Linux with glibc can"
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]) is None:
            continue
        asked = [*command, "-E", "-include", "dlfcn.h", "-x", "c", os.devnull]
        if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            return command
        return f"{command[0]} finds no headers of the C library"
    return f"there is no C compiler ({' '.join(named[:1]) or 'cc, gcc or clang'})"
