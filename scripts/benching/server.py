"""A store on a PostgreSQL server beside one in a file and a plain table of bytea: pages of 256, put and read."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psycopg
from sqlalchemy.engine import make_url

import whiteboard as wb
from scripts.benching import measure

WIDTH, BIN = 64, 256


def _board(url: str, n: int) -> dict[str, float]:
    """Seconds to compute and write n packages, a flush a bin, and to read them in a new board without its memory."""
    x = np.random.default_rng(0).random((n, WIDTH))
    with wb.open(url) as board:
        board.call_many("mul", x[:1] + 1, x[:1])
        board.flush()
        begun = time.perf_counter()
        for start in range(0, n, BIN):
            board.call_many("mul", x[start : start + BIN], x[start : start + BIN])
            board.flush()
        put = time.perf_counter() - begun
    with wb.open(url, memory_bytes=0) as board:
        board.call_many("mul", x[:1], x[:1])
        begun = time.perf_counter()
        for start in range(0, n, BIN):
            found = board.call_many("mul", x[start : start + BIN], x[start : start + BIN])
            assert (found.hit == 2).all()
        return {"put": put, "get": time.perf_counter() - begun}


def _plain(url: str, n: int) -> dict[str, float]:
    """The same bytes, a row of bytea a page, by psycopg alone: a transaction each, nothing computed or hashed."""
    page = np.random.default_rng(0).random((BIN, 3 * WIDTH)).tobytes()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE plain (id int PRIMARY KEY, data bytea)")
        connection.execute("ALTER TABLE plain ALTER COLUMN data SET STORAGE EXTERNAL")
        begun = time.perf_counter()
        for number in range(n // BIN):
            connection.execute("INSERT INTO plain VALUES (%s, %s)", (number, page))
        put = time.perf_counter() - begun
        begun = time.perf_counter()
        for number in range(n // BIN):
            connection.execute("SELECT data FROM plain WHERE id = %s", (number,), binary=True).fetchone()
        return {"put": put, "get": time.perf_counter() - begun}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default=os.environ.get("WHITEBOARD_POSTGRES"), help="URL of a database on a server")
    parser.add_argument("--n", type=int, default=10_240, help="packages")
    parser.add_argument("--runs", type=int, default=measure.RUNS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if not given.store:
        parser.error("name a server: --store postgresql+psycopg://USER@HOST/DATABASE")
    base = make_url(given.store)
    plain = base.set(drivername="postgresql").render_as_string(hide_password=False)
    seconds: dict[str, list[dict[str, float]]] = {"SQLite": [], "PostgreSQL": [], "plain table of bytea": []}
    for _ in range(given.runs):
        with tempfile.TemporaryDirectory() as folder:
            seconds["SQLite"].append(_board(str(Path(folder) / "a.db"), given.n))
        name = f"bench_{secrets.token_hex(6)}"
        url = base.update_query_dict({"schema": name}).render_as_string(hide_password=False)
        try:
            seconds["PostgreSQL"].append(_board(url, given.n))
        finally:
            with psycopg.connect(plain, autocommit=True) as connection:
                connection.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')
        seconds["plain table of bytea"].append(_plain(plain, given.n))
    us = partial(_us, given.n)
    rows: list[dict[str, Any]] = [
        {"store": name, "put, µs a package": us(runs, "put"), "get, µs a package": us(runs, "get")}
        for name, runs in seconds.items()
    ]
    print(measure.table(f"{given.n:,} packages of {3 * 8 * WIDTH} B, pages of {BIN}", rows))
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "machine": measure.machine("numpy", "psycopg")}))


def _us(n: int, runs: list[dict[str, float]], what: str) -> float:
    return median(run[what] for run in runs) / n * 1e6


if __name__ == "__main__":
    main()
