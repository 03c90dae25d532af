"""A store on a PostgreSQL server beside one in a file and a plain table of bytea: pages of 256, put and read.

The least of the runs counts: the server is on the same cores, and others disturb both.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psycopg
from sqlalchemy.engine import URL, make_url

import whiteboard as wb
from scripts.benching import measure
from scripts.benching.link import slow

WIDTH, BIN = 64, 256
_SINGLE = 40


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
        get = time.perf_counter() - begun
    with wb.open(url, memory_bytes=0) as board:  # a commit of few nodes, and one key of a page that was not read yet
        system = board.system("s")
        system.add_nodes(range(8), theta=np.ones((8, WIDTH)))
        system.commit()
        begun = time.perf_counter()
        for number in range(_SINGLE):
            system.write(0, theta=np.full(WIDTH, float(number)))
            system.commit()
        commit = time.perf_counter() - begun
        begun = time.perf_counter()
        for row in np.linspace(0, n - 1, _SINGLE).astype(int):
            assert board.call("mul", x[row], x[row]).hit == "disk"
        one = time.perf_counter() - begun
    return {"put": put, "get": get, "commit": commit, "one": one}


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
    parser.add_argument("--link", type=float, default=1.0, help="milliseconds there and back of a slow link; 0: none")
    parser.add_argument("--runs", type=int, default=measure.RUNS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if not given.store:
        parser.error("name a server: --store postgresql+psycopg://USER@HOST/DATABASE")
    base = make_url(given.store)
    seconds: dict[str, list[dict[str, float]]] = defaultdict(list)
    with ExitStack() as stack:
        places = {"": base}
        if given.link:
            port = stack.enter_context(slow(base.host or "127.0.0.1", base.port or 5432, given.link))
            places[f", a link of {given.link:g} ms"] = base.set(host="127.0.0.1", port=port)
        for _ in range(given.runs):
            with tempfile.TemporaryDirectory() as folder:
                seconds["SQLite"].append(_board(str(Path(folder) / "a.db"), given.n))
            for where, at in places.items():
                _measured(at, given.n, seconds[f"PostgreSQL{where}"], seconds[f"plain table of bytea{where}"])
    rows = [
        {
            "store": name,
            "put, µs a package": _us(runs, "put", given.n),
            "get, µs a package": _us(runs, "get", given.n),
            "commit, µs": _us(runs, "commit", _SINGLE),
            "one key, µs": _us(runs, "one", _SINGLE),
        }
        for name, runs in seconds.items()
    ]
    print(measure.table(f"{given.n:,} packages of {3 * 8 * WIDTH} B, bins of {BIN}", rows))
    if given.json:
        given.json.write_text(json.dumps({"rows": rows, "machine": measure.machine("numpy", "psycopg")}))


def _measured(base: URL, n: int, stores: list[dict[str, float]], plain: list[dict[str, float]]) -> None:
    """Measure a store in a schema of its own, and a plain table."""
    name = f"bench_{secrets.token_hex(6)}"
    direct = base.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        stores.append(_board(base.update_query_dict({"schema": name}).render_as_string(hide_password=False), n))
    finally:
        with psycopg.connect(direct, autocommit=True) as connection:
            connection.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')
    plain.append(_plain(direct, n))


def _us(runs: list[dict[str, float]], what: str, n: int) -> float | None:
    return min(run[what] for run in runs) / n * 1e6 if what in runs[0] else None


if __name__ == "__main__":
    main()
