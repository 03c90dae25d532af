"""A PostgreSQL server that is started for a test or a torture, and thrown away."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from sqlalchemy.engine import URL


def programs() -> Path | None:
    """The folder of the newest server's programs; None where none is installed."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in reversed(places) if (place / "initdb").exists()), None)


class Server:
    """A server that listens in a folder of its own alone; it runs as postgres where this is root, which it refuses.

    Parameters
    ----------
    place : Path
        Of its programs.

    Raises
    ------
    LookupError
        This is root, and there is no user postgres.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._user: dict[str, object] = {}
        other = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="wbpg"))
        if other is not None:
            os.chown(self.folder, other.pw_uid, other.pw_gid)
            self._user = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
        self._call("initdb", "-U", "test", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        self.start()

    @property
    def url(self) -> URL:
        """Of a database in which schemas may be made."""
        return URL.create("postgresql+psycopg", "test", database="postgres", query={"host": str(self.folder)})

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-c listen_addresses= -k {self.folder} -c fsync=off"
        self._call("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def crash(self) -> None:
        """Stop it as a crash would: nothing is finished, no client is told; it recovers when it is started."""
        with suppress(subprocess.CalledProcessError):
            self._call("pg_ctl", "-w", "-m", "immediate", "stop")

    def kill_backend(self, pid: int) -> None:
        """Kill the process of one session, upon which the server ends all of them and recovers."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Stop it, and remove all that it had."""
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self._place / program), "-D", str(self.folder / "data"), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self._user)  # type: ignore[call-overload]
