"""Commits, sums of impulses, and opening a system with a long history, beside the plainest way to do the same."""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import whiteboard as wb
from scripts.benching.measure import interleaved, machine, parser, report, timed
from whiteboard.systems.impulses import Impulses, ordered_sum

NODES, WIDTH = 10_000, 64
RNG = np.random.default_rng(0)


def commits(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Time a commit that changes every node beside one blob of the same bytes, each in one transaction."""
    raw = sqlite3.connect(folder / "raw.db", isolation_level=None)
    for pragma in ("page_size=8192", "journal_mode=WAL", "synchronous=NORMAL"):
        raw.execute(f"PRAGMA {pragma}")
    raw.execute("CREATE TABLE blob (id INTEGER PRIMARY KEY, data BLOB)")

    def one_blob(values: np.ndarray) -> None:
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("INSERT INTO blob (data) VALUES (?)", (values.tobytes(),))
        raw.execute("COMMIT")

    with wb.open(folder / "system.db", persist="never") as board:
        system = board.system("system")
        system.add_nodes(range(NODES), theta=RNG.normal(size=(NODES, WIDTH)))
        system.commit()

        def impulses() -> None:
            jobs = wb.JobBatch("exp", np.arange(NODES)[:, None], residual=RNG.normal(size=NODES) * 1e-3)
            system.process(jobs)

        seconds = interleaved(
            {
                "one blob, raw sqlite3": (one_blob, lambda: RNG.normal(size=(NODES, WIDTH))),
                "commit": (lambda _: system.commit(wb.rules.Relax(0.1, 0.1, 0.1)), impulses),
            },
            runs=runs,
        )
    raw.close()
    floor = seconds["one blob, raw sqlite3"]
    return [{"what": name, "ms": 1e3 * each, "times the blob": each / floor} for name, each in seconds.items()]


def sums(impulses: int, runs: int) -> list[dict[str, Any]]:
    """Time the content-ordered sum of many impulses beside NumPy's sums of the same rows, already in order."""
    vectors = RNG.normal(size=(impulses, WIDTH))
    rows = RNG.permutation(np.repeat(np.arange(NODES), impulses // NODES))
    src_ids = np.stack([rows, RNG.integers(0, NODES, len(rows))], axis=1)
    batch = Impulses(0, rows, b"", src_ids, np.zeros(len(rows), np.int64), np.ones(len(rows)), vectors[: len(rows)])
    starts = np.arange(0, len(rows), impulses // NODES)
    seconds = {
        "reduceat of rows in order": timed(lambda _: np.add.reduceat(batch.vectors, starts, axis=0), runs=runs),
        "sum(1) of rows in order": timed(lambda _: batch.vectors.reshape(NODES, -1, WIDTH).sum(1), runs=runs),
        "gather of rows out of order": timed(
            lambda order: batch.vectors.take(order, axis=0), lambda: RNG.permutation(len(rows)), runs=runs
        ),
        "content-ordered sum": timed(lambda _: ordered_sum([batch]), runs=runs),
        "exact sum of a tenth": timed(
            lambda _: ordered_sum([batch.take(np.arange(len(rows) // 10))], exact=True), runs=runs
        ),
    }
    floor = seconds["reduceat of rows in order"]
    return [{"what": name, "ms": 1e3 * each, "times reduceat": each / floor} for name, each in seconds.items()]


def opening(folder: Path, history: int, runs: int) -> list[dict[str, Any]]:
    """Time opening a system of many nodes after many commits of a few nodes each."""
    path = folder / "long.db"
    with wb.open(path) as board:
        system = board.system("long")
        system.add_nodes(range(NODES), theta=RNG.normal(size=(NODES, WIDTH)))
        system.commit()
        for number in range(history):
            system.write(number % NODES, theta=RNG.normal(size=WIDTH))
            system.commit()
        digest = system.digest()

    def open_it(_: None) -> None:
        with wb.open(path) as board:
            if board.system("long").digest() != digest:
                sys.exit("the system that was opened is another one")

    return [
        {"what": f"open and digest {NODES:,} nodes after {history:,} commits", "ms": 1e3 * timed(open_it, runs=runs)}
    ]


def main() -> None:
    """Run from the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--impulses", type=int, default=1_000_000)
    options.add_argument("--history", type=int, default=10_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables = {
            f"Commit of {NODES:,} changed nodes of {WIDTH} float64": commits(Path(folder), given.runs),
            f"Sum of {given.impulses:,} impulses onto {NODES:,} nodes": sums(given.impulses, given.runs),
            "Open a system": opening(Path(folder), given.history, given.runs),
        }
    report(machine("sqlalchemy"), tables, given.json)


if __name__ == "__main__":
    main()
