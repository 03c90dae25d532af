"""A system with two attributes, five ops, four threads and a fork: what ``resume --experiment mixed`` kills.

    mixed.py STORE NAME LOG

Prints one JSON object at its end, as ``whiteboard run --json`` does; LOG gets one line for each commit.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import whiteboard as wb

NODES, ROUNDS, FORK_AT, FORK_ROUNDS = 24, 60, 20, 10
RULE = wb.rules.Relax(eta=0.05, rtol=0.1, atol=0.1)


def batches() -> list[wb.JobBatch]:
    """Return the jobs of a round: several ops over theta, and distances over p."""
    rng = np.random.default_rng(2)
    pairs = np.array([rng.choice(NODES, 2, replace=False) for _ in range(40)])
    return [
        wb.JobBatch("mul", pairs, target=np.zeros((40, 3)), scale=0.1),
        wb.JobBatch("vecdot", pairs, target=1.0, scale=0.1),
        wb.JobBatch("tanh", pairs[:, :1], residual=0.5),
        wb.JobBatch("squared_distance", pairs, target=2.0, scale=0.01),
        wb.JobBatch("distance", pairs, target=rng.uniform(1, 2, 40), scale=0.5, attr="p"),
    ]


def go_on(system: wb.System, rounds: int, log: wb.JsonlSink | wb.NullSink) -> None:
    """Bring a system to `rounds` rounds, each fed from four threads in pieces."""
    pieces = [batch.take(part) for batch in batches() for part in np.array_split(np.arange(len(batch)), 3)]
    if system.head is None:
        rng = np.random.default_rng(1)
        fixed = np.arange(NODES) % 8 == 0
        system.add_nodes(range(NODES), theta=rng.normal(size=(NODES, 3)), p=rng.normal(size=(NODES, 2)), fixed=fixed)
        log.publish(system.commit())
    with ThreadPoolExecutor(4) as threads:
        while system.head is not None and system.head.id < rounds:
            list(threads.map(system.process, pieces))
            log.publish(system.commit(RULE))


def main() -> None:
    """Run from the command line."""
    store, name, path = sys.argv[1:]
    with wb.open(store) as board, wb.JsonlSink(path) as log:
        system = board.system(name)
        go_on(system, FORK_AT, log)
        fork_name = f"{name}-fork"
        fork = board.system(fork_name) if fork_name in board.systems() else system.fork(fork_name, at=FORK_AT)
        go_on(fork, FORK_AT + FORK_ROUNDS, wb.NullSink())
        go_on(system, ROUNDS, log)
        head = system.head
        assert head is not None
        print(json.dumps({"commit": head.id, "digest": f"{head.digest} {fork.digest()}"}))


if __name__ == "__main__":
    main()
