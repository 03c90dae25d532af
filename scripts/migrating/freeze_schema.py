"""Write a small store with packages, systems and history, as a schema has it, and what is in it, as JSON beside it."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import whiteboard as wb
from whiteboard.storage.sqlite import schema

ASSETS = Path(__file__).resolve().parents[2] / "tests" / "assets"


def fill(path: Path) -> dict[str, object]:
    """Make the store; return what a reader has to find in it."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20, 4))
    true = rng.normal(size=(6, 2))
    edges = np.array([(i, j) for i in range(6) for j in range(i)])
    lengths = np.sqrt(((true[edges[:, 0]] - true[edges[:, 1]]) ** 2).sum(1))
    with wb.open(path) as board:
        y = board.call_many("mul", a, b).y
        board.call_many("sum", a)
        system = board.system("points", {"made": "by freeze-schema"})
        system.add_nodes(range(6), theta=rng.normal(size=(6, 3)), p=rng.normal(size=(6, 2)))
        system.commit()
        jobs = wb.JobBatch("distance", edges, target=lengths, scale=1 / lengths**2, attr="p")
        for _ in range(4):
            system.process(jobs)
            system.commit(wb.rules.StressDescent(omega=0.9))
        fork = system.fork("forked", at=2)
        fork.process(jobs)
        fork.commit(wb.rules.StressDescent(omega=0.5))
        board.flush()
        return {
            "packages": int(board.stats()["packages"]),
            "systems": {name: [c.digest for c in board.system(name).history()] for name in ("points", "forked")},
            "products": y.tolist(),
        }


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--revision", default=schema.HEAD, help="the schema; an older one comes by a downgrade")
    parser.add_argument("--folder", type=Path, default=ASSETS)
    options = parser.parse_args()
    target = options.folder / f"schema-{options.revision}.db.gz"
    if target.exists():
        print(f"freeze-schema: {target} exists: a released schema is frozen once", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        holds = fill(path)
        if options.revision != schema.HEAD:
            schema.downgrade(path, options.revision)
        data = path.read_bytes()
    target.write_bytes(gzip.compress(data, 9, mtime=0))
    target.with_name(f"schema-{options.revision}.json").write_text(json.dumps(holds, indent=1) + "\n", "utf-8")
    print(f"{target}: {len(data):,} bytes, {target.stat().st_size:,} compressed, {holds['packages']} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
