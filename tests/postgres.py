"""A PostgreSQL server for tests: the one of `$WHITEBOARD_POSTGRES`, or one that is started for them and thrown away."""

from __future__ import annotations

import atexit
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy.engine import URL, make_url

from scripts.torturing.server import Server, programs

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'psycopg[binary]'")


@cache
def server() -> URL:
    """The URL of a database in which schemas may be made; skips where there is no server, or fails if it has to be."""
    given = os.environ.get("WHITEBOARD_POSTGRES", "")
    if "://" in given:
        return make_url(given)
    place = programs()
    if place is None:
        why = "no PostgreSQL: set WHITEBOARD_POSTGRES to a URL, or install its server"
        if given:  # as .ci/run says
            pytest.fail(why)
        pytest.skip(why)
    return _started(place)


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


def _started(place: Path) -> URL:
    try:
        started = Server(place)
    except LookupError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    atexit.register(started.remove)
    return started.url
