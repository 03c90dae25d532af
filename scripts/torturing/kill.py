"""Kill writers of one store with SIGKILL at random instants; nothing that was acknowledged may be lost or damaged.

Four writers commit and put packages as fast as they can, and write down each commit that returned. Again and again
some of them are killed and started anew; after each kill the store is read as it stands.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from scripts.torturing.workload import PACKAGES, append, finish, keys_of, page_of, wrong_packages, wrong_state
from whiteboard.storage import open_store
from whiteboard.storage.upkeep.verify import verify

NAMES = ("a", "b", "c", "d")
KILLS_PER_STORE = 25


def write(path: Path, name: str, log: Path) -> None:
    """Go on from the system's last commit until killed; each commit that returned is one line of the log."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with open_store(path) as stores:
        known = stores.versions.system(name)
        number = stores.versions.state(name).commit.number + 1 if known else 0
        while True:
            stores.packages.put(page_of(name, range(PACKAGES * number, PACKAGES * (number + 1))))
            append(stores, name, number)
            os.write(fd, f"{number}\n".encode())
            number += 1


def acknowledged(log: Path) -> int:
    """Return the last commit that was written down, -1 for none."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return int(lines[-1]) if lines else -1


def look(path: Path, logs: dict[str, Path], *, whole: bool) -> tuple[int, int]:
    """Return how much is wrong with the store as it stands, and how many commits it holds."""
    least = {name: acknowledged(log) for name, log in logs.items()}
    wrong = commits = 0
    with open_store(path, memory_bytes=0) as stores:
        for name in NAMES:
            number, faults = wrong_state(stores, name, least[name])
            commits += number + 1
            first = 0 if whole else max(0, least[name] - 50)
            keys = keys_of(name, range(PACKAGES * first, PACKAGES * (least[name] + 1)))
            for start in range(0, len(keys), 4096):
                part = keys[start : start + 4096]
                faults += wrong_packages(stores.packages.find(part), part, missing=True)
            if faults:
                print(f"system {name}: {faults} faults at commit {number}, acknowledged {least[name]}", flush=True)
            wrong += faults
        if whole and not (report := verify(stores.database)).ok:
            print(f"verify: {report}", flush=True)
            wrong += 1
    return wrong, commits


def torture(kills: int, seed: int, folder: Path) -> dict[str, int]:
    """Kill `kills` times and return counts."""
    chance = random.Random(seed)
    context = get_context("fork")
    counts = {"kills": 0, "commits": 0, "wrong": 0}
    for number in range(-(-kills // KILLS_PER_STORE)):
        path = folder / f"{number}.db"
        logs = {name: folder / f"{number}.{name}" for name in NAMES}
        writers: dict[str, BaseProcess] = {}
        end = min(kills, counts["kills"] + KILLS_PER_STORE)
        while counts["kills"] < end:
            for name in NAMES:
                if name not in writers:
                    writers[name] = context.Process(target=write, args=(path, name, logs[name]), daemon=True)
                    writers[name].start()
            time.sleep(chance.uniform(0, 0.25))
            for name in chance.sample(NAMES, min(chance.choice([1, 1, 2, 4]), end - counts["kills"])):
                writer = writers.pop(name)
                if writer.exitcode is not None or writer.pid is None:
                    print(f"the writer of {name} ended by itself with {writer.exitcode}", flush=True)
                    counts["wrong"] += 1
                    continue
                os.kill(writer.pid, signal.SIGKILL)
                writer.join()
                counts["kills"] += 1
            counts["wrong"] += look(path, logs, whole=False)[0]
        for writer in writers.values():
            writer.kill()
            writer.join()
        wrong, commits = look(path, logs, whole=True)
        counts["wrong"] += wrong
        counts["commits"] += commits
        print(f"{counts['kills']} kills, {counts['commits']} commits, {counts['wrong']} wrong", flush=True)
        for each in folder.iterdir():
            each.unlink()
    return counts


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        finish("kill", torture(options.kills, options.seed, Path(folder)))


if __name__ == "__main__":
    main()
