"""Moving caches: merge, export and import beside SQLite's own copy of the same rows, each in a process of its own.

The copy attaches the other store and inserts its rows in one transaction: no page goes through a gate, no packages are
compared, nobody else can write meanwhile, and it cannot be stopped and gone on with.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from scripts.benching import measure
from whiteboard.records.packages import Page
from whiteboard.storage import open_store
from whiteboard.storage.page.codec import Encoding
from whiteboard.storage.transfer.export import export
from whiteboard.storage.transfer.import_archive import import_archive
from whiteboard.storage.transfer.merge import merge
from whiteboard.storage.upkeep.recompress import recompress
from whiteboard.storage.upkeep.recompress_plan import Form

WIDTH = 64
_ROWS = 256


def make(path: Path, count: int, seed: int) -> None:
    """Fill a store with packages of random numbers, which is what compresses least."""
    rng = np.random.default_rng(seed)
    with open_store(path, memory_bytes=0) as stores:
        for first in range(0, count, _ROWS):
            n = min(_ROWS, count - first)
            arrays = dict(zip(("y", "g0", "g1"), rng.normal(size=(3, n, WIDTH)), strict=True))
            stores.packages.put(Page("mul", rng.integers(0, 256, (n, 16), np.uint8), arrays, 1000 * n))


def copy(into: Path, source: Path) -> None:
    """Copy the rows of one store into another as SQLite does it alone."""
    with closing(sqlite3.connect(into, isolation_level=None)) as connection:
        run = connection.execute
        run("PRAGMA synchronous=NORMAL")
        run("ATTACH ? AS other", (str(source),))
        run("BEGIN IMMEDIATE")
        (last,) = run("SELECT max(id) FROM page").fetchone()
        run(f"INSERT INTO page SELECT id + {last}, op, n, nbytes, cost_ns, header, digest, data FROM other.page")
        run(f"INSERT OR IGNORE INTO package SELECT hash, page_id + {last}, slot FROM other.package")
        run(f"INSERT INTO recent SELECT page_id + {last}, hashes FROM other.recent")
        run(f"INSERT INTO page_access SELECT page_id + {last}, last_use, hits FROM other.page_access")
        run("COMMIT")


TASKS: dict[str, Callable[[Path], object]] = {
    "sqlite3's own copy": lambda folder: copy(folder / "into.db", folder / "other.db"),
    "merge": lambda folder: merge(folder / "into.db", [folder / "other.db"]),
    "merge of what is there": lambda folder: merge(folder / "merged.db", [folder / "other.db"]),
    "export": lambda folder: export(folder / "other.db", folder / "new.wb"),
    "import into a new store": lambda folder: import_archive(folder / "new.db", folder / "other.wb"),
    "import of what is there": lambda folder: import_archive(folder / "merged.db", folder / "other.wb"),
    "recompress": lambda folder: recompress(folder / "into.db", Form(Encoding("zstd", 5), 128 * 1024)),
}


def fresh(task: str, folder: str) -> tuple[float, float]:
    """Do one task in this process; return its seconds, and the peak of resident megabytes since the process began."""
    start = time.perf_counter()
    TASKS[task](Path(folder))
    return time.perf_counter() - start, measure.peak_mb()


def _again(folder: Path) -> None:
    """Bring the folder to where each run begins."""
    for path in folder.glob("new.*"):
        path.unlink()
    for path in folder.glob("into.db*"):
        path.unlink()
    shutil.copy(folder / "first.db", folder / "into.db")


def measured(folder: Path, count: int, runs: int) -> list[dict[str, Any]]:
    """Run each task in turns, on stores of so many packages each."""
    for seed, name in enumerate(("first", "other")):
        make(folder / f"{name}.db", count, seed)
    shutil.copy(folder / "first.db", folder / "merged.db")
    merge(folder / "merged.db", [folder / "other.db"])
    export(folder / "other.db", folder / "other.wb")
    found: dict[str, list[tuple[float, float]]] = {task: [] for task in TASKS}
    for _ in range(runs):
        for task in TASKS:
            _again(folder)
            command = [sys.executable, __file__, "--fresh", json.dumps([task, str(folder)])]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[task].append(tuple(json.loads(done.stdout)))
    payload = count * 3 * 8 * WIDTH
    rows = []
    for task, each in found.items():
        seconds, peak = (median(column) for column in zip(*each, strict=True))
        rate = payload / seconds / 1e6
        rows.append(
            {"what": task, "s": seconds, "packages a second": count / seconds, "MB a second": rate, "peak MB": peak}
        )
    for row in rows:
        row["÷ sqlite3's copy"] = row["s"] / rows[0]["s"]
    return rows


def main() -> None:
    """Print the table."""
    options = measure.parser(__doc__ or "")
    options.add_argument("--count", type=int, default=100_000, help="packages of each store (default: %(default)s)")
    options.add_argument("--folder", type=Path, help="where the stores are made (default: a temporary folder)")
    options.add_argument("--fresh", help="what a fresh process is asked by this program")
    given = options.parse_args()
    if given.fresh:
        print(json.dumps(fresh(*json.loads(given.fresh))))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        title = f"Stores of {given.count:,} packages of {24 * WIDTH:,} bytes"
        tables = {title: measured(Path(name), given.count, given.runs)}
    measure.report(measure.machine("sqlalchemy", "blosc2"), tables, given.json)


if __name__ == "__main__":
    main()
