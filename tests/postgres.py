"""A PostgreSQL server for tests: the one of `$WHITEBOARD_POSTGRES`, or one that is started for them and thrown away."""

from __future__ import annotations

import atexit
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy.engine import URL, make_url

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'psycopg[binary]'")


@cache
def server() -> URL:
    """The URL of a database in which schemas may be made; skips where there is no server, or fails if it has to be."""
    given = os.environ.get("WHITEBOARD_POSTGRES", "")
    if "://" in given:
        return make_url(given)
    programs = _programs()
    if programs is None:
        why = "no PostgreSQL: set WHITEBOARD_POSTGRES to a URL, or install its server"
        if given:  # as .ci/run says
            pytest.fail(why)
        pytest.skip(why)
    return _started(programs)


@contextmanager
def schema() -> Iterator[str]:
    """The URL of a schema of its own, which is dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    url = server().update_query_dict({"schema": name})
    try:
        yield url.render_as_string(hide_password=False)
    finally:
        run(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


def run(statement: str) -> list[tuple[object, ...]]:
    """Run a statement behind the store's back, and return its rows."""
    url = server().set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SET client_min_messages = warning; " + statement)
        while found.nextset():
            pass
        return list(found.fetchall()) if found.description else []


def _programs() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in reversed(places) if (place / "initdb").exists()), None)


def _started(programs: Path) -> URL:
    """A server that listens in a folder alone; it runs as another user where this one is root, which it refuses."""
    folder = Path(tempfile.mkdtemp(prefix="wbpg"))
    user: dict[str, object] = {}
    if os.geteuid() == 0:
        try:
            other = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        os.chown(folder, other.pw_uid, other.pw_gid)
        user = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}

    def call(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **user)  # type: ignore[call-overload]

    call("initdb", "-U", "test", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
    options = f"-c listen_addresses= -k {folder} -c fsync=off"
    call("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")

    def stop() -> None:
        call("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    return URL.create("postgresql+psycopg", "test", database="postgres", query={"host": str(folder)})
